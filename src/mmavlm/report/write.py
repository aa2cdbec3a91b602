"""Lay a report out as one html file that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from mmavlm.report.contact_sheet import lay_out
from mmavlm.report.contents import Confusion, Curve, Report, SampleAnswer
from mmavlm.report.curves import draw
from mmavlm.report.drawing import data_uri
from mmavlm.report.explanation import draw_explanation
from mmavlm.report.films import FilmsOfPage
from mmavlm.report.findings import findings, likely
from mmavlm.report.lead import against_guess, label, lead
from mmavlm.report.timeline import draw_timeline, listed

ASIDE = {
    "wait",
    "items_s",
    "frames_s",
    "tokens_s",
    "mfu",
}  # of how the machine fares, not of what is learnt
Drawn = tuple[str, str]  # a name and its svg element


def write_report(path: Path, report: Report) -> None:
    """Write a report as html: one file, nothing fetched, every text escaped.

    Its one script, which sorts tables and has films jump, is the only one that a browser runs in
    it; without scripts the page shows all the same.
    """
    environment = Environment(
        loader=PackageLoader("mmavlm.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (files("mmavlm.report") / "report.js").read_text(encoding="utf-8")
    films = FilmsOfPage()
    page = environment.get_template("report.html.j2").render(
        report=report,
        lead=report.lead or lead(report.scores),
        tiles=[(score, label(score), against_guess(score)) for score in report.scores],
        glossary={score.kind: score.meaning for score in report.scores},
        curves=_plots(report.curves),
        confusions=[_heat_map(confusion) for confusion in report.confusions],
        sheets=[lay_out(sheet, films) for sheet in report.sheets],
        samples=[_film_strip(sample, films) for sample in report.samples],
        explanations=[
            (e, draw_explanation(e), likely(e.log_prob), findings(e)) for e in report.explanations
        ],
        timelines=[(line, draw_timeline(line), listed(line)) for line in report.timelines],
        script=script,
        script_hash=_hash_of(script),
    )
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)


def _hash_of(script: str) -> str:
    """A script as a page's policy names it."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _plots(curves: Sequence[Curve]) -> list[tuple[str, list[Drawn], list[Drawn]]]:
    """Of each group what to see at once, and what is of details (`task/top5`) and settings."""
    groups: dict[str, dict[str, list[Curve]]] = {}
    for curve in curves:
        groups.setdefault(curve.group, {}).setdefault(curve.name, []).append(curve)
    found = []
    for group, by_name in groups.items():
        first: list[Drawn] = []
        rest: list[Drawn] = []
        for name, lines in by_name.items():
            shown = "/" not in name and name not in ASIDE and any(line.split for line in lines)
            (first if shown else rest).append((name, draw(lines)))
        found.append((group, first, rest))
    return found


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


def _film_strip(sample: SampleAnswer, films: FilmsOfPage) -> dict[str, Any]:
    return {
        "sample": sample,
        "right": sample.right,
        "answers": list(zip(sample.answers, sample.probabilities, strict=True)),
        "frames": [data_uri(frame) for frame in sample.frames],
        "film": films.lay_out(sample.film),
    }
