"""What the report of a run shows: headline numbers, curves, confusions, sample answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from omegaconf import OmegaConf
from torch import Tensor

from mmavlm.core.redaction import redacted
from mmavlm.metrics import Prediction
from mmavlm.metrics.confusion import confusion, unlike
from mmavlm.metrics.guesses import Guesses
from mmavlm.metrics.headline import headline
from mmavlm.metrics.taken import in_parts
from mmavlm.metrics.words import meaning
from mmavlm.report import (
    Confusion,
    Curve,
    PlayedFilm,
    Report,
    SampleAnswer,
    Table,
    read_csv_curves,
)
from mmavlm.run.facts import facts
from mmavlm.run.outcome import Outcome
from mmavlm.stages.predictions import PredictionLog


def describe(run: Outcome, earlier: Sequence[Outcome]) -> Report:
    """The report of a run and of the runs before it."""
    log = PredictionLog() if run.predictions is None else run.predictions
    guesses, found = Guesses(), Confusions(run.classes)
    for rows in in_parts(log.read()):
        guesses.take(rows)
        found.take(rows)
    return Report(
        title=" · ".join(str(o) for o in run.overrides if "experiment=" in str(o)) or "mmavlm",
        scores=[
            *headline(run.metrics, guesses),
            *(score for part in earlier for score in headline(part.metrics)),
        ],
        facts=facts(run, earlier),
        curves=[curve for part in (*earlier, run) for curve in curves(part)],
        confusions=found.matrices(),
        sheets=run.sheets,
        samples=samples(log, run.films),
        explanations=list(run.explanations),
        tables=[metrics_table(part) for part in (*earlier, run)],
        config_yaml=OmegaConf.to_yaml(redacted(OmegaConf.to_container(run.config, resolve=True))),
    )


def curves(run: Outcome) -> list[Curve]:
    """The csv log's curves, those of a stage together.

    What never changes is left out, and of a benchmark (`videohallucer/all/f1`) everything but its
    headline: drawing its dozens of numbers would take longer than asking it.
    """
    path = run.folder / "csv" / "metrics.csv"
    if not path.is_file():
        return []
    found = read_csv_curves(path, group=run.stage)
    return [
        curve
        for curve in found
        if not curve.name.endswith(("count", "chance_r1")) and curve.name.count("/") < 2
    ]


class Confusions:
    """One matrix a task with classes: truth against the first answer, counted in parts."""

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        self.classes = classes
        self._counts: dict[str, Tensor] = {}
        self._rows: Counter[str] = Counter()

    def take(self, rows: Iterable[Prediction]) -> None:
        """Count some predictions."""
        by_task: dict[str, list[Prediction]] = defaultdict(list)
        for row in rows:
            if row.task in self.classes and (row.answers or row.ranking):
                by_task[row.task].append(row)
        for task, of_task in by_task.items():
            names = unlike(self.classes[task])
            truths = [row.truth for row in of_task]
            counts = confusion(truths, [row.best for row in of_task], names)
            self._counts[task] = self._counts.get(task, 0) + counts
            self._rows[task] += len(of_task)

    def matrices(self) -> list[Confusion]:
        """The matrix of each task, in the order in which they came."""
        return [
            Confusion(task, unlike(self.classes[task]), counts,
                      left_out=self._rows[task] - int(counts.sum()))
            for task, counts in self._counts.items()
        ]  # fmt: skip


def samples(log: PredictionLog, films: Mapping[str, PlayedFilm]) -> list[SampleAnswer]:
    """The kept items with their frames, prompt, answers and truth, and how these are compared."""
    return [
        SampleAnswer.of(log.sampled[item], frames, films.get(item))
        for item, frames in log.frames.items()
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
