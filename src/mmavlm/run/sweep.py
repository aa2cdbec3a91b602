"""A sweep ends in one table over its jobs.

A Hydra callback, and so the one place here that knows Hydra.
"""

from __future__ import annotations

import atexit
import csv
import io
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmavlm.core.metrics_file import read_metrics, write_text
from mmavlm.core.redaction import redacted

log = logging.getLogger(__name__)

ERROR_FILE = "error.txt"  # in the folder of a job that failed
# Shown on screen, beside what a test is told by; the csv has every metric.
HEADLINE = (
    *("accuracy", "top1", "rank_top1", "top5", "cider", "cider_plain", "meteor", "recall", "text"),
    "loss",
)


@dataclass(frozen=True)
class Job:
    """One job of a sweep: what was set for it, its metrics, and what it failed of ("" if not)."""

    number: str
    settings: dict[str, str]
    metrics: dict[str, float]
    error: str = ""


class SweepTable(Callback):
    """Collect the jobs' metrics and errors into a printed table, sweep.csv, .md and report.html."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Promise the table: Hydra tells of a sweep's end only if no job failed."""
        atexit.register(finish, Path(config.hydra.sweep.dir))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Tell of a job that failed, and leave the reason in its folder."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        path = Path(config.hydra.runtime.output_dir) / ERROR_FILE
        path.unlink(missing_ok=True)
        if job_return.status == JobStatus.FAILED:
            error = job_return._return_value  # the property would raise it
            mistake = isinstance(error, CompactHydraException)
            message = str(error) if mistake else f"{type(error).__name__}: {error}"
            log.error("job failed: %s", message, exc_info=None if mistake else error)
            write_text(path, message + "\n")
            _forget_frames(error)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write and print the table of the sweep that ends."""
        atexit.unregister(finish)
        finish(Path(config.hydra.sweep.dir))


def finish(folder: Path) -> None:
    """Write and print the table of a sweep's folder, if a job was started there."""
    if jobs := read_jobs(folder):
        write_table(folder, jobs)


def read_jobs(folder: Path) -> list[Job]:
    """The jobs below a sweep's folder, in order, with all that was set for them."""
    jobs = []
    for path in sorted(folder.glob("*/.hydra/overrides.yaml"), key=_job_number):
        overrides = [str(o) for o in OmegaConf.load(path)]
        settings = dict(o.split("=", 1) for o in overrides if "=" in o)
        folder_of_job, error = path.parents[1], path.parents[1] / ERROR_FILE
        jobs.append(
            Job(
                number=folder_of_job.name,
                settings=settings,
                metrics=read_metrics(folder_of_job / "metrics.json"),
                error=error.read_text(encoding="utf-8").strip() if error.is_file() else "",
            )
        )
    return jobs


def without_shared(jobs: list[Job]) -> list[Job]:
    """The jobs without the settings that all of them share."""
    varied = [
        key
        for key in dict.fromkeys(k for job in jobs for k in job.settings)
        if len({job.settings.get(key) for job in jobs}) > 1
    ]
    return [replace(j, settings={k: j.settings.get(k, "") for k in varied}) for j in jobs]


def write_table(folder: Path, jobs: list[Job]) -> None:
    """Write sweep.csv (all metrics), sweep.md (the main ones) which is printed, and report.html.

    Settings that all jobs share are told once, in the report.
    """
    first = jobs[0].settings
    jobs = without_shared(jobs)
    shared = {key: value for key, value in first.items() if key not in jobs[0].settings}
    # as drawing below: loaded at a sweep's end
    from mmavlm.metrics.headline import TEST, headline

    names = list(dict.fromkeys(name for job in jobs for name in job.metrics))
    told = {f"{TEST}{score.name}" for job in jobs for score in headline(job.metrics)}
    shown = [
        name
        for name in names
        if name in told or (name.startswith(TEST) and name.rsplit("/", 1)[-1] in HEADLINE)
    ]
    # those of all tasks, such as hallucination, first: a narrow screen shows no others
    shown.sort(key=lambda name: "/" in name.removeprefix(TEST))
    rows = rows_of(jobs, names, lambda job: [str(job.metrics.get(n, "")) for n in names])
    everything = io.StringIO()
    csv.writer(everything, lineterminator="\n").writerows(rows)
    write_text(folder / "sweep.csv", everything.getvalue())

    columns = [name.removeprefix("test/") for name in shown] or ["state"]
    header, *lines = rows_of(jobs, columns, lambda job: _cells(job, shown))
    write_text(folder / "sweep.md", markdown([header, ["-"] * len(header), *lines]))
    _print(f"{len(jobs)} jobs in {folder}", [header, *lines], 1 + len(jobs[0].settings))
    _write_page(folder, jobs, shared, [header, *lines])


def _print(title: str, rows: list[list[str]], named: int) -> None:
    """Print as many columns as the screen has room for, at least one beside the `named` ones."""
    console, columns = Console(), len(rows[0])
    while True:
        table = Table(*map(escape, rows[0][:columns]), title=escape(title), title_justify="left")
        for row in rows[1:]:
            table.add_row(*map(escape, row[:columns]))
        width = table.__rich_measure__(console, console.options.update(max_width=10**4)).maximum
        if width <= console.width or columns <= named + 1:
            break
        columns -= 1
    console.print(table)
    if left := len(rows[0]) - columns:
        console.print(f"{left} more columns are in the report")


def _write_page(
    folder: Path, jobs: list[Job], shared: dict[str, str], shown: list[list[str]]
) -> None:
    # drawing is loaded at a sweep's end: this module is read at the start of each single run, too
    from mmavlm.report import write_report
    from mmavlm.run.sweep_page import PAGE, describe_sweep

    write_report(folder / PAGE, describe_sweep(folder, jobs, shared, shown))
    log.info("report: %s", folder / PAGE)


def rows_of(
    jobs: Sequence[Job], columns: list[str], cells: Callable[[Job], list[str]]
) -> list[list[str]]:
    """A header and a row a job: number, settings, cells, and the error's first line if any has."""
    failed = any(job.error for job in jobs)
    header = ["job", *jobs[0].settings, *columns, *["error"] * failed]
    rows = [
        [j.number, *shown_settings(j), *cells(j), *[j.error.partition("\n")[0]] * failed]
        for j in jobs
    ]
    return [header, *rows]


def shown_settings(job: Job) -> list[str]:
    """What was set for a job, without secrets."""
    return [str(redacted(value, key)) for key, value in job.settings.items()]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table; the second one holds the dashes below the header."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def _cells(job: Job, names: list[str]) -> list[str]:
    done = job.metrics and not job.error
    if not done or not names:
        return ["done" if done else "failed"] * max(1, len(names))
    return [f"{job.metrics[name]:.3f}" if name in job.metrics else "" for name in names]


def _forget_frames(error: BaseException | None) -> None:
    """Let go of what a failed job held, its model above all: Hydra keeps the error to the end."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parents[1].name
    return (int(name) if name.isdigit() else 1 << 30, name)
