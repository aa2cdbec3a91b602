"""What is preferred to what: pairs of answers to a film, and pairs of films under an answer.

Shapes: C conversations of a batch, T of them with a false answer, F with another film.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor, nn

from mmavlm.core.batch import Batch
from mmavlm.core.contrast import ContrastView
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import MediaTokens
from mmavlm.core.turns import Turn
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.token_tables import rows_named

Seen = tuple[MediaTokens, MediaTokens | None]


class Pairs(NamedTuple):
    """A batch whose last answers alone are learned, and what each is preferred to.

    `rejected` has the false answer of T rows; `other` shows F rows, those of `film_rows`, with
    another film.
    """

    shown: Batch
    rejected: dict[int, str]
    other: Batch | None
    film_rows: list[int]


class Scores(NamedTuple):
    """Log-probabilities: of true answers (C,), of false ones (T,), of true ones of others (F,).

    `tokens` (C,) are those of the true answers, ends included.
    """

    chosen: Tensor
    tokens: Tensor
    rejected: Tensor
    other: Tensor


@dataclass(frozen=True)
class AnotherFilm:
    """The film of the next row of the batch to which the same question has another answer.

    So what is true of the one is false of the other. Rows without such a film keep their own.
    """

    reads_features = True

    def __call__(self, batch: Batch) -> Batch:
        """The batch with films exchanged."""
        asked = [(talk.asked.turns, [m.kind for m in talk.media]) for talk in batch.conversations]
        truths = [target.casefold() for target in batch.target]
        rows = []
        for row, own in enumerate(batch.media_rows):
            behind = (*range(row + 1, len(batch)), *range(row))
            differs = (n for n in behind if asked[n] == asked[row] and truths[n] != truths[row])
            at = next(differs, None)
            rows.append(own if at is None else batch.media_rows[at])
        return replace(batch, media_rows=rows)


@dataclass(frozen=True)
class OwnTwin:
    """The film of a row's twin, which lacks one object and is otherwise the same.

    Rows without a twin, or whose answer is true of it, too, keep their own.

    Raises:
        ConfigError: if batches bring no films of twins.
    """

    reads_features = True

    def __call__(self, batch: Batch) -> Batch:
        """The batch with films exchanged."""
        if batch.twin_rows is None:
            raise ConfigError(
                "stage.film_view is the film of an item's twin, and items bring none along; set "
                "data.counterfactual=true data.twin_films=true"
            )
        both = zip(batch.media_rows, batch.twin_rows, strict=True)
        return replace(batch, media_rows=[own if twin is None else (twin,) for own, twin in both])


def pairs_of(
    backbone: VideoLanguageModel,
    batch: Batch,
    false_answers: Mapping[str, str],
    view: ContrastView | None,
) -> Pairs:
    """The pairs of a batch by the false answers of its items, and by a `view` of its films.

    Frames are encoded once. Where the view leaves a row as it is, there is no pair of films.
    """
    talks = [_answered(talk, talk.target) for talk in batch.conversations]
    batch = replace(batch, conversations=talks)
    names = enumerate(batch.item_id)
    rejected = {row: false_answers[name] for row, name in names if name in false_answers}
    shown = backbone.encoded(batch)
    if view is None:
        return Pairs(shown, rejected, None, [])
    seen = shown if view.reads_features else batch
    other = view(seen)
    rows = _changed(seen, other)
    return Pairs(shown, rejected, backbone.encoded(other.rows(rows)) if rows else None, rows)


class PairScores(nn.Module):
    """The log-probabilities of pairs under a backbone."""

    def __init__(self, backbone: VideoLanguageModel) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def llm(self) -> PromptedLanguageModel:
        """The backbone's language model."""
        llm = self.backbone.llm
        assert isinstance(llm, PromptedLanguageModel)  # the stage refuses others
        return llm

    def see(self, pairs: Pairs) -> Seen:
        """What the LLM sees of the films, and of the others."""
        other = None if pairs.other is None else self.backbone.media_tokens(pairs.other)
        return self.backbone.media_tokens(pairs.shown), other

    def forward(self, pairs: Pairs, seen: Seen | None = None) -> Scores:
        """The scores of pairs, by what is `seen` of them if that is known.

        Raises:
            TooLongError: naming an item for which the LLM has too few positions.
        """
        media, other_media = self.see(pairs) if seen is None else seen
        talks, names = pairs.shown.conversations, pairs.shown.item_id
        false = [_answered(talks[row], answer) for row, answer in pairs.rejected.items()]
        rows = [*range(len(talks)), *pairs.rejected]
        with rows_named([names[row] for row in rows]):
            found, tokens = self.llm.learned_log_probs([*talks, *false], media.rows(rows))
        chosen, rejected = found.split([len(talks), len(false)])
        other = chosen[:0]
        if pairs.other is not None and other_media is not None:
            with rows_named(pairs.other.item_id):
                other, _ = self.llm.learned_log_probs(pairs.other.conversations, other_media)
        return Scores(chosen, tokens[: len(talks)], rejected, other)


def _answered(talk: Conversation, answer: str) -> Conversation:
    """A conversation with another last answer, of which nothing else is learned."""
    before = [replace(turn, learned=False) if turn.learned else turn for turn in talk.asked.turns]
    return replace(talk, turns=(*before, Turn("assistant", (answer,), learned=True)))


def _changed(batch: Batch, other: Batch) -> list[int]:
    """The rows that another view shows differently."""
    if other.frames is not batch.frames or other.features is not batch.features:
        return list(range(len(batch)))
    both = zip(batch.media_rows, other.media_rows, strict=True)
    return [row for row, (own, new) in enumerate(both) if own != new]
