"""The duet: a model that watches learns when to speak, and what to say (MMDuet, section 3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_calibration_error,
)

from mmavlm.core.batch import Batch
from mmavlm.core.settings import at_least
from mmavlm.core.streams import IGNORED, frames_of, labels_of, silent
from mmavlm.metrics.duet.calibration import LabelledMargins, calibration_of
from mmavlm.metrics.duet.files import write_values
from mmavlm.metrics.duet.watched import Said, Watched
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.heads import FrameHeads, label_tensor
from mmavlm.model.llm.stream_rows import StreamRead
from mmavlm.stages.base import EVALUATED, Stage, distributed
from mmavlm.stages.optim import OptimizerRecipe

log = logging.getLogger(__name__)


class Duet(Stage):
    """Train on what is said and on frames: L = text_weight·L_text + head_weight·L_heads.

    `balanced` gives both labels of a head the same weight. Evaluated is the mean average precision
    (`<split>/ap`) of the heads over all frames, as the model scores them that has said nothing: the
    true answers would give away where they stand. What was scored of a split is kept in `watched`,
    since the rule when to speak is to be chosen on the validation split.

    With `calibrate` each validation fits temperature and shift of the heads to its frames, and the
    checkpoint that follows it holds them: balanced or not, scores are then probabilities. How far
    off they are is the expected calibration error (`<split>/<head>_ece`).

    Raises:
        ConfigError: if the backbone has no LLM or no heads, or a weight is below 0.
    """

    validates_before_test = True  # by the scores of both splits a rule is chosen

    def __init__(
        self,
        backbone: VideoLanguageModel,
        optimizer: OptimizerRecipe,
        *,
        text_weight: float = 1.0,
        head_weight: float = 1.0,
        balanced: bool = True,
        calibrate: bool = True,
        monitor: str = "val/ap",
        run: dict[str, Any] | None = None,
        sets: tuple[str, ...] = (),
    ) -> None:
        super().__init__(backbone, optimizer, run, sets)
        at_least("stage", 0, text_weight=text_weight, head_weight=head_weight)
        names = backbone.require_heads().names
        self.text_weight = text_weight
        self.head_weight = head_weight
        self.balanced = balanced
        self.calibrate = calibrate
        self.monitor = monitor
        self.margins_of = torch.nn.ModuleDict(
            {
                split: torch.nn.ModuleDict({name: LabelledMargins() for name in names})
                for split in EVALUATED
            }
        )
        self.watched: dict[str, dict[str, Watched]] = {split: {} for split in EVALUATED}
        self._seen: dict[str, Watched] = {}  # of the split that runs, with margins for scores
        self._told: dict[str, str] = {}  # what the log says of the calibration of heads

    @property
    def heads(self) -> FrameHeads:
        """The backbone's heads."""
        return self.backbone.require_heads()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of what is said, that of the heads, their weighted sum."""
        read = self.backbone.read_streams(batch)
        labels = labels_of_frames(batch, read, self.heads.names)
        heads = self.heads.loss(read.hidden, labels, balanced=self.balanced)
        terms = {"heads": heads}
        total = self.head_weight * heads
        if len(read.log_probs):
            terms["text"] = -read.log_probs.mean()
            total = total + self.text_weight * terms["text"]
        return {**terms, "loss": total}

    def gather(self) -> None:
        """Bring what all processes have watched together; every process then holds all of it."""
        super().gather()
        if not distributed():
            return
        for split, own in self.watched.items():
            parts: list[dict[str, Watched]] = [{}] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, own)
            self.watched[split] = {key: film for part in parts for key, film in part.items()}

    def write(self, folder: Path) -> None:
        """Write what was scored of each split, one row a question (see `metrics.duet.files`)."""
        super().write(folder)
        for split, watched in self.watched.items():
            if watched:
                write_values(folder / f"watched_{split}.jsonl", watched.values())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score the frames of the validation split."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score the frames of the test split, keeping every score."""
        self._evaluate(batch, "test")

    def on_validation_epoch_start(self) -> None:
        """Forget what an earlier validation scored."""
        self._forget("val")

    def on_test_epoch_start(self) -> None:
        """Forget what an earlier test scored."""
        self._forget("test")

    def on_validation_epoch_end(self) -> None:
        """Calibrate the heads, score the validation split by them, log how good the scores are."""
        frames = self._labelled("val")
        if self.calibrate and not self.trainer.sanity_checking:
            self._calibrate(frames)
        self._finish("val", frames)

    def on_test_epoch_end(self) -> None:
        """Score the test split, and log how good the scores are."""
        self._finish("test", self._labelled("test"))

    def _evaluate(self, batch: Batch, split: str) -> None:
        if self._skip(batch):
            return
        batch = as_watched(batch)
        read = self.backbone.read_streams(batch)
        labels = labels_of_frames(batch, read, self.heads.names)
        loss = self.heads.loss(read.hidden, labels, balanced=self.balanced)
        self._log_losses(split, {"heads": loss}, batch)
        margins = self.heads.margins(read.hidden)
        for n, name in enumerate(self.heads.names):
            known = labels[:, n] != IGNORED
            if known.any():
                self._margins(split)[name].update(margins[known, n], labels[known, n])
        found = watched_films(batch, read, margins, self.heads.names)
        self._seen |= {film.question_id: film for film in found}

    def _forget(self, split: str) -> None:
        self.watched[split], self._seen = {}, {}

    def _labelled(self, split: str) -> dict[str, Tensor]:
        """Margins and labels (N,2) of each head that any process saw labels of."""
        metrics = self._margins(split)
        # all ranks compute what any of them saw labels of
        seen = {n: m for n, m in metrics.items() if self._ranks.highest(int(m.update_called))}
        found = {name: metric.compute() for name, metric in seen.items()}
        for metric in metrics.values():
            metric.reset()
        return found

    def _calibrate(self, frames: Mapping[str, Tensor]) -> None:
        """Fit the heads to frames; every process has the same ones, and finds the same."""
        for name, found in frames.items():
            fit = calibration_of(*found.unbind(dim=1))
            if fit is not None:
                self.heads.calibrate(name, fit.temperature, fit.shift)
            note = _UNFIT if fit is None else _AT_ITS_BOUND if fit.at_its_bound else ""
            if note and note != self._told.get(name):
                log.warning("the head %s %s", name, note)
            self._told[name] = note

    def _finish(self, split: str, frames: Mapping[str, Tensor]) -> None:
        """Keep the scores of a split, and log how good they are by margins and labels (N,2)."""
        names = self.heads.names
        for key, film in self._seen.items():
            margins = torch.tensor([film.scores[name] for name in names], device=self.device)
            rows = self.heads.probabilities(margins.T).T.tolist()
            by_head = {name: tuple(row) for name, row in zip(names, rows, strict=True)}
            self.watched[split][key] = replace(film, scores=by_head)
        self._seen = {}
        precisions = {}
        for name, found in frames.items():
            margins, labels = found[:, 0], found[:, 1].long()
            scores = self.heads.probabilities(margins[:, None])[:, names.index(name)].contiguous()
            self._log_metrics({f"{split}/{name}_ece": binary_calibration_error(scores, labels)})
            precision = binary_average_precision(margins.sigmoid(), labels)
            if not bool(precision.isnan()):
                precisions[f"{split}/{name}_ap"] = precision
        self._log_metrics(precisions)
        if precisions:
            mean = torch.stack([*precisions.values()]).mean()
            self._log_metrics({f"{split}/ap": mean}, prog_bar=True)

    def _margins(self, split: str) -> dict[str, LabelledMargins]:
        return dict(cast(Any, self.margins_of[split]).items())


_UNFIT = (
    "is not calibrated: its frames of validation are all of one class, or its scores no numbers, "
    "which says nothing of how sure it should be; validate on films with both classes"
)
_AT_ITS_BOUND = (
    "is calibrated at the bound of temperatures: it tells the classes of validation apart "
    "perfectly, or not at all"
)


def as_watched(batch: Batch) -> Batch:
    """The batch with conversations in which nothing was answered."""
    return replace(batch, conversations=[silent(talk) for talk in batch.conversations])


def labels_of_frames(batch: Batch, read: StreamRead, names: tuple[str, ...]) -> Tensor:
    """Labels (N,S) of the frames whose states were read, by head; `IGNORED` where there is none."""
    known: dict[tuple[int, int], dict[str, list[int]]] = {}
    labels = []
    times = _times_s(batch)
    for talk, turn, frame in read.frames:
        stream = batch.conversations[talk].turns[turn]
        if (talk, turn) not in known:
            known[talk, turn] = labels_of(stream, times[talk])
        place = frame - frames_of(stream)[0]
        labels.append({head: values[place] for head, values in known[talk, turn].items()})
    return label_tensor(names, labels, read.hidden.device)


def watched_films(
    batch: Batch, read: StreamRead, scores: Tensor, names: tuple[str, ...]
) -> list[Watched]:
    """What was scored (N,S) of each conversation, frame by frame."""
    values = scores.tolist()
    times = _times_s(batch)
    by_talk: dict[int, dict[int, list[float]]] = {}
    for at, row in zip(read.frames, values, strict=True):
        by_talk.setdefault(at.talk, {})[at.frame] = row
    found = []
    for talk, frames in by_talk.items():
        times_s, order = times[talk], sorted(frames)
        found.append(
            Watched(
                batch.item_id[talk],
                max(times_s),
                tuple(times_s[frame] for frame in order),
                {name: tuple(frames[f][n] for f in order) for n, name in enumerate(names)},
                queries=tuple(_queries(batch, talk, times_s)),
            )
        )
    return found


def _queries(batch: Batch, talk: int, times_s: list[float]) -> list[Said]:
    """What users ask, each at the first frame behind it."""
    found, shown = [], 0
    for turn in batch.conversations[talk].turns:
        if turn.role == "stream":
            shown = frames_of(turn)[1]
        elif turn.role == "user":
            found.append(Said(times_s[min(shown, len(times_s) - 1)], turn.text))
    return found


def _times_s(batch: Batch) -> list[list[float]]:
    """When the frames of each conversation's film are."""
    # once for all rows: each question to a GPU would wait for it
    times, counts = batch.timestamps_s.tolist(), batch.frame_mask.sum(dim=1).tolist()
    films = [batch.films_of(row)[0] for row in range(len(batch))]
    return [times[film][: counts[film]] for film in films]
