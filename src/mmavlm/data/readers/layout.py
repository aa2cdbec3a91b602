"""Which keys rows have, and what is said of files that have others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property, lru_cache

from mmavlm.core.errors import DataError
from mmavlm.data.readers.rows import CLOCK_KEYS, CLOCK_NAMES, Row
from mmavlm.data.readers.values import is_clock_time, shown

log = logging.getLogger(__name__)

ALIKE = 0.74  # of two keys, from 0 to 1: "end" is so much like "end_s"
LISTED = 10
TURNS = ("conversations", "messages")  # where other sets keep what is asked and answered
# What others call the keys of one's own rows.
STAND_INS = {
    "video": ("video_path", "video_file", "video_name", "video_id", "videoid", "path", "file",
              "filename", "file_name", "clip"),
    "prompt": ("question", "query", "instruction", "q", "input"),
    "answer": ("response", "output", "target", "label", "a", "answers", "caption"),
    "caption": ("text", "description", "sentence", "captions", "name", "title", "answer"),
    "videoid": ("video_id", "video", "id"),
    "name": ("caption", "text", "description"),
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The keys that rows of a format need, and those they may have.

    `foreign` says that rows may have any others besides, as published files have: only those are
    named that look like a key which the row lacks.
    """

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    foreign: bool = True

    @cached_property
    def known(self) -> frozenset[str]:
        """All keys that are read."""
        return frozenset(self.needed + self.optional)


@dataclass
class KeyWatch:
    """Notes which keys of rows are not read, with the nearest one that is."""

    layout: Layout
    unread: dict[str, str] = field(default_factory=dict)  # key → nearest, or ""
    _seen: set[tuple[str, ...]] = field(default_factory=set)

    def see(self, row: Row) -> None:
        """Take note of a row."""
        keys, values = tuple(row.values), row.values
        if CLOCK_NAMES & values.keys():  # read where they hold clock times
            keys = tuple(
                k for k in keys if k not in CLOCK_NAMES or not is_clock_time(row.values[k])
            )
        if keys in self._seen or len(self.unread) > LISTED:
            return
        self._seen.add(keys)
        lacking = self.layout.known.difference(keys)
        for key in set(keys) - self.layout.known - self.unread.keys():
            near = get_close_matches(key.lower(), lacking, n=1, cutoff=ALIKE)
            if near or not self.layout.foreign:
                self.unread[key] = near[0] if near else ""

    def note(self) -> tuple[int, str] | None:
        """What is said of all that was seen, with its level in the log; None if all is read."""
        if not self.unread:
            return None
        keys = sorted(self.unread, key=lambda key: (not self.unread[key], key))
        said = ", ".join(self._said(key) for key in keys[:LISTED])
        more = ", …" if len(keys) > LISTED else ""
        level = logging.WARNING if any(self.unread.values()) else logging.INFO
        return level, f"keys that are not read: {said}{more}"

    def _said(self, key: str) -> str:
        near = self.unread[key]
        if key in CLOCK_KEYS.get(near, ()):
            return f"{key!r}, which has no unit where it is a number ({near!r} is in seconds)"
        return f"{key!r} (the nearest is {near!r})" if near else repr(key)


@lru_cache(maxsize=256)
def tell_once(level: int, message: str) -> None:
    """Log a message that has not been logged in this process."""
    log.log(level, "%s", message)


def refuse_other_files(head: Sequence[Row], layout: Layout) -> None:
    """Refuse, by its first rows, a file that has its keys under other names, or none of them.

    Raises:
        DataError: saying what the file looks like, and what reads it.
    """
    whole = [row for row in head if row.broken is None]
    if not whole or any(row.values.keys() >= {*layout.needed} for row in whole):
        return
    first = whole[0]
    values = first.values
    lacking = [key for key in layout.needed if key not in values]
    if turns := next((key for key in TURNS if isinstance(values.get(key), list)), None):
        raise DataError(
            f"{first.path} holds {turns!r} (see {first.place}), as sets for chat models do; here a "
            f"row is {_row_of(layout)}. data=llava reads those"
        )
    found = {key: _stand_in(key, values, layout) for key in lacking}
    if all(found.values()):
        named = ", ".join(f"{theirs!r} in place of {ours!r}" for ours, theirs in found.items())
        setting = ",".join(f"{ours}:{theirs}" for ours, theirs in found.items())
        raise DataError(
            f"{first.path} has {named}, by its {first.place}; rename them, or set "
            f"'data.reader.keys={{{setting}}}'"
        )
    if len(lacking) == len(layout.needed):
        table = first.path.suffix.lower() in (".csv", ".tsv")
        remedy = "name the columns in its first line" if table else f"rows are {_row_of(layout)}"
        raise DataError(
            f"{first.path} has none of the keys {', '.join(layout.needed)}, by its {first.place}, "
            f"which has {shown(sorted(map(str, values)))}; {remedy}"
        )


def _stand_in(key: str, values: Mapping[str, object], layout: Layout) -> str | None:
    folded = {name.lower(): name for name in map(str, values) if name not in layout.known}
    names = (key, *STAND_INS.get(key, ()))
    return next((folded[name] for name in names if name in folded), None)


def _row_of(layout: Layout) -> str:
    return "{" + ", ".join(f'"{key}": …' for key in layout.needed) + "}"
