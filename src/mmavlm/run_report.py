"""What a run has to tell in its report: headline numbers, curves, confusions, sample answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mmavlm.metrics import Compare, confusion
from mmavlm.report import Confusion, Curve, Report, SampleAnswer, Table, read_csv_curves
from mmavlm.stages import FineTune
from mmavlm.stages.predictions import Prediction, PredictionLog

if TYPE_CHECKING:
    from mmavlm.run import Run


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
        samples=samples(log, stage.compare_of) if isinstance(stage, FineTune) else [],
        tables=[metrics_table(part) for part in (*earlier, run)],
        config_yaml=OmegaConf.to_yaml(run.config, resolve=True),
    )


def headline(metrics: Mapping[str, float]) -> dict[str, str]:
    """The few test numbers a reader looks for first, accuracies with their Wilson interval."""
    shown = {}
    for name, value in metrics.items():
        if not name.startswith("test/"):
            continue
        label = name.removeprefix("test/")
        benchmark = "/" not in label and f"{name}_low" in metrics
        if benchmark or label.endswith(("/top1", "/rank_top1", "/video_top1")):
            low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
            span = "" if low is None or high is None else f" ({low:.1%} to {high:.1%})"
            shown[label] = f"{value:.1%}{span}"
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
    return [
        Confusion(
            title=task,
            classes=list(classes[task]),
            counts=confusion([r.truth for r in of_task],
                             [(r.answers or r.ranking)[0].text for r in of_task],
                             list(classes[task])),
        )
        for task, of_task in by_task.items()
    ]  # fmt: skip


def samples(log: PredictionLog, compare_of: Callable[[str], Compare]) -> list[SampleAnswer]:
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
            compare=compare_of(row.task),
        )
        for item, frames in log.frames.items()
        for row in (log.rows[item],)
    ]


def metrics_table(run: Run) -> Table:
    """Every metric of a run, a row each."""
    rows = [[name, f"{value:.4g}"] for name, value in sorted(run.metrics.items())]
    return Table(
        title=f"Metrics of {run.stage.run['stage']}", columns=["metric", "value"], rows=rows
    )
