"""What a run has to tell in its report: headline numbers, curves, confusions, sample answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mmavlm.callbacks import ExplainAnswers
from mmavlm.explain import Explanation
from mmavlm.metrics import Prediction
from mmavlm.metrics.captions import BY_JAVA, PLAIN
from mmavlm.metrics.confusion import confusion, unlike
from mmavlm.report import Confusion, Curve, Report, SampleAnswer, Table, read_csv_curves
from mmavlm.stages import FineTune
from mmavlm.stages.predictions import PredictionLog

if TYPE_CHECKING:
    from mmavlm.run.run import Run


def describe(run: Run, earlier: Sequence[Run]) -> Report:
    """The report of a run and of the runs before it."""
    stage = run.stage
    log = stage.predictions if isinstance(stage, FineTune) else PredictionLog()
    classes = stage.classes if isinstance(stage, FineTune) else {}
    return Report(
        title=" · ".join(str(o) for o in run.stage.run["overrides"] if "experiment=" in str(o))
        or "mmavlm",
        summary=headline(run.metrics),
        curves=[curve for part in (*earlier, run) for curve in curves(part)],
        confusions=confusions(list(log.rows.values()), classes),
        samples=samples(log),
        explanations=explanations(run),
        tables=[metrics_table(part) for part in (*earlier, run)],
        config_yaml=OmegaConf.to_yaml(run.config, resolve=True),
    )


def headline(metrics: Mapping[str, float]) -> dict[str, str]:
    """The few test numbers a reader looks for first, with their intervals.

    Accuracies are shares; scores of captions are shown times 100, as they are published.
    """
    shown = {}
    published = any(name.endswith("/cider") for name in metrics)
    captions = tuple(f"/{score}" for score in (BY_JAVA if published else PLAIN))
    for name, value in metrics.items():
        if not name.startswith("test/"):
            continue
        label = name.removeprefix("test/")
        low, high = (metrics.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
        bounded = low <= high
        benchmark = "/" not in label and bounded
        if benchmark or label.endswith(("/top1", "/top5", "/rank_top1", "/video_top1")):
            shown[label] = f"{value:.1%}" + (f" ({low:.1%} to {high:.1%})" if bounded else "")
        elif bounded and label.endswith(captions):
            shown[label] = f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        elif label.endswith(("joint/v2t_r1", "joint/t2v_r1")):
            chance = metrics.get(name.rsplit("/", 1)[0] + "/chance_r1")
            shown[label] = f"{value:.1%}" + (f" (chance {chance:.1%})" if chance else "")
    return shown


def curves(run: Run) -> list[Curve]:
    """The csv log's curves, named after their stage.

    What never changes is left out, and of a benchmark (`videohallucer/all/f1`) everything but its
    headline: drawing its dozens of numbers would take longer than asking it.
    """
    path = run.folder / "csv" / "metrics.csv"
    if not path.is_file():
        return []
    found = read_csv_curves(path, prefix=f"{run.stage.run['stage']} ")
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


def explanations(run: Run) -> list[Explanation]:
    """What the run's callback explained of its test's answers."""
    trainer: Any = run.trainer
    return [
        explained
        for callback in trainer.callbacks
        if isinstance(callback, ExplainAnswers)
        for explained in callback.explained
    ]


def metrics_table(run: Run) -> Table:
    """Every metric of a run, a row each."""
    rows = [[name, f"{value:.4g}"] for name, value in sorted(run.metrics.items())]
    return Table(
        title=f"Metrics of {run.stage.run['stage']}", columns=["metric", "value"], rows=rows
    )
