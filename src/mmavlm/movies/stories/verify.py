"""An independent judge of questions: it reads their words, and answers from the states of the log.

It never looks at what the log says was done, only at where people and things are from frame to
frame, at what is asked for, and at what is shown. That a question passes therefore says that its
answer follows from the film, not merely from what its author had in mind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from mmavlm.core.errors import DataError
from mmavlm.movies.stories.questions import NUMBERS, PARTS, Question

Row = Mapping[str, Any]


class Change(NamedTuple):
    """A thing that is elsewhere than a frame before: who had it (None: it lay) and who has it."""

    frame: int
    thing: str
    before: str | None
    after: str | None
    location: str

    def done_by(self, actor: str, verb: str) -> bool:
        """Whether the change is `actor` taking it up, putting it down or giving it away."""
        return {
            "take": (None, actor) == (self.before, self.after),
            "put": (actor, None) == (self.before, self.after),
            "give": self.before == actor and self.after is not None,
        }[verb]


Answer = tuple[str, list[int]]
VERBS = {"put down": "put", "puts down": "put", "give away": "give", "gives away": "give",
         "take": "take", "takes": "take", "put": "put", "give": "give"}  # fmt: skip
WHO, THING = r"the (?:wo)?man in the \w+ \w+", r"the \w+ \w+"


class Witness:
    """Has seen the frames [start, end) of a film and answers questions about them."""

    def __init__(self, log: Sequence[Row], start: int, end: int) -> None:
        self.rows = list(log[start:end])
        self.changes = list(_changes(self.rows))

    def answer(self, question: str) -> Answer:
        """The answer and the frames that show it.

        Raises:
            DataError: if the question is of no known kind, or has no answer in these frames.
        """
        for pattern, method in _KINDS:
            found = re.fullmatch(pattern, question)
            if found:
                try:
                    return method(self, *found.groups())
                except (IndexError, StopIteration):
                    raise DataError(f"nothing in the film answers {question!r}") from None
        raise DataError(f"no kind of question is {question!r}")

    def _takes(self, thing: str) -> list[Change]:
        return [c for c in self.changes if c.thing == thing and c.before is None]

    def _first(self, actor: str, verb: str, thing: str | None) -> Change:
        kind = VERBS[verb]
        fits = (c for c in self.changes if thing in (None, c.thing) and c.done_by(actor, kind))
        return next(fits)

    def first_to_take(self, thing: str) -> Answer:
        """Who is the first to take it."""
        take = self._takes(thing)[0]
        return str(take.after), [take.frame]

    def times_taken(self, thing: str) -> Answer:
        """How many times it is taken up."""
        frames = [take.frame for take in self._takes(thing)]
        return _word(len(frames)), frames

    def third(self, thing: str) -> Answer:
        """In which third it is first taken."""
        frame = self._takes(thing)[0].frame
        share = (frame - self.rows[0]["frame"]) / len(self.rows)
        part = PARTS[0] if share < 1 / 3 else PARTS[1] if share < 2 / 3 else PARTS[2]
        return f"in the {part} third", [frame]

    def left_at(self, thing: str) -> Answer:
        """Where it lies at the end."""
        lies = self.rows[-1]["things"][thing]["lies"]
        frame = [c.frame for c in self.changes if c.thing == thing][-1]
        return f"in the {lies}", [frame]

    def holder(self, thing: str) -> Answer:
        """Who has it at the end."""
        frame = [c.frame for c in self.changes if c.thing == thing][-1]
        return str(self.rows[-1]["things"][thing]["held_by"]), [frame]

    def where(self, actor: str, verb: str, thing: str) -> Answer:
        """Where somebody first takes it or puts it down."""
        change = self._first(actor, verb, thing)
        return f"in the {change.location}", [change.frame]

    def to_whom(self, actor: str, thing: str) -> Answer:
        """Who is first given it."""
        change = self._first(actor, "give", thing)
        return str(change.after), [change.frame]

    def why(self, actor: str, verb: str, thing: str) -> Answer:
        """Who asked for it in the same scene, last, before it was taken or given."""
        change = self._first(actor, verb, thing)
        at = next(i for i, row in enumerate(self.rows) if row["frame"] == change.frame)
        scene = (self.rows[at]["chapter"], self.rows[at]["scene"])
        for row in reversed(self.rows[:at]):
            if (row["chapter"], row["scene"]) != scene:
                break
            wish = row["event"]
            if (wish["action"], wish["thing"], wish["to"]) == ("ask", thing, actor):
                asker = wish["actor"]
                rest = "for it" if verb == "give" else f"{actor} to"
                if verb == "give" and change.after != asker:
                    break
                return f"because {asker} asked {rest}", [row["frame"], change.frame]
        raise IndexError("nobody asked")

    def what(self, actor: str, verb: str) -> Answer:
        """What somebody first takes, puts down or gives away."""
        change = self._first(actor, verb, None)
        return change.thing, [change.frame]

    def order(self, *told: str) -> Answer:
        """Which of two things is done first."""
        one = self._first(*told[:3])
        two = self._first(*told[3:])
        earlier = told[:3] if one.frame < two.frame else told[3:]
        return " ".join(earlier), sorted((one.frame, two.frame))

    def places(self) -> Answer:
        """How many different places are shown."""
        frames: dict[str, int] = {}
        for row in reversed(self.rows):
            frames[row["location"]] = row["frame"]
        return _word(len(frames)), sorted(frames.values())

    def next_place(self, place: str) -> Answer:
        """Where the film goes from a place, the first time."""
        shown = [row["location"] for row in self.rows]
        leaves = shown.index(place)
        while shown[leaves] == place:
            leaves += 1
        frame = self.rows[leaves]["frame"]
        return f"to the {shown[leaves]}", [frame - 1, frame]


_KINDS: tuple[tuple[str, Callable[..., Answer]], ...] = (
    (rf"Who is the first to take ({THING})\?", Witness.first_to_take),
    (rf"How many times is ({THING}) taken\?", Witness.times_taken),
    (rf"In which third is ({THING}) first taken\?", Witness.third),
    (rf"Where is ({THING}) left at the end\?", Witness.left_at),
    (rf"Who has ({THING}) at the end\?", Witness.holder),
    (rf"Where does ({WHO}) first (take|put) ({THING})(?: down)?\?", Witness.where),
    (rf"To whom does ({WHO}) first give ({THING})\?", Witness.to_whom),
    (rf"Why does ({WHO}) first (take|give) ({THING})\?", Witness.why),
    (rf"What does ({WHO}) (take|put down|give away) first\?", Witness.what),
    (
        rf"What happens first: ({WHO}) (takes|puts down|gives away) ({THING}), "
        rf"or ({WHO}) (takes|puts down|gives away) ({THING})\?",
        Witness.order,
    ),
    (r"How many different places does the film show\?", Witness.places),
    (r"Where does the film go from the (\w+), the first time\?", Witness.next_place),
)


def verify(asked: Iterable[Question], log: Sequence[Row]) -> None:
    """Answer every question again, and compare answers and evidence.

    Raises:
        DataError: naming the first question whose answer or evidence the log does not bear out.
    """
    witnesses: dict[tuple[int, int], Witness] = {}
    for question in asked:
        span = (question.start, question.end)
        if span not in witnesses:
            witnesses[span] = Witness(log, *span)
        answer, frames = witnesses[span].answer(question.question)
        if (answer, tuple(frames)) != (question.answer, question.evidence):
            raise DataError(
                f"{question.question!r} has the answer {question.answer!r} with frames "
                f"{list(question.evidence)}, but the log says {answer!r} with {frames}"
            )


def _changes(rows: Sequence[Row]) -> Iterable[Change]:
    for before, after in pairwise(rows):
        for thing, now in after["things"].items():
            was, has = before["things"][thing]["held_by"], now["held_by"]
            if was != has:
                yield Change(after["frame"], thing, was, has, after["location"])


def _word(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)
