"""What the report of a run shows: headline numbers, curves, confusions, sample answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from omegaconf import OmegaConf

from mmavlm.core.redaction import redacted
from mmavlm.metrics import Prediction
from mmavlm.metrics.confusion import confusion, unlike
from mmavlm.metrics.guesses import Guesses
from mmavlm.metrics.headline import headline
from mmavlm.metrics.words import meaning
from mmavlm.report import Confusion, Curve, Report, SampleAnswer, Table, read_csv_curves
from mmavlm.run.facts import facts
from mmavlm.run.outcome import Outcome
from mmavlm.stages.predictions import PredictionLog


def describe(run: Outcome, earlier: Sequence[Outcome]) -> Report:
    """The report of a run and of the runs before it."""
    log = PredictionLog() if run.predictions is None else run.predictions
    rows = list(log.rows.values())
    return Report(
        title=" · ".join(str(o) for o in run.overrides if "experiment=" in str(o)) or "mmavlm",
        scores=[
            *headline(run.metrics, Guesses(rows)),
            *(score for part in earlier for score in headline(part.metrics)),
        ],
        facts=facts(run, earlier),
        curves=[curve for part in (*earlier, run) for curve in curves(part)],
        confusions=confusions(rows, run.classes),
        sheets=run.sheets,
        samples=samples(log),
        explanations=list(run.explanations),
        tables=[metrics_table(part) for part in (*earlier, run)],
        config_yaml=OmegaConf.to_yaml(redacted(OmegaConf.to_container(run.config, resolve=True))),
    )


def curves(run: Outcome) -> list[Curve]:
    """The csv log's curves, named after their stage.

    What never changes is left out, and of a benchmark (`videohallucer/all/f1`) everything but its
    headline: drawing its dozens of numbers would take longer than asking it.
    """
    path = run.folder / "csv" / "metrics.csv"
    if not path.is_file():
        return []
    found = read_csv_curves(path, prefix=f"{run.stage}:")
    return [
        curve
        for curve in found
        if not curve.name.endswith(("count", "chance_r1")) and curve.name.count("/") < 2
    ]


def confusions(rows: Sequence[Prediction], classes: Mapping[str, Sequence[str]]) -> list[Confusion]:
    """One matrix a task with classes: truth against the first answer."""
    by_task: dict[str, list[Prediction]] = defaultdict(list)
    for row in rows:
        if row.task in classes and (row.answers or row.ranking):
            by_task[row.task].append(row)
    return [_confusion(task, of_task, unlike(classes[task])) for task, of_task in by_task.items()]


def _confusion(task: str, rows: Sequence[Prediction], classes: list[str]) -> Confusion:
    answers = [(row.answers or row.ranking)[0].text for row in rows]
    counts = confusion([row.truth for row in rows], answers, classes)
    return Confusion(task, classes, counts, left_out=len(rows) - int(counts.sum()))


def samples(log: PredictionLog) -> list[SampleAnswer]:
    """The kept items with their frames, prompt, answers and truth, and how these are compared."""
    return [
        SampleAnswer(
            task=row.task,
            video_id=row.video_id,
            prompt=row.prompt,
            answers=[answer.text for answer in row.answers or row.ranking],
            probabilities=[math.exp(answer.log_prob) for answer in row.answers or row.ranking],
            truth=row.truth,
            frames=frames,
            references=row.references,
            compare=row.compare,
        )
        for item, frames in log.frames.items()
        for row in (log.rows[item],)
    ]


def metrics_table(run: Outcome) -> Table:
    """Every metric of a run, a row each."""
    rows = [
        [name, f"{value:.4g}", _words(name, run.metrics)]
        for name, value in sorted(run.metrics.items())
    ]
    columns = ["metric", "value", "in words"]
    return Table(title=f"Every number of {run.stage}", columns=columns, rows=rows)


def _words(name: str, metrics: Mapping[str, float]) -> str:
    last = name.rpartition("/")[2]
    for end, words in (("_low", "lower"), ("_high", "upper")):
        if name.removesuffix(end) in metrics and name.endswith(end):
            return f"{words} bound of the 95 % interval of {last.removesuffix(end)}"
    known = meaning(name)
    return known.short if known.long else ""
