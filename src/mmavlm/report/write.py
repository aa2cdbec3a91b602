"""Lay a report out as one html file that needs nothing beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from mmavlm.metrics import is_right
from mmavlm.report.contact_sheet import lay_out
from mmavlm.report.contents import Confusion, Curve, Report, SampleAnswer
from mmavlm.report.curves import draw
from mmavlm.report.drawing import data_uri
from mmavlm.report.explanation import draw_explanation
from mmavlm.report.findings import findings
from mmavlm.report.lead import against_guess, label, lead
from mmavlm.report.timeline import draw_timeline, listed

ASIDE = {
    "wait",
    "items_s",
    "frames_s",
    "tokens_s",
    "mfu",
}  # of how the machine fares, not of what is learnt


def write_report(path: Path, report: Report) -> None:
    """Write a report as html: one file, no script, nothing fetched, every text escaped."""
    environment = Environment(
        loader=PackageLoader("mmavlm.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plots, more_plots = _plots(report.curves)
    page = environment.get_template("report.html.j2").render(
        report=report,
        lead=report.lead or lead(report.scores),
        tiles=[(score, label(score), against_guess(score)) for score in report.scores],
        glossary={score.kind: score.meaning for score in report.scores},
        plots=plots,
        more_plots=more_plots,
        confusions=[_heat_map(confusion) for confusion in report.confusions],
        sheets=[lay_out(sheet) for sheet in report.sheets],
        samples=[_film_strip(sample) for sample in report.samples],
        explanations=[
            (e, draw_explanation(e), math.exp(e.log_prob), findings(e)) for e in report.explanations
        ],
        timelines=[(line, draw_timeline(line), listed(line)) for line in report.timelines],
    )
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)


def _plots(curves: Sequence[Curve]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Names and drawings: those to see at once, and those of details (`task/top5`) and settings."""
    by_name: dict[str, list[Curve]] = {}
    for curve in curves:
        by_name.setdefault(curve.name, []).append(curve)
    first: list[tuple[str, str]] = []
    rest: list[tuple[str, str]] = []
    for name, group in by_name.items():
        measured = name.rpartition(" ")[2]
        shown = "/" not in name and measured not in ASIDE and any(curve.split for curve in group)
        (first if shown else rest).append((name, draw(group)))
    return first, rest


def _heat_map(confusion: Confusion) -> dict[str, Any]:
    """Rows of (class, cells of (count, share of the row), items, recall)."""
    counts = np.asarray(confusion.counts)
    rows = []
    for index, (name, row) in enumerate(zip(confusion.classes, counts, strict=True)):
        total = int(row.sum())
        shares = row / max(total, 1)
        cells = list(zip(row.tolist(), shares.tolist(), strict=True))
        rows.append((name, index, cells, total, shares[index] if total else None))
    return {
        "title": confusion.title,
        "classes": confusion.classes,
        "rows": rows,
        "left_out": confusion.left_out,
    }


def _film_strip(sample: SampleAnswer) -> dict[str, Any]:
    return {
        "sample": sample,
        "right": is_right(sample.answers, sample.truth, sample.references, sample.compare),
        "answers": list(zip(sample.answers, sample.probabilities, strict=True)),
        "frames": [data_uri(frame) for frame in sample.frames],
    }
