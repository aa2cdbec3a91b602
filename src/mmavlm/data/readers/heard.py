"""Films that are heard, too: questions with a film's sound, its pictures, both, or words alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.items import Item, Reader
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Part, Shown, Turn

Sense = Literal["sound", "film"]


class HeardReader:
    """The items of `reader`, each film shown by what `show` names, in this order.

    `[sound, film]` is Video-LLaMA's joint prompt: what is heard stands before what is seen. A film
    without sound is asked about as if nothing were heard. With `[]` nothing is shown, and a model
    learns what the words of the questions tell by themselves.

    Raises:
        ConfigError: if `show` names something twice, or something unknown.
    """

    def __init__(self, reader: Reader, show: Sequence[Sense] = ("sound", "film")) -> None:
        self.reader = reader
        self.show = check_senses(show)

    def __call__(self, root: Path, split: str, task: str | Sequence[str] | None) -> list[Item]:
        """The items of one split."""
        found = self.reader(root, split, task)
        return [replace(item, conversation=heard(item.conversation, self.show)) for item in found]

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Task → class names, as the reader has them."""
        return self.reader.classes(root, task)


def check_senses(show: Sequence[Sense]) -> tuple[Sense, ...]:
    """What is shown of films, if it is all known and named once.

    Raises:
        ConfigError: naming what there is.
    """
    known = get_args(Sense)
    if len({*show}) < len(show) or not {*show} <= {*known}:
        raise ConfigError(
            f"data.reader.show is {list(show)}; give one or both of {', '.join(known)}, or []"
        )
    return tuple(show)


def hearing(show: Sequence[Sense], clips: Any) -> tuple[Sense, ...]:
    """What a model gets of films that `show` names: without `clips` it hears nothing.

    `clips` are the settings of what is taken of a sound, None for a model without a branch for it.

    Raises:
        ConfigError: as `check_senses`, or if sound alone is to be shown and nothing can be heard.
    """
    senses = check_senses(show)
    found = senses if clips is not None else tuple(s for s in senses if s != "sound")
    if senses and not found:
        raise ConfigError(
            "data.reader.show is [sound], and this model hears nothing; choose "
            "sound=clip_qformer, or show the film"
        )
    return found


def heard(talk: Conversation, show: Sequence[Sense]) -> Conversation:
    """The conversation with each of its films by what `show` names."""
    media: list[Medium] = []
    places: dict[int, tuple[Part, ...]] = {}
    for number, medium in enumerate(talk.media):
        senses = show if medium.kind == "film" else (None,)
        first = len(media)
        media += [replace(medium, kind=sense) if sense else medium for sense in senses]
        places[number] = tuple(Shown(n) for n in range(first, len(media)))
    turns = tuple(replace(turn, parts=_placed(turn, places)) for turn in talk.turns)
    return replace(talk, turns=turns, media=tuple(media))


def _placed(turn: Turn, places: dict[int, tuple[Part, ...]]) -> tuple[Part, ...]:
    parts = [places[p.medium] if isinstance(p, Shown) else (p,) for p in turn.parts]
    return tuple(part for some in parts for part in some)
