"""Items of several sequences as one: of the sets of a mix, or of films and their twins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np

from mmavlm.core.items import Item
from mmavlm.data.items import Coded, ColumnItems, Flag, Indices, Key, Present, coded, present
from mmavlm.data.names import Names

BEHIND_SET = "/"  # between the name of a set and what it names: lvu/genre


class JoinedItems(ColumnItems):
    """The items of `parts`, one behind the other; with `sets`, each under the name of its set."""

    def __init__(self, parts: Sequence[Sequence[Item]], sets: Sequence[str] | None = None) -> None:
        self.parts = list(parts)
        self.sets = None if sets is None else list(sets)
        self.ends = list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> list[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | list[Item]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        index = range(len(self))[at]
        which = bisect_right(self.ends, index)
        return self._named(self.parts[which][index - self._start(which)], which)

    def __iter__(self) -> Iterator[Item]:
        for which, part in enumerate(self.parts):
            yield from (self._named(item, which) for item in part)

    def coded(self, key: Key) -> Coded:
        """The task, the answer or the prompt of every item; tasks with the names of their sets."""
        texts: dict[str, int] = {}
        codes = [np.zeros(0, np.int32)]
        for which, part in enumerate(self.parts):
            own = coded(part, key)
            before = self._before(which) if key == "task" else ""
            new = [texts.setdefault(before + text, len(texts)) for text in own.texts]
            codes.append(np.array(new, np.int32)[own.codes])
        return Coded(list(texts), np.concatenate(codes))

    def flagged(self, flags: Flag) -> Indices:
        """The indices of the items that may have any of the `flags`."""
        found: list[Indices] = [np.zeros(0, np.int64)]
        for which, part in enumerate(self.parts):
            some = part.flagged(flags) if isinstance(part, ColumnItems) else np.arange(len(part))
            found.append(some + self._start(which))
        return np.concatenate(found)

    def present(self) -> Present:
        """Which films there are, and the items that can be shown; of sets, each has its own."""
        if self.sets is not None:
            raise TypeError("the films of a mix are looked for set by set")
        of_parts = [present(part) for part in self.parts]
        films = Names.of(())
        missing: dict[str, Path] = {}
        for part in of_parts:
            films |= part.films
            missing |= part.missing
        return Present(films, missing, JoinedItems([part.items for part in of_parts]))

    def _start(self, which: int) -> int:
        return self.ends[which - 1] if which else 0

    def _before(self, which: int) -> str:
        return "" if self.sets is None else self.sets[which] + BEHIND_SET

    def _named(self, item: Item, which: int) -> Item:
        return item if self.sets is None else named(item, self.sets[which])


def named(item: Item, name: str) -> Item:
    """An item under the name of its set."""
    talk = item.conversation
    media = [replace(m, medium_id=name + BEHIND_SET + m.medium_id) for m in talk.media]
    return replace(
        item,
        item_id=name + BEHIND_SET + item.item_id,
        conversation=replace(talk, media=tuple(media)),
        task=name + BEHIND_SET + item.task,
    )
