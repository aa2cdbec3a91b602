"""Preference training: true answers before false ones, films before other films (DPO)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmavlm.core.batch import Batch
from mmavlm.core.contrast import ContrastView
from mmavlm.core.errors import ConfigError
from mmavlm.core.items import Item
from mmavlm.core.settings import above_zero, at_least
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.stages.finetune import FineTune
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.stages.pairs import PairScores, Scores, pairs_of
from mmavlm.stages.reference import Reference
from mmavlm.stages.rejected import false_answers as false_answers_of

REFERENCE_KEY = "reference"  # where a checkpoint keeps the weights of the reference

log = logging.getLogger(__name__)


def preference_loss(won: Tensor, lost: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The loss of pairs and their margins, each (N,) (DPO, arXiv 2305.18290, equation 7).

    −log σ(margin), margin = β·(won − lost). `won` (N,) is log π − log π₀ of what is preferred, and
    `lost` (N,) that of what it is preferred to; π₀ is the reference.
    """
    margins = beta * (won - lost)
    return F.softplus(-margins), margins


class Preference(FineTune):
    """Prefer true answers to false ones, and films to others of which an answer is not true.

    A pair of answers is the true one and a false one of `rejected.false_answers`, about the same
    film. A pair of films is the film of an item and what `film_view` makes of it, under the true
    answer (mDPO, arXiv 2406.11839). L = `answer_weight`·L_answers + `film_weight`·L_films +
    `text_weight`·(cross-entropy of true answers) + those of the aligned levels; L_answers and
    L_films are means of `preference_loss`. The reference is the model that training starts from
    (`Reference`), so begin with `init.checkpoint`. Of a conversation the last answer alone counts.

    `items` are those of training, `false_answers` the predictions.jsonl of a run whose wrong
    answers are taken for false ones. Other settings are those of `FineTune`, which answers
    validation and test.

    Raises:
        ConfigError: as of `FineTune`; if a number is out of range, nothing is preferred, films are
            to be and no view is given, the LLM is none of transformers, or no item has a false
            answer.
    """

    def __init__(
        self,
        backbone: VideoLanguageModel,
        optimizer: OptimizerRecipe,
        *,
        items: Sequence[Item] = (),
        beta: float = 0.1,
        answer_weight: float = 1.0,
        film_weight: float = 0.0,
        film_view: ContrastView | None = None,
        false_answers: str | Path | None = None,
        text_weight: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(backbone, optimizer, text_weight=text_weight, **settings)
        above_zero("stage", beta=beta)
        at_least("stage", 0, answer_weight=answer_weight, film_weight=film_weight)
        if not answer_weight and not film_weight:
            raise ConfigError(
                "stage.answer_weight and stage.film_weight are both 0, so that nothing is "
                "preferred; raise one of them, or choose stage=finetune"
            )
        if film_weight and film_view is None:
            raise ConfigError(
                f"stage.film_weight={film_weight} prefers films to others, and there is no "
                "stage.film_view; give one, or set stage.film_weight=0"
            )
        if not isinstance(backbone.llm, PromptedLanguageModel):
            raise ConfigError(
                f"{type(backbone.llm).__name__} gives no log-probabilities of false answers; "
                "choose a language model of transformers"
            )
        self.beta = beta
        self.answer_weight = answer_weight
        self.film_weight = film_weight
        self.film_view = film_view
        self.false_answers = self._false_answers(items, false_answers) if answer_weight else {}
        self.reference: Reference | None = None

    @property
    def title(self) -> str:
        """What a page calls the stage."""
        return "preference training"

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses, margins and accuracies of pairs by their kind, and the weighted sum."""
        learned = [row for row, target in enumerate(batch.target) if target]
        aligns = any(self.align_weights.values())
        if not (self.film_weight or self.text_weight or aligns):
            learned = [row for row in learned if batch.item_id[row] in self.false_answers]
        if not learned:
            return {"loss": torch.zeros((), device=self.device)}
        view = self.film_view if self.film_weight else None
        pairs = pairs_of(self.backbone, batch.rows(learned), self.false_answers, view)
        scorer = PairScores(self.backbone)
        self.reference = self.reference or Reference.of(scorer)
        now, before = self.reference.beside(scorer, pairs)
        answers, films = list(pairs.rejected), pairs.film_rows
        gained = Scores(*(a - b for a, b in zip(now, before, strict=True)))
        terms = {"text": -now.chosen.sum() / now.tokens.sum()}
        total = self.text_weight * terms["text"]
        for name, weight, rows, lost in (
            ("answer", self.answer_weight, answers, gained.rejected),
            ("film", self.film_weight, films, gained.other),
        ):
            loss, margins = preference_loss(gained.chosen[rows], lost, self.beta)
            total = total + weight * loss.sum() / max(1, len(rows))
            if rows:
                terms |= _told(name, loss, margins)
        if aligns:
            terms |= self.backbone(pairs.shown, answer=False)
        return {**terms, "loss": self._with_levels(total, terms)}

    def on_train_start(self) -> None:
        """Keep what the reference is, unless the run that is resumed has kept it."""
        super().on_train_start()
        known = self.reference
        scorer = PairScores(self.backbone)
        self.reference = Reference.of(scorer) if known is None else known.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also keep the reference, which a resumed run could not find again."""
        super().on_save_checkpoint(checkpoint)
        if self.reference is not None:
            checkpoint[REFERENCE_KEY] = self.reference.weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also take the reference of the run that is resumed."""
        super().on_load_checkpoint(checkpoint)
        if REFERENCE_KEY in checkpoint:
            self.reference = Reference(checkpoint[REFERENCE_KEY])

    def _false_answers(self, items: Sequence[Item], own: str | Path | None) -> dict[str, str]:
        """The false answers to items of training; none where there are no items, as in a test."""
        found = false_answers_of(items, self.classes, own) if items else {}
        if items and not found:
            raise ConfigError(
                f"none of the {len(items)} items of training has a false answer"
                + (f" in {own}" if own is not None else "")
                + "; set stage.answer_weight=0 and prefer films (stage.film_weight=1), or give "
                "stage.false_answers=…/predictions.jsonl, answers to these items"
            )
        if items:
            log.info(
                "%d of %d items of training have a false answer to prefer the true one to",
                len(found),
                len(items),
            )
        return found


def _told(name: str, loss: Tensor, margins: Tensor) -> dict[str, Tensor]:
    """What is logged of pairs: loss, mean margin, and the share of margins above 0."""
    right = (margins.detach() > 0).float().mean()
    return {f"{name}_pairs": loss.mean(), f"{name}_margin": margins.mean(), f"{name}_right": right}
