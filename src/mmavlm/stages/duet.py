"""The duet: a model that watches learns when to speak, and what to say (MMDuet, section 3)."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_average_precision,
    binary_calibration_error,
)

from mmavlm.core.batch import Batch
from mmavlm.core.errors import ConfigError
from mmavlm.core.settings import at_least, whole_at_least
from mmavlm.core.streams import IGNORED
from mmavlm.metrics.duet.files import watched_file, write_values
from mmavlm.metrics.duet.labelled_frames import LabelledFrames
from mmavlm.metrics.duet.tasks import Result
from mmavlm.metrics.duet.watched import Watched
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.heads import FrameHeads, label_weights
from mmavlm.model.llm.stream_rows import frames_shown
from mmavlm.stages.base import EVALUATED, Stage, distributed
from mmavlm.stages.calibrating import Labelled, calibrate
from mmavlm.stages.drawn_frames import factors_of
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.stages.scored_films import Truths, score_films, write_films
from mmavlm.stages.watched_frames import (
    as_watched,
    labels_of_frames,
    scored_film,
    watched_films,
)


class Duet(Stage):
    """Train on what is said and on frames: L = text_weight·L_text + head_weight·L_heads.

    `balanced` gives both labels of a head the same weight. With looks of a memory each frame that
    ends no stream is a row for the LLM; a step of training draws `frames_a_film` of them of each
    film, None for all, and its loss is expected to be that of all (see `drawn_frames`).

    Evaluated is the mean average precision (`<split>/ap`) of the heads over all frames, as the
    model scores them that has said nothing: the true answers would give away where they stand. What
    was scored of a split is kept in `watched`. Where `truths` say what is true of both splits, a
    test is scored by its task, with the rule when to speak, or what else there is to choose, chosen
    on the validation split.

    With `calibrate` each validation fits temperature and shift of the heads to its frames, and the
    checkpoint that follows it holds them: balanced or not, scores are then probabilities. How far
    off they are is the expected calibration error (`<split>/<head>_ece`).

    Raises:
        ConfigError: if the backbone has no LLM or no heads, a number is out of range, or frames are
            to be drawn where all are read at once.
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
        frames_a_film: int | None = None,
        calibrate: bool = True,
        monitor: str = "val/ap",
        run: dict[str, Any] | None = None,
        sets: tuple[str, ...] = (),
        truths: Truths | None = None,
    ) -> None:
        super().__init__(backbone, optimizer, run, sets)
        at_least("stage", 0, text_weight=text_weight, head_weight=head_weight)
        whole_at_least("stage", 1, frames_a_film=frames_a_film)
        names = backbone.require_heads().names
        temporal = backbone.vision.temporal
        if frames_a_film is not None and temporal.looks_at(2) > 1:
            raise ConfigError(
                f"stage.frames_a_film is {frames_a_film}, but with {type(temporal).__name__} one "
                "row holds all frames of a film, and leaving some out saves nothing; set it to null"
            )
        self.text_weight = text_weight
        self.head_weight = head_weight
        self.balanced = balanced
        self.frames_a_film = frames_a_film
        self.calibrate = calibrate
        self.monitor = monitor
        self.margins_of = torch.nn.ModuleDict(
            {
                split: torch.nn.ModuleDict({name: LabelledFrames() for name in names})
                for split in EVALUATED
            }
        )
        self.watched: dict[str, dict[str, Watched]] = {split: {} for split in EVALUATED}
        self.truths: Truths = truths or {}
        self.results: dict[str, Result] = {}  # of a test, by the sets of a mix
        self._gathered: set[str] = set()  # splits of which every process holds all
        self._seen: dict[str, Watched] = {}  # of the split that runs, with margins for scores
        self._told: dict[str, str] = {}  # what the log says of the calibration of heads

    @property
    def heads(self) -> FrameHeads:
        """The backbone's heads."""
        return self.backbone.require_heads()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of what is said, that of the heads, their weighted sum."""
        frames = frames_shown(batch.conversations)
        labels = labels_of_frames(batch, frames, self.heads.names)
        weights, drawn = label_weights(labels, balanced=self.balanced), None
        if self.frames_a_film is not None:
            factors = factors_of(frames, weights.sum(dim=1).cpu(), self.frames_a_film)
            drawn = {at for at, factor in zip(frames, factors.tolist(), strict=True) if factor}
            weights = weights * factors.to(weights)[:, None]
        read = self.backbone.read_streams(batch, drawn)
        row_of = {at: row for row, at in enumerate(frames)}
        rows = torch.tensor([row_of[at] for at in read.frames]).to(labels.device)
        terms = {"heads": self.heads.weighted_loss(read.hidden, labels[rows], weights[rows])}
        # 0 where nothing is said, but of all that says something: ranks wait for its gradient
        text = -read.log_probs.sum() / max(1, len(read.log_probs))
        if len(read.log_probs):
            terms["text"] = text
        loss = self.head_weight * terms["heads"] + self.text_weight * text
        return {**terms, "loss": loss}

    def gather(self) -> None:
        """Bring what all processes have watched together; every process then holds all of it."""
        super().gather()
        self._gather_watched()

    def _gather_watched(self) -> None:
        for split, own in self.watched.items() if distributed() else ():
            if split in self._gathered:
                continue
            self._gathered.add(split)
            parts: list[dict[str, Watched]] = [{}] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, own)
            self.watched[split] = {key: film for part in parts for key, film in part.items()}

    def write(self, folder: Path) -> None:
        """Write what was scored of each split, what is true of it, and how the test was scored.

        See `metrics.duet.files` for the rows.
        """
        super().write(folder)
        for split, watched in self.watched.items():
            if watched:
                write_values(folder / watched_file(split), watched.values())
        write_films(folder, self.truths, self.results, self.set_of)

    @property
    def notes(self) -> dict[str, str]:
        """By which setting the test was scored, and how it was chosen."""
        return {
            " ".join(filter(None, (name, result.task))): result.how_chosen
            for name, result in self.results.items()
        }

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

    def _forget(self, split: str) -> None:
        self.watched[split], self._seen = {}, {}
        self._gathered.discard(split)

    def on_validation_epoch_end(self) -> None:
        """Calibrate the heads, score the validation split by them, log how good the scores are."""
        frames = self._labelled("val")
        if self.calibrate and not self.trainer.sanity_checking:
            calibrate(self.heads, frames, self._told)
        self._finish("val", frames)

    def on_test_epoch_end(self) -> None:
        """Score the test split, log how good scores are, and what they come to by its task."""
        self._finish("test", self._labelled("test"))
        self._score_test()

    def _score_test(self) -> None:
        self._gather_watched()
        self.results = score_films(self.watched, self.truths, self.set_of)
        for name, result in self.results.items():
            scores = {f"test/{name}{name and '/'}{n}": v for n, v in result.scores.items()}
            self._log_metrics({n: v for n, v in scores.items() if not isnan(v)})

    def _evaluate(self, batch: Batch, split: str) -> None:
        if self._skip(batch):
            return
        batch = as_watched(batch)
        read = self.backbone.read_streams(batch)
        labels = labels_of_frames(batch, read.frames, self.heads.names)
        loss = self.heads.loss(read.hidden, labels, balanced=self.balanced)
        self._log_losses(split, {"heads": loss}, batch)
        margins = self.heads.margins(read.hidden)
        frames = [f"{batch.item_id[at.talk]}/{at.frame}" for at in read.frames]
        for n, name in enumerate(self.heads.names):
            if known := (labels[:, n] != IGNORED).nonzero()[:, 0].tolist():
                seen = [frames[row] for row in known]
                self._margins(split)[name].update(seen, margins[known, n], labels[known, n])
        found = watched_films(batch, read, margins, self.heads.names)
        self._seen |= {film.question_id: film for film in found}

    def _labelled(self, split: str) -> Labelled:
        """Margins and labels of each head that any process saw labels of."""
        metrics = self._margins(split)
        # all ranks compute what any of them saw labels of
        seen = {n: m for n, m in metrics.items() if self._ranks.highest(int(m.update_called))}
        found = {name: metric.compute() for name, metric in seen.items()}
        for metric in metrics.values():
            metric.reset()
        return found

    def _finish(self, split: str, frames: Labelled) -> None:
        """Keep the scores of a split, and log how good they are."""
        scored = {key: scored_film(film, self.heads) for key, film in self._seen.items()}
        self.watched[split], self._seen = self.watched[split] | scored, {}
        precisions = {}
        for name, (margins, labels) in frames.items():
            scores = self.heads.probabilities(margins, name)
            self._log_metrics({f"{split}/{name}_ece": binary_calibration_error(scores, labels)})
            precision = binary_average_precision(margins.sigmoid(), labels)
            if not bool(precision.isnan()):
                precisions[f"{split}/{name}_ap"] = precision
        self._log_metrics(precisions)
        if precisions:
            mean = torch.stack([*precisions.values()]).mean()
            self._log_metrics({f"{split}/ap": mean}, prog_bar=True)

    def _margins(self, split: str) -> dict[str, LabelledFrames]:
        return dict(cast(Any, self.margins_of[split]).items())
