"""Readers whose items may be very many: one of each entry, and plain entries by columns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.data.readers.entries import ANY, FIRST_KEPT, Found, SkippingReader, uncollected, usable
from mmavlm.data.readers.layout import KeyWatch, Layout
from mmavlm.data.readers.rows import CLOCK_NAMES, Row
from mmavlm.data.readers.values import shown

if TYPE_CHECKING:
    from mmavlm.data.item_writer import ItemWriter, PlainRows, Resolve

AT_ONCE = 1 << 14  # entries that are looked at together


@dataclass(frozen=True)
class Reading:
    """How the entries of a split become items.

    `item_of` makes the item of any entry, or raises DataError. `plain` makes columns of those that
    it would change nothing of; where films of these are missed, `resolve` says where they lie.
    `common` is what plain items have in common. `layout` and `again` are as of `usable`.
    `many` says whether the items are very many; None: the size of what is read tells.
    """

    entries: Callable[[], Iterator[tuple[str, Row]]]
    item_of: Callable[[str, Row], Item]
    plain: Callable[[Sequence[tuple[str, Row]]], PlainRows]
    resolve: Resolve
    prompt: str = ""
    task: str = ""
    layout: Layout = ANY
    again: str = FIRST_KEPT
    many: bool | None = None

    def found(self) -> Found:
        """All items, each made one by one."""
        return usable(
            self.entries(),
            lambda key, row: [self.item_of(key, row)],
            layout=self.layout,
            again=self.again,
        )


class TabledReader(SkippingReader):
    """A reader that may write its items as a table, faster than one by one."""

    @abstractmethod
    def reading(self, root: Path, split: str, task: str | Sequence[str] | None) -> Reading | None:
        """How the entries of a split become items, None if not each by itself.

        Errors are those of `read`.
        """


def write_reading(reading: Reading, writer: ItemWriter) -> Found:
    """Write the items of a reading; what is found has none of them, but all that was left out.

    The table holds, in the same order, the items that `Reading.found` has.
    """
    skipped: dict[int, tuple[str, str]] = {}
    watches: dict[Path, KeyWatch] = {}
    entries, first = uncollected(reading.entries()), 0
    while some := list(islice(entries, AT_ONCE)):
        _watch(watches, [row for _, row in some], reading.layout)
        plain = reading.plain(some)
        others: list[tuple[int, Item]] = []
        for at in (~plain.plain).nonzero()[0].tolist():
            key, row = some[at]
            try:
                row.check()
                others.append((at, reading.item_of(key, row)))
            except DataError as error:
                skipped[first + at] = key, str(error)
        writer.add(plain, others, first)
        first += len(some)
    skipped |= _again(reading, {*writer.finish(reading.resolve).tolist()})
    notes = ((note[0], f"{path}: {note[1]}") for path, w in watches.items() if (note := w.note()))
    return Found([], _by_name(skipped), tuple(notes))


def _watch(watches: dict[Path, KeyWatch], rows: Sequence[Row], layout: Layout) -> None:
    """Note the keys of rows; of those that have the same ones it is enough to see one."""
    keys_of = [tuple(row.values) for row in rows]
    alike = {keys: rows[keys_of.index(keys)] for keys in dict.fromkeys(keys_of)}
    watch = watches.setdefault(rows[0].path, KeyWatch(layout))
    for keys, row in alike.items():
        if CLOCK_NAMES.isdisjoint(keys):
            watch.see(row)
        else:  # whose values say whether they are read
            for each in rows:
                watch.see(each)


def _again(reading: Reading, numbers: set[int]) -> dict[int, tuple[str, str]]:
    """Number → key and reason, of the entries whose id was there before."""
    found = {}
    for number, (key, row) in enumerate(reading.entries() if numbers else ()):
        if number in numbers:
            twice = shown(reading.item_of(key, row).item_id)
            why = row.error(f"id {twice} was there before, {reading.again}")
            found[number] = key, str(why)
    return found


def _by_name(skipped: dict[int, tuple[str, str]]) -> dict[str, str]:
    """Key → reason in the order of entries; a key that is there again says so."""
    found: dict[str, str] = {}
    for _, (key, why) in sorted(skipped.items()):
        found[key if key not in found else f"{key}, again ({len(found)})"] = why
    return found
