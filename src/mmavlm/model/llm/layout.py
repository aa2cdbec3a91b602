"""What the causal and the sequence-to-sequence layout of conversations share.

Shapes: B rows, V views of media, K media tokens, Dl LLM width, C candidates a row, A answer tokens.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from mmavlm.core.interfaces import MediaTokens
from mmavlm.model.llm.heard import Heard
from mmavlm.model.llm.rendering import Rendered
from mmavlm.model.text import padded

Model = Any  # a transformers model that generates; its classes have no typed base in common
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Candidates:
    """Answers `ids` (B,C,A), real where `mask` (B,C,A); some `chunk` sequences go at a time."""

    ids: Tensor
    mask: Tensor
    chunk: int

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Slices of the C candidates, with their ids and mask (B,c,A)."""
        rows, candidates, _ = self.ids.shape
        size = max(1, self.chunk // rows)
        for start in range(0, candidates, size):
            part = slice(start, start + size)
            yield part, self.ids[:, part], self.mask[:, part]


class Stretch(NamedTuple):
    """Logits (B,c,a,V) of the candidates `part` in `columns`; (B,1,1,V) where all share them."""

    part: slice
    columns: slice
    logits: Tensor


class Steps(Protocol):
    """Answers that are read token by token, N of them at a time."""

    def begin(self, copies: int) -> Tensor:
        """Logits (N,V) of the first token, for so many answers to each row: N = B·copies."""

    def go_on(self, parents: Tensor, ids: Tensor) -> Tensor:
        """Logits (N,V) behind `ids` (N,1), each of which goes on with the answer `parents` (N,)."""


class Piece(NamedTuple):
    """Tokens `start` to `stop` of a view, which stand in front of the id `at` of a row."""

    at: int
    view: int
    start: int
    stop: int


@dataclass(frozen=True)
class Search:
    """How answers are found.

    `processors` change the scores of the next token by the ids of the answer so far, and
    `stopping` says by these ids whether it is at its end.
    """

    config: GenerationConfig
    processors: LogitsProcessorList
    stopping: StoppingCriteriaList

    def arguments(self) -> dict[str, Any]:
        """The same as `generate` of transformers takes it."""
        return {
            "generation_config": self.config,
            "logits_processor": self.processors,
            "stopping_criteria": self.stopping,
        }


class Asked:
    """What a `model` reads: `rows` of ids, with the tokens of media between them.

    `pieces` says for each row which tokens of which view stand where; by default the views stand
    one behind the other, as the rows show them, without their padding, which the model never
    sees.

    Raises:
        ValueError: if rows and `media` disagree about how many media are shown where.
    """

    def __init__(
        self,
        model: Model,
        rows: Sequence[Rendered],
        media: MediaTokens,
        pieces: Sequence[Sequence[Piece]] | None = None,
    ) -> None:
        self.model = model
        self.rows = rows
        self.media = media
        if pieces is None:
            check_views([row.num_views for row in rows], media)
            pieces = pieces_of(rows, media)
        self.pieces = pieces

    @property
    def device(self) -> torch.device:
        """Where the tokens of media are, and what is read with them."""
        return self.media.tokens.device

    def media_lengths(self) -> list[int]:
        """How many tokens of media each row has."""
        return [sum(piece.stop - piece.start for piece in row) for row in self.pieces]

    def column(self, row: int, place: int) -> int:
        """Where the id at a place of a row stands among all tokens of that row."""
        before = (piece for piece in self.pieces[row] if piece.at <= place)
        return place + sum(piece.stop - piece.start for piece in before)

    def inputs(self, stops: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings (B,L,Dl) and mask (B,L) of the rows, or of their ids up to `stops`.

        Rows are padded on the right.
        """
        rows, begins = [], []
        for n, (row, pieces) in enumerate(zip(self.rows, self.pieces, strict=True)):
            read: list[int] = []
            since = 0
            for piece in pieces:
                read += row.ids[since : piece.at]
                begins.append((n, len(read), piece))
                read += [0] * (piece.stop - piece.start)
                since = piece.at
            rows.append(read + row.ids[since : stops[n] if stops else None])
        ids, mask = padded(rows, self.device)
        return self._with_media(embed(self.model, ids), begins), mask

    def _with_media(self, text: Tensor, begins: Sequence[tuple[int, int, Piece]]) -> Tensor:
        """Embeddings (B,L,Dl) with the tokens of each piece from its row and column on."""
        length, most = text.shape[1], self.media.tokens.shape[1]
        places: list[int] = []
        sources: list[int] = []
        for row, column, (_, view, start, stop) in begins:
            first = row * length + column
            places += range(first, first + stop - start)
            sources += range(view * most + start, view * most + stop)
        # Both are known on the host, so that putting them in waits for nothing.
        place, source = torch.tensor([places, sources], dtype=torch.int64).to(text.device)
        tokens = self.media.tokens.flatten(0, 1).index_select(0, source).to(text.dtype)
        return text.flatten(0, 1).index_copy(0, place, tokens).view_as(text)


def pieces_of(
    rows: Sequence[Rendered], media: MediaTokens, begins: Sequence[int] | None = None
) -> list[list[Piece]]:
    """Which tokens stand at each place of the rows; views follow each other as places do.

    `begins` has the first view of each row where rows show the same views again.
    """
    looks, counts = media.looks, real_counts(media.tokens, media.mask)
    view, found = -1, []
    for n, row in enumerate(rows):
        own = []
        view = view if begins is None else begins[n] - 1
        for at, frames in itertools.zip_longest(row.media_at, row.frames):
            view += not (frames and frames[0])
            start, stop = 0, counts[view]
            if looks is not None and (frames is not None or looks.latest):
                first, last = frames or (0, stop)
                start, stop = (min(token, stop) for token in looks.span(view, first, last))
            elif frames and frames[0]:
                start = stop  # all its tokens stand where it begins
            own.append(Piece(at, view, start, stop))
        found.append(own)
    return found


class Layout(Protocol):
    """Where media, texts and answers stand in a model.

    What is `read` of the rows that are asked goes on in `stretches`, and if it is kept in `past`,
    in the next questions of one row.
    """

    def learned_log_probs(self, asked: Asked) -> Tensor:
        """Log-probability of every learned token of the batch, row after row, (tokens,)."""

    def past(self, model: Model) -> Any:
        """What a session keeps of what was read; None if it can keep nothing."""

    def read(self, asked: Asked, past: Any = None) -> Any:
        """What the model makes of the rows before it answers."""

    def stretches(self, asked: Asked, read: Any, candidates: Candidates) -> Iterator[Stretch]:
        """The logits of the candidates, so many at a time."""

    def steps(self, asked: Asked, read: Any) -> Steps:
        """Answers to all that is asked and was `read`, which stays as it is, token by token."""

    def generate(
        self,
        asked: Asked,
        search: Search,
        past: Any = None,
        streamer: Heard | None = None,
    ) -> Tensor:
        """Ids of generated answers, (B·num_return_sequences, at most max_new_tokens).

        The `streamer` hears each token of the one answer that is generated.
        """


def check_views(shown: Sequence[int], media: MediaTokens) -> None:
    """Refuse media that are not one view for each place where conversations show one.

    Raises:
        ValueError: naming the places and the views.
    """
    if list(shown) != list(media.views) or sum(shown) != len(media.tokens):
        raise ValueError(
            f"conversations show media at {list(shown)} places, but there are {list(media.views)} "
            f"views with tokens of {len(media.tokens)}; give one view for each place"
        )


def first_views(media: MediaTokens, rows: Sequence[int], counts: Sequence[int]) -> MediaTokens:
    """The first views of some conversations, so many of each."""
    begins = list(itertools.accumulate(media.views, initial=0))
    pairs = zip(rows, counts, strict=True)
    return media.chosen([begins[row] + n for row, count in pairs for n in range(count)], counts)


def joined(views: Sequence[MediaTokens]) -> MediaTokens:
    """Media of one view each as the media of one conversation; those with fewer are padded."""
    tokens = [one.tokens[0] for one in views]
    lengths = torch.tensor([len(row) for row in tokens])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    looks = [one.looks for one in views]
    known = next((one for one in looks if one is not None), None)
    frames = [() if one is None else one.frames[0] for one in looks]
    return MediaTokens(
        pad_sequence(tokens, batch_first=True),
        [len(views)],
        None if mask.all() else mask,
        None if known is None else replace(known, frames=frames),
    )


def real_counts(tokens: Tensor, mask: Tensor | None) -> list[int]:
    """How many of a view's tokens (V,K,Dl) are real, by the mask (V,K) or all without one.

    Raises:
        ValueError: if a mask has another shape, or a real token behind padding.
    """
    rows, most = tokens.shape[:2]
    if mask is None:
        return [most] * rows
    if mask.shape != (rows, most):
        raise ValueError(
            f"the mask of the video tokens has shape {tuple(mask.shape)}, but there are "
            f"{rows} rows of {most} tokens; give one of shape {(rows, most)}"
        )
    mask = mask.cpu()
    counts = mask.sum(dim=1)
    wrong = (mask != (torch.arange(most) < counts[:, None])).any(dim=1)
    if wrong.any():
        raise ValueError(
            f"row {int(wrong.int().argmax())} of the mask of the video tokens must begin with its "
            "real tokens; put the padding behind them"
        )
    return [int(count) for count in counts]


def picked(logits: Tensor, columns: Sequence[Sequence[int]], ids: Rows) -> Tensor:
    """Log-probability of ids in the columns of each row of logits (B,L,V), row after row."""
    rows = itertools.chain.from_iterable([n] * len(row) for n, row in enumerate(columns))
    chain = itertools.chain.from_iterable
    # The places are known on the host, so picking them waits for nothing.
    places = [[*rows], [*chain(columns)], [*chain(ids)]]
    place = torch.tensor(places, dtype=torch.int64).to(logits.device)
    return token_log_probs(logits[place[0], place[1]], place[2])


def summed(candidates: Candidates, stretches: Iterable[Stretch]) -> Tensor:
    """Summed log-probability (B,C) of the candidates, by their logits."""
    scores = torch.zeros(candidates.ids.shape[:2], device=candidates.ids.device)
    for part, columns, logits in stretches:
        found = token_log_probs(logits, candidates.ids[:, part, columns])
        scores[:, part] += found.masked_fill(~candidates.mask[:, part, columns], 0).sum(dim=2)
    return scores


def embed(model: Model, ids: Tensor) -> Tensor:
    """Token embeddings (…,Dl) of ids (…)."""
    return model.get_input_embeddings()(ids)


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of ids (…) under logits (…,V), in single precision; sizes of 1 are shared."""
    if logits.shape[:-1] != ids.shape:
        log_probs = logits.float().log_softmax(dim=-1).expand(*ids.shape, -1)
        return log_probs.gather(-1, ids[..., None])[..., 0]
    flat = F.cross_entropy(logits.flatten(0, -2).float(), ids.flatten(), reduction="none")
    return -flat.view(ids.shape)


def accepted(model: Model, **arguments: Any) -> dict[str, Any]:
    """Those of the arguments that this model's `forward` takes."""
    known = inspect.signature(type(model).forward).parameters
    return {name: value for name, value in arguments.items() if name in known}
