"""The known names that are nearest to one that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

ENOUGH = 0.6  # below that, two names have too little in common


def plain(name: str) -> str:
    """A name without what people write in different ways: case, dashes, underscores."""
    return "".join(sign for sign in name.lower() if sign.isalnum() or sign == ".")


def likeness(name: str, other: str) -> float:
    """How alike two names are, from 0 to 1; one that the other holds is nearly the same."""
    one, two = plain(name), plain(other)
    ratio = SequenceMatcher(None, one, two).ratio()
    held = min(len(one), len(two)) > 2 and (one in two or two in one)
    return max(ratio, 0.8 * held)


def nearest(name: str, known: Iterable[str], most: int = 3, least: int = 0) -> list[str]:
    """At most so many of the known names, nearest first; `least` of them even if none is near."""
    by_likeness = {other: likeness(name, other) for other in known}
    ordered = sorted(by_likeness, key=lambda other: -by_likeness[other])
    near = [other for other in ordered if by_likeness[other] >= ENOUGH]
    return ordered[: min(max(len(near), least), most)]
