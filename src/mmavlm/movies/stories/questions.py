"""Questions about a stretch of film, with answers and evidence that are true by construction.

They are read off the events of the log. `verify.py` answers them again from the states alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

Row = Mapping[str, Any]
Category = Literal["who", "where", "what", "why", "order", "count", "temporal"]
CATEGORIES: tuple[Category, ...] = ("who", "where", "what", "why", "order", "count", "temporal")
PARTS = ("first", "second", "last")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Question:
    """A question about the frames [start, end) of a film; `evidence` are frames that answer it."""

    category: Category
    question: str
    answer: str
    evidence: tuple[int, ...]
    start: int
    end: int


def questions(log: Sequence[Row], start: int, end: int) -> list[Question]:
    """All that can be asked of the frames [start, end) of a film, whose answer is one alone."""
    rows = log[start:end]
    return [
        Question(category, text, answer, tuple(sorted(set(evidence))), start, end)
        for category, text, answer, evidence in _all(rows)
    ]


def choose(asked: Sequence[Question], per_category: int, seed: int) -> list[Question]:
    """At most so many of each category, drawn at random, in the order of the categories."""
    rng = np.random.default_rng(seed)
    chosen: list[Question] = []
    for category in CATEGORIES:
        own = [question for question in asked if question.category == category]
        chosen += [own[int(i)] for i in sorted(rng.permutation(len(own))[:per_category])]
    return chosen


Asked = tuple[Category, str, str, Sequence[int]]


def _all(rows: Sequence[Row]) -> Iterator[Asked]:
    done: dict[tuple[str, str, str], Row] = {}  # (actor, action, thing) → its first time
    taken: dict[str, list[Row]] = defaultdict(list)
    first: dict[tuple[str, str], Row] = {}  # (actor, action) → its first time
    for row in rows:
        event = row["event"]
        if event["action"] in ("take", "put", "give"):
            done.setdefault((event["actor"], event["action"], event["thing"]), row)
            first.setdefault((event["actor"], event["action"]), row)
        if event["action"] == "take":
            taken[event["thing"]].append(row)
    yield from _of_things(taken, rows)
    yield from _of_deeds(done)
    yield from _of_people(first)
    yield from _order(list(done.values()))
    yield from _of_places(rows)


def _of_things(taken: Mapping[str, Sequence[Row]], rows: Sequence[Row]) -> Iterator[Asked]:
    for thing, takes in taken.items():
        frame, total = takes[0]["frame"], len(rows)
        yield "who", f"Who is the first to take {thing}?", takes[0]["event"]["actor"], [frame]
        times = [row["frame"] for row in takes]
        yield "count", f"How many times is {thing} taken?", _number(len(times)), times
        part = PARTS[3 * (frame - rows[0]["frame"]) // total]
        yield "temporal", f"In which third is {thing} first taken?", f"in the {part} third", [frame]
    last: dict[str, Row] = {}
    for row in rows:
        if row["event"]["action"] in ("take", "give", "put"):
            last[row["event"]["thing"]] = row
    for thing, row in last.items():
        event = row["event"]
        if event["action"] == "put":
            where = f"in the {row['location']}"
            yield "where", f"Where is {thing} left at the end?", where, [row["frame"]]
        else:
            holder = event["to"] if event["action"] == "give" else event["actor"]
            yield "who", f"Who has {thing} at the end?", holder, [row["frame"]]


def _of_deeds(done: Mapping[tuple[str, str, str], Row]) -> Iterator[Asked]:
    for (actor, action, thing), row in done.items():
        frame, where = row["frame"], f"in the {row['location']}"
        if action == "take":
            yield "where", f"Where does {actor} first take {thing}?", where, [frame]
        if action == "put":
            yield "where", f"Where does {actor} first put {thing} down?", where, [frame]
        if action == "give":
            yield "who", f"To whom does {actor} first give {thing}?", row["event"]["to"], [frame]
        if row["because"] is not None and action in ("take", "give"):
            asker = row["asked_by"]
            why = f"because {asker} asked for it"
            if action == "take":
                why = f"because {asker} asked {actor} to"
            yield "why", f"Why does {actor} first {action} {thing}?", why, [row["because"], frame]


def _of_people(first: Mapping[tuple[str, str], Row]) -> Iterator[Asked]:
    for (actor, action), row in first.items():
        verb = {"take": "take", "put": "put down", "give": "give away"}[action]
        yield "what", f"What does {actor} {verb} first?", row["event"]["thing"], [row["frame"]]


def _order(deeds: Sequence[Row]) -> Iterator[Asked]:
    """Pairs of first times that follow each other; the earlier stands first in every other one."""
    for number, (one, two) in enumerate(pairwise(deeds)):
        told = [_told(one), _told(two)]
        a, b = told if number % 2 else told[::-1]
        frames = [one["frame"], two["frame"]]
        yield "order", f"What happens first: {a}, or {b}?", told[0], frames


def _told(row: Row) -> str:
    event = row["event"]
    verb = {"take": "takes", "put": "puts down", "give": "gives away"}[event["action"]]
    return f"{event['actor']} {verb} {event['thing']}"


def _of_places(rows: Sequence[Row]) -> Iterator[Asked]:
    runs = [rows[0]]  # the first frame of every stretch in one place
    for row in rows:
        if row["location"] != runs[-1]["location"]:
            runs.append(row)
    if len(runs) < 2:
        return
    opening: dict[str, int] = {}
    for row in runs:
        opening.setdefault(row["location"], row["frame"])
    text = "How many different places does the film show?"
    yield "count", text, _number(len(opening)), list(opening.values())
    seen: set[str] = set()
    for here, there in pairwise(runs):
        if here["location"] not in seen:
            asked = f"Where does the film go from the {here['location']}, the first time?"
            frames = [there["frame"] - 1, there["frame"]]
            yield "temporal", asked, f"to the {there['location']}", frames
        seen.add(here["location"])


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)
