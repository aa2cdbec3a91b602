"""Ways to damage the rows of an annotation, each drawn from a random generator."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RAW = "@raw@"  # begins what stands in a file as it is, and no JSON writer would write


@dataclass(frozen=True)
class Damage:
    """What was done to the rows of a set: the key of a damaged value, and what it may become.

    `never` says that the value cannot be meant under any key, `is_list` that it is a list of texts;
    `written` are texts of the file to be replaced, which no JSON writer would write.
    """

    what: str
    key: str | None = None
    never: bool = False
    is_list: bool = False
    table: bool = False
    written: dict[str, str] = field(default_factory=dict)

    def may_say(self, text: str) -> bool:
        """Whether a text that looks like a Python form is in the file as a text."""
        return self.table and text in ("True", "False", "inf", "1e+300", "-1e+300")


MARK = "@damaged@"
# Values under any key of a row: name, value, whether it can be meant nowhere. Texts in brackets
# stand in the file as they are.
HOSTILE: tuple[tuple[str, Any, bool], ...] = (
    ("list of texts", ["a dog", "one dog"], True), ("list of a number", [3], True),
    ("empty list", [], True), ("list of null", [None], True), ("list of lists", [["a"]], True),
    ("dict", {"a": "dog"}, True), ("empty dict", {}, True), ("true", True, True),
    ("false", False, True), ("null", None, False), ("empty", "", False), ("blank", "   ", True),
    ("blank lines", "\n\t\r\n", True), ("invisible", "\u200b\u2060", True), ("NUL", "a\0b", True),
    ("NaN", RAW + "NaN", False), ("Infinity", RAW + "-Infinity", True),
    ("1e999", RAW + "1e999", True), ("huge number", RAW + "1" * 5000, True),
    ("large float", 1e300, True), ("number", 7, False), ("zero", 0, False),
    ("negative", -3, False), ("decimal", 2.5, False), ("word NaN", "NaN", True),
    ("word nan", "nan", True), ("word None", "None", True), ("word N/A", "N/A", True),
    ("word null", "null", True), ("Python list", "['a dog', 'one dog']", True),
    ("Python dict", "{'a': 'dog'}", True), ("Python tuple", "('a', 'b')", True),
    ("Python list of None", "[None]", True), ("Python bytes", "b'dog'", True),
    ("half a character", RAW + '"\\ud800"', False), ("emoji", "a 🐕", False),
    ("apart", "e\u0301te\u0301", False), ("composed", "été", False), ("long", "a" * 200_000, False),
    ("nested", RAW + "[" * 500 + "]" * 500, True), ("nested deep", RAW + "[" * 9000, False),
    ("markup", "<script>alert(1)</script>", False), ("path out", "../../outside", False),
    ("drive", "C:\\films\\a", False), ("backslash", "clips\\film0.mp4", False),
    ("clock", "00:00:01,5", False), ("comma", "1,5", False), ("underscore", "1_000", False),
)  # fmt: skip
# What a cell of a table cannot hold otherwise than as text.
NO_CELL = {"NaN", "Infinity", "1e999", "huge number", "half a character", "nested", "nested deep",
           "list of a number", "list of lists", "true", "false", "large float"}  # fmt: skip


def damage_value(content: Any, random: np.random.Generator, *, table: bool) -> Damage:
    """Put something else under a key of a row, or take, rename or double a key; in place."""
    row = _some_row(content, random)
    key = list(row)[random.integers(len(row))]
    draw = random.random()
    if draw < 0.1:
        del row[key]
        return Damage("key missing", None if table else key)
    if draw < 0.2:
        row[key.upper() if draw < 0.15 else f"{key}_"] = row.pop(key)
        return Damage("key renamed", None if table else key)
    if draw < 0.25 and not table:
        value = json.dumps(row[key])
        row[key] = MARK
        return Damage("key twice", key, True,
                      written={f'"{MARK}"': f'{value}, {json.dumps(key)}: {value}'})  # fmt: skip
    name, value, never = HOSTILE[random.integers(len(HOSTILE))]
    if table and name in NO_CELL:
        name, value, never = "word NaN", "NaN", True
    written = {}
    if isinstance(value, str) and value.startswith(RAW):
        row[key], written = MARK, {f'"{MARK}"': value.removeprefix(RAW)}
    else:
        row[key] = copy.deepcopy(value)
    whole_file = name == "nested deep"
    never = never and not (table and name in ("empty list", "blank"))
    texts = name in ("list of texts", "Python list", "empty list", "list of a number")
    return Damage(name, None if whole_file else key, never, texts, table, written)


def _some_row(content: Any, random: np.random.Generator) -> dict[str, Any]:
    """An object within the content that has values of its own."""
    found = [one for one in _objects(content) if not any(map(_holds_objects, one.values()))]
    return found[random.integers(len(found))]


def _objects(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, dict):
        yield content
    for one in content.values() if isinstance(content, dict) else content:
        if isinstance(one, dict | list):
            yield from _objects(one)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(one, dict) for one in value)
    )


def marked(text: str, random: np.random.Generator) -> bytes:
    """A byte order mark in front, and the ends of lines as on Windows."""
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8-sig")


def as_utf_16(text: str, random: np.random.Generator) -> bytes:
    """As Excel saves it, with or without a mark."""
    return text.encode(("utf-16", "utf-16-le", "utf-16-be")[random.integers(3)])


def as_latin_1(text: str, random: np.random.Generator) -> bytes:
    """Letters with accents in another encoding."""
    return text.replace("o", "ö").encode("latin-1")


def cut_short(text: str, random: np.random.Generator) -> bytes:
    """The end is missing."""
    return text.encode()[: random.integers(1, len(text))]


def signs_changed(text: str, random: np.random.Generator) -> bytes:
    """One to eight signs are others, those of JSON and tables among them."""
    signs = list(text)
    for at in random.integers(0, len(signs), random.integers(1, 9)):
        signs[at] = '"{}[],:;|\\\n\t\0é\u2028'[random.integers(15)]
    return "".join(signs).encode()


def lines_swapped(text: str, random: np.random.Generator) -> bytes:
    """Lines in another order, and blank ones between them."""
    lines = text.splitlines()
    head, rows = lines[:1], lines[1:]
    return "\n\n".join([*head, *(rows[i] for i in random.permutation(len(rows)))]).encode()


def line_doubled(text: str, random: np.random.Generator) -> bytes:
    """One line stands twice."""
    lines = text.splitlines()
    at = random.integers(len(lines))
    return "\n".join([*lines[: at + 1], *lines[at:]]).encode()


OF_TEXTS: tuple[Callable[[str, np.random.Generator], bytes], ...] = (
    marked, as_utf_16, as_latin_1, cut_short, signs_changed, signs_changed, lines_swapped,
    line_doubled,
)  # fmt: skip
