"""What is said in a conversation, with `<image>` and `<video>` where media are shown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b

from mmavlm.core.conversation import Conversation
from mmavlm.core.medium import Kind, Medium
from mmavlm.core.turns import Part, Role, Shown, Turn
from mmavlm.data.readers.rows import Row

Said = tuple[Role, str]
MARKER = re.compile(r"\n*<(image|video)>\n*")
KINDS: dict[str, Kind] = {"image": "picture", "video": "film"}
NAMES = {kind: name for name, kind in KINDS.items()}


def conversation(row: Row, key: str, said: Sequence[Said], media: Sequence[Medium]) -> Conversation:
    """What stands under a key of a row, in which the k-th marker shows the k-th of its `media`.

    A single medium without a marker is shown where the user begins. Where there are only films,
    `<image>` stands for one too, as many sets have it. An assistant's text is no place for markers.
    Every turn of the assistant is learned.

    Raises:
        DataError: naming row and key, if markers and media do not match, turns are out of order, or
            the last is not the assistant's.
    """
    if said[-1][0] != "assistant":
        raise row.error(
            f"{key!r} ends with the {said[-1][0]}'s turn; expected an answer of the assistant"
        )
    markers = [name for role, text in said if role != "assistant" for name in MARKER.findall(text)]
    if not markers and len(media) == 1:
        markers = [NAMES[media[0].kind]]
        said = _opened(said, markers[0])
    shown = _in_order(row, key, [KINDS[marker] for marker in markers], media)
    numbers = iter(range(len(shown)))
    with row.placed(key):
        turns = tuple(_turn(role, text, numbers) for role, text in said)
        return Conversation(turns, shown)


def under_guides(talk: Conversation) -> Conversation:
    """The same, where the texts of turns that show media are guides and not read (LLaMA-VID)."""
    return replace(talk, turns=tuple(map(_guided, talk.turns)))


def _guided(turn: Turn) -> Turn:
    if not turn.shows:
        return turn
    media = tuple(part for part in turn.parts if not isinstance(part, str))
    return replace(turn, parts=media, guide=turn.text.strip())


def shown_again(talk: Conversation, name: str) -> Conversation:
    """The same, where later turns of the user show all media again, each under its own question.

    They stand before or behind the text, by a hash of the conversation's name and the turn's
    number.
    """
    media = tuple(map(Shown, range(len(talk.media))))
    turns, begun = [], False
    for number, turn in enumerate(talk.turns):
        if begun and turn.role == "user" and not turn.shows:
            digest = blake2b(f"{name}, turn {number}".encode(), digest_size=1).digest()
            parts = (*media, *turn.parts) if digest[0] % 2 else (*turn.parts, *media)
            turn = replace(turn, parts=parts)
        begun = begun or bool(turn.shows)
        turns.append(turn)
    return replace(talk, turns=tuple(turns))


def _opened(said: Sequence[Said], marker: str) -> list[Said]:
    """The same with a marker where the user begins."""
    first = next((n for n, (role, _) in enumerate(said) if role == "user"), 0)
    return [(r, f"<{marker}>\n{t}" if n == first else t) for n, (r, t) in enumerate(said)]


def _in_order(
    row: Row, key: str, wanted: Sequence[Kind], media: Sequence[Medium]
) -> tuple[Medium, ...]:
    """The media in the order in which markers want their kinds."""
    there = Counter(medium.kind for medium in media)
    if there.keys() == {"film"}:
        wanted = ["film"] * len(wanted)
    if Counter(wanted) != there:
        marks = ", ".join(f"{wanted.count(kind)} <{name}>" for name, kind in KINDS.items())
        given = ", ".join(f"{there[kind]} under {name!r}" for name, kind in KINDS.items())
        raise row.error(
            f"{key!r} has {marks}, but there are {given}; expected a marker in a turn of the user "
            "for each"
        )
    waiting = {kind: iter([m for m in media if m.kind == kind]) for kind in there}
    return tuple(next(waiting[kind]) for kind in wanted)


def _turn(role: Role, text: str, numbers: Iterator[int]) -> Turn:
    if role == "assistant":
        return Turn(role, (text,), learned=True)
    parts: list[Part] = []
    begun = False
    for n, piece in enumerate(MARKER.split(text.strip())):
        if n % 2:
            parts.append(Shown(next(numbers)))
        elif piece := (piece if begun else piece.lstrip()):
            begun = True
            parts.append(piece)
    return Turn(role, tuple(parts))
