"""Conversations in which a film runs, read in one go: what is learned, and each frame's state.

With looks of single frames a conversation is one row. Looks of a memory are of all frames so far,
and the newest stands for those before; so what the model knew at a frame is a row of its own, which
ends there.

Shapes: N frames, H width of the hidden states.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.interfaces import FramesOfLooks, MediaTokens
from mmavlm.core.streams import frames_of
from mmavlm.core.turns import Part, Shown, Turn
from mmavlm.model.llm.causal import CausalLayout
from mmavlm.model.llm.layout import Asked, Piece, pieces_of
from mmavlm.model.llm.rendering import Rendered

if TYPE_CHECKING:
    from mmavlm.model.llm.prompted import PromptedLanguageModel


class FrameAt(NamedTuple):
    """A frame of its film, by its number, in a turn of a conversation of the batch."""

    talk: int
    turn: int
    frame: int


@dataclass(frozen=True)
class StreamRead:
    """Log-probabilities of what is learned (tokens,), hidden states (N,H) of the `frames`."""

    log_probs: Tensor
    hidden: Tensor
    frames: list[FrameAt]


def frames_shown(talks: Sequence[Conversation]) -> list[FrameAt]:
    """The frames of all streams of conversations, in order."""
    return [
        FrameAt(number, n, frame)
        for number, talk in enumerate(talks)
        for n, turn in enumerate(talk.turns)
        if turn.role == "stream"
        for frame in range(*frames_of(turn))
    ]


def last_of_streams(frames: Sequence[FrameAt]) -> set[FrameAt]:
    """Those of frames in order that are the last of their stream."""
    return {
        at
        for at, then in zip_longest(frames, frames[1:])
        if then is None or (then.talk, then.turn) != (at.talk, at.turn)
    }


class _Row(NamedTuple):
    talk: int
    rendered: Rendered
    frames: list[FrameAt]  # whose states are read here


def read_streams(
    llm: PromptedLanguageModel,
    talks: Sequence[Conversation],
    media: MediaTokens,
    only: Collection[FrameAt] | None = None,
) -> StreamRead:
    """Read conversations with all frames of their streams.

    The state of a frame is the hidden state at its last token (MMDuet, section 2). Of the frames
    that take a row of their own those in `only` are read, None for all.

    Raises:
        ConfigError: if the model is no causal one, or tokens of media are not of single frames.
        DataError: if no conversation has a stream.
        TooLongError: if a row needs more positions than the model has.
    """
    layout, looks = llm.layout, media.looks
    if not isinstance(layout, CausalLayout) or looks is None:
        raise ConfigError(
            "a film that runs while others speak needs a causal language model, and tokens that "
            "are of single frames or of a memory; choose another llm, or temporal=every_frame"
        )
    rows = [*_rows(llm, talks, looks, only)]
    begins = [*accumulate(media.views, initial=0)]
    rendered = [row.rendered for row in rows]
    pieces = pieces_of(rendered, media, [begins[row.talk] for row in rows])
    asked = Asked(llm.model, rendered, media, pieces)
    numbers = [row.talk for row in rows]
    llm.room.check_rows(asked.media_lengths(), list(map(len, rendered)), [0] * len(rows), numbers)
    places, frames = [], []
    for n, row in enumerate(rows):
        columns = _columns(pieces[n], looks)
        if absent := [at.frame for at in row.frames if at.frame not in columns]:
            raise ConfigError(
                f"frames such as {absent[0]} of a film that runs have no tokens of their own, and "
                "each frame is to be scored; choose temporal.max_frames=null temporal.memory=null"
            )
        places += [(n, columns[at.frame]) for at in row.frames]
        frames += row.frames
    if not places:
        raise DataError(
            "in no conversation of the batch a film runs while others speak, so there are no "
            "frames to score; choose data with streams (docs/watched_films.md), or stage=finetune"
        )
    log_probs, hidden = layout.read_entirely(asked)
    # The places are known on the host, so picking them waits for nothing.
    rows_at, columns_at = torch.tensor(places, dtype=torch.int64).T.to(hidden.device)
    return StreamRead(log_probs, hidden[rows_at, columns_at], frames)


def _rows(
    llm: PromptedLanguageModel,
    talks: Sequence[Conversation],
    looks: FramesOfLooks,
    only: Collection[FrameAt] | None,
) -> Iterator[_Row]:
    frames = frames_shown(talks)
    last = last_of_streams(frames)
    for number, talk in enumerate(talks):
        shown = [at for at in frames if at.talk == number]
        if looks.latest:
            for at in shown:
                if at not in last and (only is None or at in only):
                    yield _Row(number, llm.rendering.turns(_until(talk, at), latest=True), [at])
            shown = [at for at in shown if at in last]
        yield _Row(number, llm.rendering.turns(talk.turns, latest=looks.latest), shown)


def _until(talk: Conversation, at: FrameAt) -> list[Turn]:
    """What was said and shown up to a frame, of which nothing is learned again."""
    before = [replace(turn, learned=False) for turn in talk.turns[: at.turn]]
    parts: list[Part] = []
    for part in talk.turns[at.turn].parts:
        if isinstance(part, Shown) and part.frames is not None and at.frame < part.frames[1]:
            parts.append(part.only(part.frames[0], at.frame + 1))
            break
        parts.append(part)
    return [*before, replace(talk.turns[at.turn], parts=tuple(parts))]


def _columns(pieces: Sequence[Piece], looks: FramesOfLooks) -> dict[int, int]:
    """Frame → the column of its last token; of looks that stand for others, that of the last."""
    found, before = {}, 0
    for at, view, start, stop in pieces:
        for look in range(start // looks.tokens, stop // looks.tokens):
            last = (look + 1) * looks.tokens - 1 - start
            found[looks.frames[view][look]] = at + before + last
        before += stop - start
    return found
