"""Items of a split: what they show, what they have in common, and which of them evaluation asks.

Very many items are kept in columns (`ColumnItems`), and what is asked of all of them is read there:
no item is made for it. Others are a list, and each is looked at.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from enum import IntFlag
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.errors import DataError
from mmavlm.core.groups import KEYS
from mmavlm.core.items import Item
from mmavlm.data.names import Names

log = logging.getLogger(__name__)

Key = Literal["task", "answer", "prompt"]
Indices = NDArray[np.integer[Any]]


class Flag(IntFlag):
    """What an item may have beside one plain question about one film."""

    SOUND = 1  # a sound is heard
    OPTIONS = 2  # the question brings options
    REFERENCES = 4  # several texts count as right
    META = 8  # the annotation says more
    LABEL = 16  # the answer is a class


class Coded(NamedTuple):
    """A text for each of N items: `texts` (K), each once as they first come, and codes (N,)."""

    texts: list[str]
    codes: NDArray[np.int32]


class Present(NamedTuple):
    """The names of all films, film → where it is missed, and the items without missing films."""

    films: Names
    missing: dict[str, Path]
    items: Sequence[Item]


class ColumnItems(Sequence[Item]):
    """Items of which some things are known without making them."""

    @abstractmethod
    def coded(self, key: Key) -> Coded:
        """The task, the answer or the prompt of every item."""

    @abstractmethod
    def flagged(self, flags: Flag) -> Indices:
        """The indices of the items that have any of the `flags`."""

    @abstractmethod
    def present(self) -> Present:
        """Which films there are, and the items that can be shown."""


def coded(items: Sequence[Item], key: Key) -> Coded:
    """The task, the answer or the prompt of every item."""
    if isinstance(items, ColumnItems):
        return items.coded(key)
    texts: dict[str, int] = {}
    codes = [texts.setdefault(KEYS[key](item), len(texts)) for item in items]
    return Coded(list(texts), np.array(codes, np.int32))


def flagged(items: Sequence[Item], flags: Flag) -> Iterator[tuple[int, Item]]:
    """Index and item of those that may have any of the `flags`, and of no other if that is known.

    Of items that are no `ColumnItems` all are given, to be looked at.
    """
    if not isinstance(items, ColumnItems):
        return enumerate(items)
    return ((at, items[at]) for at in items.flagged(flags).tolist())


def present(items: Sequence[Item]) -> Present:
    """Which films there are, and the items that can be shown."""
    if isinstance(items, ColumnItems):
        return items.present()
    sources = sources_of(items)
    missing = {name: source for name, source in sources.items() if not source.exists()}
    there = [item for item in items if missing.keys().isdisjoint(_shown(item))]
    return Present(Names.of(sources), missing, there)


def sources_of(items: Iterable[Item]) -> dict[str, Path]:
    """Where each film or picture that items show lies, by its name."""
    return {medium.medium_id: medium.source for item in items for medium in item.conversation.media}


def refuse_sounds(items: Sequence[Item]) -> None:
    """Refuse sounds where none are read.

    Raises:
        DataError: naming an item that lets a sound be heard.
    """
    for _, item in flagged(items, Flag.SOUND):
        for medium in item.conversation.media:
            if medium.kind == "sound":
                raise DataError(
                    f"item {item.item_id!r} lets the sound {medium.source} be heard, but no sounds "
                    "are read here (data.clips=null, as for a model with sound=none); take a model "
                    "that hears, or leave the sound out"
                )


def asked_once(items: Sequence[Item]) -> Sequence[Item]:
    """The items without those that ask again what may be answered by the same references.

    Captions come one a row, up to eighty of one video: with the same stretch, prompt and list of
    references they are one question, and their scores would be one and the same.
    """
    if isinstance(items, ColumnItems) and not len(items.flagged(Flag.REFERENCES)):
        return items
    questions: dict[object, Item] = {}
    for number, item in enumerate(items):
        several = len(item.references) > 1
        questions.setdefault(_asked(item) if several else number, item)
    if len(questions) < len(items):
        log.info("%d items ask %d questions, each asked once", len(items), len(questions))
    return list(questions.values())


def _asked(item: Item) -> object:
    """What makes two items one question."""
    asked = item.conversation.asked
    shown = tuple((medium.medium_id, medium.start_s, medium.end_s) for medium in asked.media)
    return shown, asked.turns, item.references


def _shown(item: Item) -> Iterator[str]:
    return (medium.medium_id for medium in item.conversation.media)
