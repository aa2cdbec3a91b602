"""A sweep ends in one table over its jobs.

A Hydra callback, and so the one place here that knows Hydra.
"""

from __future__ import annotations

import atexit
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmavlm.runs.metrics import read_metrics, write_text

# Shown on screen; the csv has every metric.
HEADLINE = ("accuracy", "top1", "rank_top1", "top5", "recall", "text", "loss")


@dataclass(frozen=True)
class Job:
    """One job of a sweep: what was set for it, and its metrics ({} if it failed)."""

    number: str
    settings: dict[str, str]
    metrics: dict[str, float]


class SweepTable(Callback):
    """Collect the jobs' metrics.json into a printed table, sweep.csv and sweep.md."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Promise the table: Hydra tells of a sweep's end only if no job failed."""
        atexit.register(finish, Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write and print the table of the sweep that ends."""
        atexit.unregister(finish)
        finish(Path(config.hydra.sweep.dir))


def finish(folder: Path) -> None:
    """Write and print the table of a sweep's folder, if a job was started there."""
    if jobs := read_jobs(folder):
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
    everything = io.StringIO()
    csv.writer(everything, lineterminator="\n").writerows(
        [
            ["job", *settings, *names],
            *(
                [j.number, *j.settings.values(), *(j.metrics.get(n, "") for n in names)]
                for j in jobs
            ),
        ]
    )
    write_text(folder / "sweep.csv", everything.getvalue())

    shown = [n for n in names if n.startswith("test/") and n.rsplit("/", 1)[-1] in HEADLINE]
    columns = [name.removeprefix("test/") for name in shown] or ["state"]
    header = ["job", *settings, *columns]
    lines = [[j.number, *j.settings.values(), *_cells(j, shown)] for j in jobs]
    write_text(folder / "sweep.md", _markdown([header, ["-"] * len(header), *lines]))
    table = Table(
        *map(escape, header), title=escape(f"{len(jobs)} jobs in {folder}"), title_justify="left"
    )
    for line in lines:
        table.add_row(*map(escape, line))
    Console().print(table)


def _markdown(rows: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def _cells(job: Job, names: list[str]) -> list[str]:
    if not job.metrics or not names:
        return ["done" if job.metrics else "failed"] * max(1, len(names))
    return [f"{job.metrics[name]:.3f}" if name in job.metrics else "" for name in names]


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parents[1].name
    return (int(name) if name.isdigit() else 1 << 30, name)
