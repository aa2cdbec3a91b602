"""The report of a sweep: its jobs beside each other, in the look of a run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmavlm.core.redaction import redacted, redacted_argument
from mmavlm.metrics.headline import Score, headline
from mmavlm.report import Bar, Report, Table, draw_bars
from mmavlm.run.sweep import Job, rows_of, shown_settings

PAGE = "report.html"  # of the sweep, and of each of its jobs
DRAWN = 2  # numbers of tasks that are drawn, beside those of all tasks
MOST_BARS = 40
Scores = list[tuple[Job, Score]]  # one number of each job that has it
CHOOSING = (
    "Each job is one training: another seed gives other numbers. To choose a job by its test is to "
    "choose by the test's items; confirm what you choose on others."
)


def describe_sweep(
    folder: Path, jobs: Sequence[Job], shared: Mapping[str, str], shown: Sequence[Sequence[str]]
) -> Report:
    """The report of jobs, from whose settings the `shared` ones are taken.

    `shown` are the rows of their table, the headings first.
    """
    done = [job for job in jobs if job.metrics and not job.error]
    by_name: dict[str, Scores] = {}
    for job in done:
        for score in headline(job.metrics):
            by_name.setdefault(score.name, []).append((job, score))
    of_all = [name for name in by_name if "/" not in name]  # such as hallucination
    of_tasks = [name for name in by_name if "/" in name][:DRAWN]
    drawn = [by_name[name] for name in (*of_tasks, *of_all)]
    every = list(dict.fromkeys(name for job in jobs for name in job.metrics))
    columns, *rows = rows_of(jobs, every, lambda job: [str(job.metrics.get(n, "")) for n in every])
    links = [f"{job.number}/{PAGE}" for job in jobs]
    links = [link if (folder / link).is_file() else "" for link in links]
    told = " ".join(redacted_argument(f"{key}={value}") for key, value in shared.items())
    note = CHOOSING if len(done) > 1 else ""
    failed = any(job.error for job in jobs)  # then the last column says why, as a table of its own
    columns_shown, *rows_shown = ([*row[:-1]] if failed else [*row] for row in shown)
    return Report(
        title=f"Sweep · {folder.name}",
        lead=[*_counted(jobs, done), *map(_told, drawn[:1])],
        facts={"in all jobs": told} if told else {},
        tables=[
            Table("Jobs", columns_shown, rows_shown, note, links, main=True),
            *_failed(jobs),
            Table("Every number of every job", columns, rows),
        ],
        drawings={_title(scores): _drawn(scores) for scores in drawn},
    )


def _failed(jobs: Sequence[Job]) -> list[Table]:
    """Why jobs have failed, if any has."""
    rows = [
        [job.number, ", ".join(_settings(job)), str(redacted(job.error))]
        for job in jobs
        if job.error
    ]
    return [Table("Failed", ["job", "settings", "reason"], rows, main=True)] if rows else []


def _counted(jobs: Sequence[Job], done: Sequence[Job]) -> list[str]:
    count = f"{len(jobs)} job{'s' * (len(jobs) > 1)}"
    if len(done) == len(jobs):
        return [f"{count}, all done."]
    left = [job.number for job in jobs if job not in done]
    return [f"{count}, {len(done)} of them done. Not done: {', '.join(left)}."]


def _told(scores: Scores) -> str:
    """The best job by a number, and how many others its interval cannot tell from it."""
    sign = 1 if scores[0][1].lower_is_better else -1
    (best, top), *others = sorted(scores, key=lambda one: sign * one[1].value)
    name = f"{top.name}, {top.meaning.short}"
    if not others:
        return f"{name}: {_shown(top)} in {_named(best)}."
    worst, bottom = others[-1]
    if top.value == bottom.value:
        return f"{name}: {_shown(top)} in each of {len(scores)} jobs."
    said = f"{name}: best in {_named(best)} with {_shown(top)}"
    said += f", worst in {_named(worst)} with {_shown(bottom)}."
    if top.low is None or top.high is None:
        return said
    near = sum(_overlap(top, score) for _, score in others)
    if near:
        said += (
            f" Of the {len(others)} other{'s' * (len(others) > 1)} {near} "
            f"{'have intervals' if near > 1 else 'has an interval'} that overlap"
            f"{'s' * (near == 1)} with the best one's: these test items alone may not tell them "
            "apart."
        )
    return said


def _overlap(one: Score, other: Score) -> bool:
    """Whether the intervals of two numbers overlap; a number without one stands for itself."""
    bounds = [
        (score.value if score.low is None else score.low,
         score.value if score.high is None else score.high)
        for score in (one, other)
    ]  # fmt: skip
    return max(low for low, _ in bounds) <= min(high for _, high in bounds)


def _settings(job: Job) -> list[str]:
    return [redacted_argument(f"{key}={value}") for key, value in job.settings.items()]


def _named(job: Job) -> str:
    settings = ", ".join(_settings(job))
    return f"job {job.number} ({settings})" if settings else f"job {job.number}"


def _shown(score: Score) -> str:
    return score.shown + (f" (95 % interval {score.interval})" if score.interval else "")


def _title(scores: Scores) -> str:
    """What a drawing shows: a number's name, its meaning, and which way is better."""
    _, score = scores[0]
    better = "lower is better" if score.lower_is_better else "higher is better"
    return f"{score.name}: {score.meaning.short}, {better}"


def _drawn(scores: Scores) -> str:
    highest = sorted(scores, key=lambda one: -one[1].value)[:MOST_BARS]
    bars = [
        Bar(", ".join(shown_settings(job)) or job.number, *_bounded(score))
        for job, score in highest
    ]
    score = scores[0][1]
    return draw_bars(score.name + (" (%)" if score.shown.endswith("%") else ""), bars)


def _bounded(score: Score) -> tuple[float, float | None, float | None]:
    """Value and bounds in the unit in which the number is shown."""
    scale = 100 if score.shown.endswith("%") else 1
    bounds = [None if bound is None else scale * bound for bound in (score.low, score.high)]
    return scale * score.value, bounds[0], bounds[1]
