"""Annotation files in MA-LMM's layout: one JSON object a split, an entry an item."""

from __future__ import annotations

import gc
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from typing_extensions import Unpack

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import (
    SPLIT_NAMES,
    SplitNames,
    known_split,
    read_object,
    split_of,
)
from mmavlm.data.readers.json_files import require
from mmavlm.data.readers.layout import KeyWatch, Layout, tell_once
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.values import shown

log = logging.getLogger(__name__)

LISTED = 10
ANY = Layout()  # of files in which no key is mistaken for another
FIRST_KEPT = "and the first is kept"


class Found(NamedTuple):
    """What a reader finds: items, entry → reason of those left out, and what else is to be said.

    A note has its level in the log. `left_out` says how many entries were, where not all reasons
    are told.
    """

    items: Sequence[Item]
    skipped: dict[str, str]
    notes: tuple[tuple[int, str], ...] = ()
    left_out: int | None = None


class SkippingReader(ABC):
    """A reader of published files: entries that cannot be used are left out and told."""

    def __call__(self, root: Path, split: str, task: str | Sequence[str] | None) -> Sequence[Item]:
        """The items of a split; what was left out is logged.

        Raises:
            ConfigError: if the task or the split is unknown.
            DataError: if the annotation is missing or broken, or none of its entries can be used.
        """
        return self.accepted(self.read(Path(root), split, task), split)

    def accepted(self, found: Found, split: str) -> Sequence[Item]:
        """The items that were found, if a run can use them; what was left out is logged.

        Raises:
            DataError: as of a call.
        """
        for level, note in found.notes:
            tell_once(level, note)
        if refusal := self.refusal(found):
            raise DataError(refusal)
        if found.skipped:
            log.warning(
                "%s split: %s; `python -m mmavlm.check data=…` lists all",
                split,
                told(found),
            )
        return found.items

    def skipped(self, root: Path, split: str, task: str | Sequence[str] | None) -> dict[str, str]:
        """Entry → reason, for those of a split that cannot be used."""
        return self.read(Path(root), split, task).skipped

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Task → class names; none where answers are open."""
        return {}

    @abstractmethod
    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """The items of a split, and what was left out."""

    def refusal(self, found: Found) -> str | None:
        """Why a run cannot use what was found, None if it can."""
        if found.skipped and not found.items:
            return f"no entry can be used; {told(found)}"
        return None


class StrictReader(SkippingReader):
    """A reader of one's own files: rows that cannot be used stop a run, since one can mend them."""

    def refusal(self, found: Found) -> str | None:
        """The rows that cannot be used."""
        reasons = list(found.skipped.values())
        if len(reasons) < 2:
            return reasons[0] if reasons else None
        many = found.left_out or len(reasons)
        more = f"\n  and {many - LISTED} more" if many > LISTED else ""
        return (
            f"{many} rows cannot be used; mend or remove them (`python -m mmavlm.check "
            "data=…` lists all):\n  " + "\n  ".join(reasons[:LISTED]) + more
        )


def usable(
    entries: Iterable[tuple[str, Row]],
    items_of: Callable[[str, Row], list[Item]],
    name_of: Callable[[str, Row], str] = lambda key, row: key,
    *,
    layout: Layout = ANY,
    again: str = FIRST_KEPT,
) -> Found:
    """The items of entries, and name → reason of those that cannot be used.

    An entry one of whose ids was there before cannot: nobody can mend a published file, so the
    first is kept (`again` says what else is to be done). Keys that `layout` does not know are noted
    once a file.
    """
    items: list[Item] = []
    skipped: dict[str, str] = {}
    seen: set[str] = set()
    watches: dict[Path, KeyWatch] = {}
    for key, row in uncollected(entries):
        if (watch := watches.get(row.path)) is None:
            watch = watches[row.path] = KeyWatch(layout)
        watch.see(row)
        try:
            row.check()
            found = items_of(key, row)
            ids = [item.item_id for item in found]
            if not seen.isdisjoint(ids):
                twice = next(name for name in ids if name in seen)
                raise row.error(f"id {shown(twice)} was there before, {again}")
        except DataError as error:
            name = name_of(key, row)
            skipped[name if name not in skipped else f"{name}, again ({len(skipped)})"] = str(error)
        else:
            seen.update(ids)
            items += found
    said = {path: watch.note() for path, watch in watches.items()}
    notes = ((note[0], f"{path}: {note[1]}") for path, note in said.items() if note)
    return Found(items, skipped, tuple(notes))


def uncollected(entries: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """The entries, while Python looks for no cycles: values have none, but are many to look at."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield from entries
    finally:
        if enabled:
            gc.enable()


class EntryFiles:
    """The files `<root>/<folder>/annotation/<prefix>{train,val,test}.json` of a set.

    `train`, `val` and `test` name other files instead. With `held_out` validation and test may be
    one and the same: where one of them is missing the other stands in, which is told. `shared`
    names a file that holds all splits, told apart by each entry's `subset`. With `counted` the
    copy of a file whose frame counts `mmavlm prepare` corrected is read, where there is one.
    """

    def __init__(
        self,
        folder: str,
        prefix: str = "",
        *,
        held_out: bool = False,
        shared: str | None = None,
        counted: bool = False,
        **named: Unpack[SplitNames],
    ) -> None:
        self.folder = folder
        self.prefix = prefix
        self.held_out = held_out
        self.shared = shared
        self.counted = counted
        self.named: dict[str, object] = dict(named)

    def path(self, root: Path, split: str) -> Path:
        """The file of a split.

        Raises:
            ConfigError: if the split is unknown.
            DataError: if there is none.
        """
        path = self.original(root, split)
        return copy if self.counted and (copy := counted_copy(path)).is_file() else path

    def original(self, root: Path, split: str) -> Path:
        """The file of a split as it was published.

        Raises:
            ConfigError: if the split is unknown.
            DataError: if there is none.
        """
        folder = Path(root) / self.folder / "annotation"
        own = self._name(split)
        if self.named.get(split):
            return require(folder / own)
        others = [self._name(other) for other in self._stand_ins(split)]
        names = [own, *([self.shared] if self.shared else []), *others]
        there = (path for name in names if (path := folder / name).is_file())
        return next(there, None) or require(folder / own)

    def entries(self, root: Path, split: str) -> Iterator[tuple[str, Row]]:
        """The entries of a split by their names.

        Raises:
            ConfigError: if the split is unknown.
            DataError: if the file is missing, broken, or holds something else.
        """
        path = self.path(root, split)
        name = self.original(root, split).name
        if name != self.shared:
            if split != "train" and name != self._name(split):
                self._tell(path, split)
            yield from read_object(path)
            return
        subsets = {subset(row) for _, row in read_object(path)}
        wanted = next((s for s in (split, *self._stand_ins(split)) if s in subsets), split)
        if wanted != split:
            self._tell(path, split)
        # an entry of no known subset is given to all splits, so that each tells of it
        for key, row in read_object(path):
            if subset(row) in (wanted, None):
                yield key, row

    def check_subset(self, row: Row) -> None:
        """Refuse an entry of a shared file that belongs to no split.

        Raises:
            DataError: naming file, entry, and what is expected.
        """
        shared = (self.shared, counted_copy(Path(self.shared)).name) if self.shared else ()
        if row.path.name in shared and subset(row) is None:
            came = shown(row.values.get("subset"))
            raise row.error(f"'subset' must be one of {', '.join(SPLIT_NAMES)}, got {came}")

    def _name(self, split: str) -> str:
        return str(self.named.get(known_split(split)) or f"{self.prefix}{split}.json")

    def _stand_ins(self, split: str) -> list[str]:
        return [s for s in ("val", "test") if self.held_out and s != split != "train"]

    @staticmethod
    def _tell(path: Path, split: str) -> None:
        log.warning(
            "%s stands in for the %s split, which the set does not have: what is tested is what "
            "checkpoints are chosen on",
            path,
            split,
        )


def subset(row: Row) -> str | None:
    """The split an entry says it belongs to, None if it names none that is known."""
    return split_of(row.values.get("subset"))


def counted_copy(path: Path) -> Path:
    """Where the copy of an annotation with corrected frame counts lies: `train.counted.json`."""
    return path.with_suffix(f".counted{path.suffix}")


def told(found: Found) -> str:
    """How many of a file's entries cannot be used, beside items of others, and why, in one line."""
    first = next(iter(found.skipped.values()))
    left_out = found.left_out or len(found.skipped)
    return f"{left_out} entries left out beside {len(found.items)} items; the first: {first}"
