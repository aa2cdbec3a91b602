"""Annotation files of one JSON value, read entry by entry in bounded memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.looked_at import look_at
from mmavlm.data.readers.json_values import (
    HALF_ESCAPED,
    NOT_JSON,
    decoded,
    loads,
    pairs_of,
    whole_characters,
)

# Parsed, a file takes several times its size in memory.
MAX_JSON_BYTES = 1 << 30
MAX_ENTRY_CHARS = 1 << 26
CHUNK_CHARS = 1 << 20

SPACE = re.compile(r"[ \t\n\r]*")
# What has been read of a number may be one, and another than the whole: 1 of 1.5, 1 of 1e3.
MAY_GO_ON = re.compile(r"[-+.\w]*\Z")


def entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Keys and values of a file that holds one JSON object, in their order, one at a time.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    with _opened(path) as text:
        yield from text.members()
        text.end()


def elements(path: Path, under: str | None = None) -> Iterator[Any]:
    """The elements of a file that holds one JSON list, or an object with a list `under` a key.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    with _opened(path) as text:
        if under is None:
            yield from text.elements()
        else:
            found = False
            for key in text.each_key():
                if key == under:
                    found = True
                    yield from text.elements()
                else:
                    text.value()
            if not found:
                raise DataError(f"{path} must hold a list under {under!r}")
        text.end()


def read_json(path: Path) -> Any:
    """All that a .json file holds.

    Raises:
        DataError: if the file is missing, broken, or of more than `MAX_JSON_BYTES`.
    """
    try:
        with require(path).open(encoding="utf-8-sig") as file:
            if (size := path.stat().st_size) > MAX_JSON_BYTES:
                raise DataError(
                    f"{path} has {size} bytes, and here it is held in memory whole, up to "
                    f"{MAX_JSON_BYTES}; split it"
                )
            return loads(file.read())
    except NOT_JSON as error:
        raise DataError(f"{path} is not JSON: {error}") from None


def encoding_of(path: Path) -> str:
    """The encoding of a text file: UTF-8 with or without a mark, or UTF-16, as Excel saves it."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(head) == 4 and (not any(head[1::2]) or not any(head[::2])):
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def require_root(root: Path) -> Path:
    """The folder that holds the data.

    Raises:
        ConfigError: if there is none, or it is a file.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(root)):
            what = "is an address, which data=shards alone reads"
        raise ConfigError(f"data.root={root} {what}; give the folder that holds the data")
    return root


def require(path: Path) -> Path:
    """An annotation file that must be there.

    Raises:
        DataError: naming the nearest folder that exists and what it holds.
    """
    if look_at(path).is_file():
        return path
    if path.is_dir():
        raise DataError(f"annotation {path} is a folder; name a file under data.reader")
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise DataError(
        f"annotation {path} does not exist; {folder} holds {held}. Check data.root and the names "
        "under data.reader"
    )


@contextmanager
def _opened(path: Path) -> Iterator[_Text]:
    try:
        with require(path).open(encoding=encoding_of(path)) as file:
            yield _Text(path, file)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: {error}; save it as UTF-8 text") from None
    except NOT_JSON as error:
        raise DataError(f"{path} is not JSON: {error}") from None


class _Text:
    """JSON as it comes: what has been read and is not yet parsed, refilled when it runs out."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path = path
        self.file = file
        self.rest = ""
        self.at = 0  # where `rest` is not yet parsed
        self.halves = False  # whether it may have halves of characters
        self.lines = 1  # up to the beginning of `rest`
        self.fresh = False  # whether nobody has tried to parse `rest` at once

    def each_key(self) -> Iterator[str]:
        """The keys of the object that begins here; each one's value is taken before the next."""
        self._enter("{", "object")
        for _ in self._members("}"):
            yield self._key()

    def members(self) -> Iterator[tuple[str, Any]]:
        """Keys and values of the object that begins here."""
        self._enter("{", "object")
        for _ in self._members("}"):
            some = self._at_once(lambda text: pairs_of(f"{{{text}}}"))
            yield from ((self._key(), self.value()),) if some is None else some

    def elements(self) -> Iterator[Any]:
        """The elements of the list that begins here."""
        self._enter("[", "list")
        for _ in self._members("]"):
            some = self._at_once(lambda text: decoded(f"[{text}]"))
            yield from (self.value(),) if some is None else some

    def _at_once(self, parse: Callable[[str], list[Any]]) -> list[Any] | None:
        """The members from here to the last that ends with a bracket, None to take them singly.

        A bracket within a member is none that ends it: what is parsed would lack another one.
        """
        if not self.fresh or self.halves:
            return None
        self.fresh = False
        end = self.rest.rfind("},", self.at) + 1
        try:
            some = parse(self.rest[self.at : end]) if end else None
        except NOT_JSON:  # told by the member that is wrong
            return None
        self.at = end or self.at
        return some

    def _key(self) -> str:
        if self._peek() != '"':
            raise self._wrong("a key in double quotes")
        key: str = self.value()
        if self._peek() != ":":
            raise self._wrong("a colon")
        self.at += 1
        return key

    def value(self) -> Any:
        """The value that begins here."""
        self._peek()
        while True:
            try:
                value, end = decoded(self.rest, self.at)
            except json.JSONDecodeError as error:
                if not self._refill():
                    raise ValueError(f"{error.msg} in line {self._line(error.pos)}") from None
            except ValueError as error:
                raise ValueError(f"{error} in line {self._line(self.at)}") from None
            else:
                if isinstance(value, dict | list | str) or not (
                    MAY_GO_ON.match(self.rest, end) and self._refill()
                ):
                    halves = self.halves and HALF_ESCAPED.search(self.rest, self.at, end)
                    self.at = end
                    return whole_characters(value) if halves else value

    def end(self) -> None:
        """See that nothing follows."""
        if self._peek():
            raise self._wrong("the end of the file")

    def _enter(self, bracket: str, kind: str) -> None:
        if (found := self._peek()) != bracket:
            came = {"{": "an object", "[": "a list", "": "nothing"}.get(found, "a single value")
            raise DataError(f"{self.path} must hold a JSON {kind}, got {came}")
        self.at += 1

    def _members(self, closing: str) -> Iterator[None]:
        """Stops where a member begins, until the brackets close."""
        if self._peek() != closing:
            yield
            while (found := self._peek()) == ",":
                self.at += 1
                yield
            if found != closing:
                raise self._wrong(f"a comma or {closing}")
        self.at += 1

    def _peek(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        if self.at < len(self.rest) and (sign := self.rest[self.at]) > " ":
            return sign
        while True:
            self.at = SPACE.match(self.rest, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.rest):
                return self.rest[self.at]
            if not self._refill():
                return ""

    def _refill(self) -> bool:
        """Read as much again as is not yet parsed; whether there was anything."""
        if len(self.rest) - self.at > MAX_ENTRY_CHARS:
            raise DataError(
                f"{self.path}, line {self._line(self.at)}: one entry has more than "
                f"{MAX_ENTRY_CHARS} characters, or a bracket or quotation mark does not close"
            )
        self.lines = self._line(self.at)
        self.rest, self.at = self.rest[self.at :], 0
        came = self.file.read(max(CHUNK_CHARS, len(self.rest)))
        self.rest += came
        self.halves = HALF_ESCAPED.search(self.rest) is not None
        self.fresh = True
        return bool(came)

    def _line(self, at: int) -> int:
        return self.lines + self.rest.count("\n", 0, at)

    def _wrong(self, expected: str) -> ValueError:
        came = self.rest[self.at : self.at + 20] or "the end of the file"
        return ValueError(f"expected {expected} in line {self._line(self.at)}, got {came!r}")
