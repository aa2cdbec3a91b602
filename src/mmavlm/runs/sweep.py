"""A sweep ends in one table over its jobs.

A Hydra callback, and so the one place here that knows Hydra.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from mmavlm.runs.metrics import read_metrics

# Shown on screen; the csv has every metric.
HEADLINE = ("top1", "rank_top1", "top5", "recall", "loss")


@dataclass(frozen=True)
class Job:
    """One job of a sweep: what was set for it, and its metrics ({} if it failed)."""

    number: str
    settings: dict[str, str]
    metrics: dict[str, float]


class SweepTable(Callback):
    """Collect the jobs' metrics.json into a printed table, sweep.csv and sweep.md."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write and print the table of the sweep that ends."""
        folder = Path(config.hydra.sweep.dir)
        jobs = read_jobs(folder)
        if jobs:
            write_table(folder, jobs)


def read_jobs(folder: Path) -> list[Job]:
    """The jobs below a sweep's folder, in order; settings all jobs share are left out."""
    jobs = []
    for path in sorted(folder.glob("*/.hydra/overrides.yaml"), key=_job_number):
        overrides = [str(o) for o in OmegaConf.load(path)]
        settings = dict(o.split("=", 1) for o in overrides if "=" in o)
        job = path.parents[1]
        jobs.append(Job(job.name, settings, read_metrics(job / "metrics.json")))
    varied = [
        key
        for key in dict.fromkeys(k for job in jobs for k in job.settings)
        if len({job.settings.get(key) for job in jobs}) > 1
    ]
    return [Job(j.number, {k: j.settings.get(k, "") for k in varied}, j.metrics) for j in jobs]


def write_table(folder: Path, jobs: list[Job]) -> None:
    """Write sweep.csv (all metrics) and sweep.md (the main ones), and print the latter."""
    settings = list(jobs[0].settings)
    names = list(dict.fromkeys(name for job in jobs for name in job.metrics))
    rows = [
        [job.number, *job.settings.values(), *(job.metrics.get(name, "") for name in names)]
        for job in jobs
    ]
    partial = folder / "sweep.csv.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["job", *settings, *names], *rows])
    os.replace(partial, folder / "sweep.csv")

    shown = [n for n in names if n.startswith("test/") and n.rsplit("/", 1)[-1] in HEADLINE]
    header = ["job", *settings, *(name.removeprefix("test/") for name in shown)]
    lines = [[j.number, *j.settings.values(), *(_cell(j, name) for name in shown)] for j in jobs]
    markdown = [header, ["-"] * len(header), *lines]
    text = "\n".join("| " + " | ".join(line) + " |" for line in markdown) + "\n"
    (folder / "sweep.md").write_text(text, encoding="utf-8")
    table = Table(*header, title=f"{len(jobs)} jobs in {folder}", title_justify="left")
    for line in lines:
        table.add_row(*line)
    Console().print(table)


def _cell(job: Job, name: str) -> str:
    if not job.metrics:
        return "failed"
    value = job.metrics.get(name)
    return "" if value is None else f"{value:.3f}"


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parents[1].name
    return (int(name) if name.isdigit() else 1 << 30, name)
