"""A test answered once more by each remedy of decoding, whose settings the validation chose."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from rich.console import Console
from rich.table import Table

from mmavlm.callbacks.benchmarks import ScoredReader
from mmavlm.core.batch import Batch
from mmavlm.core.contrast import Contrast, ContrastView
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.metrics_file import finite, write_text
from mmavlm.metrics import Prediction, write_predictions
from mmavlm.metrics.abstention import choose_abstaining
from mmavlm.metrics.prediction_rows import parse_row, row_line
from mmavlm.model.saliency import AttentionSaliency

log = logging.getLogger(__name__)

NAME = "decodings"  # under which a test keeps what was answered
FOLDER = "decodings"  # in that of a run: a file of predictions for each, and SETTINGS
SETTINGS = "settings.json"
PLAIN = "plain"  # the name of answers without a remedy


@dataclass(frozen=True)
class Decoding:
    """How answers are decoded: against another view, with a sentence behind the question, or so."""

    contrast: Contrast | None = None
    prompt_suffix: str = ""
    saliency: AttentionSaliency | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What was chosen among, as plain values."""
        if self.contrast is not None:
            return {"alpha": self.contrast.alpha, "beta": self.contrast.beta}
        if self.saliency is not None:
            return asdict(self.saliency)
        return {"prompt_suffix": self.prompt_suffix} if self.prompt_suffix else {}

    @contextmanager
    def of(self, stage: Any) -> Iterator[None]:
        """Let a stage decode so for a while."""
        vision = stage.backbone.vision
        before = stage.contrast, stage.prompt_suffix, vision.saliency
        stage.contrast, stage.prompt_suffix = self.contrast, self.prompt_suffix
        vision.saliency = self.saliency
        try:
            yield
        finally:
            stage.contrast, stage.prompt_suffix, vision.saliency = before


@dataclass
class _Tested:
    """A chosen decoding: its score of validation, its answers to the test, and what they took."""

    decoding: Decoding
    validation: float
    rows: list[Prediction] = field(default_factory=list)
    seconds: float = 0.0
    held_back: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What was chosen, as plain values."""
        return {**self.decoding.settings, **self.held_back}

    def take(self, rows: Sequence[Prediction], seconds: float) -> None:
        """Add answers, and what they took."""
        self.rows += rows
        self.seconds += seconds


class Decodings(L.Callback):
    """Answer a test by several decodings: against each of `views`, and with each of `suffixes`.

    For each view one α of `alphas` and one β of `betas` are chosen: those with the most right
    answers to the validation split, where every task counts the same; of equal ones the first.
    `saliencies` has names and strengths to choose among likewise, and `abstaining` names and the
    accuracy at which the plain answers are held back (see `choose_abstaining`).
    So none is chosen by the test, which each answers once. Their answers lie in `decodings/`
    below the run's folder, a file each as predictions.jsonl, with settings.json beside them:
    what was chosen, the share that is right in validation, how many answers differ from the plain
    ones, and the seconds of each, without those of the encoder. One process alone.

    Raises:
        ConfigError: if there is nothing to choose from, or, at a test, the stage does not answer
            by a language model, or there are several processes.
    """

    def __init__(
        self,
        views: Mapping[str, ContrastView],
        alphas: Sequence[float] = (1.0,),
        betas: Sequence[float] = (0.1,),
        suffixes: Mapping[str, str] | None = None,
        saliencies: Mapping[str, Sequence[AttentionSaliency]] | None = None,
        abstaining: Mapping[str, float] | None = None,
    ) -> None:
        suffixes, saliencies, self.abstaining = suffixes or {}, saliencies or {}, abstaining or {}
        names = Counter([PLAIN, *views, *suffixes, *saliencies, *self.abstaining])
        if twice := sorted(name for name, times in names.items() if times > 1):
            raise ConfigError(f"callbacks.decodings names {twice} twice; rename one")
        if not alphas or not betas or names.keys() == {PLAIN} or not all(saliencies.values()):
            raise ConfigError(
                "callbacks.decodings has nothing to decode by; give views, suffixes or saliencies, "
                "and one or more of alphas and betas"
            )
        self.choices = {
            name: [
                Decoding(Contrast(view=view, alpha=alpha, beta=beta))
                for alpha, beta in product(alphas, betas)
            ]
            for name, view in views.items()
        }
        self.choices |= {name: [Decoding(prompt_suffix=text)] for name, text in suffixes.items()}
        self.choices |= {
            name: [Decoding(saliency=saliency) for saliency in given]
            for name, given in saliencies.items()
        }
        self.validated: dict[str, Prediction] = {}  # the plain answers, by item
        self.tested: dict[str, _Tested] = {}

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the settings of each decoding on the validation split."""
        stage: Any = pl_module
        if not hasattr(stage, "contrast") or not hasattr(stage, "prompt_suffix"):
            raise ConfigError(
                f"callbacks.decodings is about answers, and {type(stage).__name__} decodes none; "
                "choose stage=finetune, or callbacks=default"
            )
        if trainer.world_size > 1:
            raise ConfigError(
                f"callbacks.decodings chooses in one process, and there are {trainer.world_size}; "
                "evaluate the checkpoint with trainer.devices=1"
            )
        self.tested = {}
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(getattr(datamodule, "reader", None), ScoredReader):
            log.warning("no decodings: a benchmark has a test alone, and nothing to choose them by")
            return
        choices = [Decoding(), *(choice for given in self.choices.values() for choice in given)]
        rows: list[list[Prediction]] = [[] for _ in choices]
        for batch in datamodule.val_dataloader():
            if len(batch):
                batch = stage.transfer_batch_to_device(batch, stage.device, 0)
                for found, answers in zip(
                    rows, _answers(trainer, stage, batch, choices), strict=True
                ):
                    found += answers.rows
        self.validated = {row.item_id: row for row in rows[0]}
        scores = iter(map(_by_tasks, rows))
        self.tested = {PLAIN: _Tested(Decoding(), next(scores))}
        for name, given in self.choices.items():
            best = max(((next(scores), choice) for choice in given), key=itemgetter(0))
            self.tested[name] = _Tested(best[1], best[0])

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Answer the batch by each decoding.

        Raises:
            DataError: if an item was there in the validation, too.
        """
        stage: Any = pl_module
        for kept in stage.predictions.kept(NAME) if self.tested else ():
            for name, (lines, seconds) in kept.items():
                self.tested[name].take([parse_row(line) for line in lines], seconds)
        if len(batch) == 0 or not self.tested:
            return
        if both := sorted(self.validated.keys() & batch.item_id):
            raise DataError(
                f"item {both[0]!r} is in the validation and in the test, and decodings are chosen "
                "on another split than is tested; leave out callbacks=decodings"
            )
        decodings = [tested.decoding for tested in self.tested.values()]
        answers = _answers(trainer, stage, batch, decodings)
        kept = {}
        for (name, tested), answered in zip(self.tested.items(), answers, strict=True):
            tested.take(*answered)
            kept[name] = [row_line(row) for row in answered.rows], answered.seconds
        stage.predictions.keep(NAME, kept)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the answers and what was chosen, and print how many answers each changes."""
        if not self.tested:
            return
        for name, target in self.abstaining.items():
            validated = list(self.validated.values())
            self.tested[name] = _held_back(self.tested[PLAIN], validated, target)
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, tested in self.tested.items():
            write_predictions(folder / f"{name}.jsonl", tested.rows)
        plain = self.tested[PLAIN].rows
        told = {name: _told(tested, plain) for name, tested in self.tested.items()}
        write_text(folder / SETTINGS, json.dumps(told, indent=1) + "\n")
        table = Table("decoding", "settings", "right, %", "changed", "seconds", title="decodings")
        for name, tested in self.tested.items():
            chosen = ", ".join(f"{key} {value}" for key, value in tested.settings.items())
            right = f"{100 * _by_tasks(tested.rows):.1f}"
            changed = f"{told[name]['changed']} of {len(tested.rows)}"
            table.add_row(name, chosen, right, changed, f"{tested.seconds:.1f}")
        Console().print(table)


def _held_back(plain: _Tested, validated: Sequence[Prediction], target: float) -> _Tested:
    """The plain answers, held back where the validation says that they are not sure enough."""
    chosen = choose_abstaining(validated, target)
    told = {"target": target, "threshold": finite({"": chosen.threshold})[""]}
    validation = _by_tasks(chosen.answered(validated))
    rows = chosen.answered(plain.rows)
    return _Tested(plain.decoding, validation, rows, plain.seconds, told)


def _told(tested: _Tested, plain: Sequence[Prediction]) -> dict[str, Any]:
    pairs = zip(tested.rows, plain, strict=True)
    return {
        "settings": tested.settings,
        "validation": tested.validation,
        "changed": sum(row.best != other.best for row, other in pairs),
        "items": len(tested.rows),
        "seconds": round(tested.seconds, 3),
    }


class _Answers(NamedTuple):
    rows: list[Prediction]
    seconds: float


def _answers(
    trainer: L.Trainer, stage: Any, batch: Batch, decodings: Sequence[Decoding]
) -> Iterator[_Answers]:
    """The answers to a batch by each decoding; its frames are encoded once for all that can."""
    with trainer.precision_plugin.test_step_context():
        encoded = stage.backbone.encoded(batch)
    for decoding in decodings:
        needs_frames = decoding.contrast is not None and not decoding.contrast.reads_features
        started_s = time.monotonic()
        with decoding.of(stage), trainer.precision_plugin.test_step_context():
            rows = stage.answer(batch if needs_frames else encoded, stage.answer_by)[1]
        yield _Answers(rows, time.monotonic() - started_s)


def _by_tasks(rows: Iterable[Prediction]) -> float:
    """The share of right answers, where every task counts the same."""
    by_task: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(bool(row.right))
    shares = [sum(right) / len(right) for right in by_task.values()]
    return sum(shares) / len(shares) if shares else 0.0
