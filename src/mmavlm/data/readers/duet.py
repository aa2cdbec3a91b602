"""What readers of films share that run while others speak (MMDuet, arXiv 2411.17991)."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.settings import above_zero, at_least, seed_given
from mmavlm.core.streams import INFORMATIVE
from mmavlm.core.turns import FIRST, FrameLabels, Span, Turn
from mmavlm.data.readers.annotations import SplitFiles, SplitNames, refuse_task
from mmavlm.data.readers.entries import Found, SkippingReader, usable
from mmavlm.data.readers.held_out import HeldOut
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.timed import VIDEO, Answer, Insertion, Said
from mmavlm.data.sources import film_at

TRUTH = "truth"  # the key in an item's `meta` of what evaluation compares with


class DuetReader(SkippingReader):
    """Rows about one film each, of which conversations are made.

    Annotations lie in the folder `folder`, films in the folder `videos`, both below the root.
    `system` is what the system says first, None for nothing. `held_out` is the share of the films
    of training that is for validation instead; with 0 that has a file of its own. What is drawn
    follows from `seed` and the item's id. `fps` is at how many frames a second films are seen,
    where that is known. See `SplitFiles` for the names of files.

    Raises:
        ConfigError: if a setting cannot be.
    """

    layout: Layout

    def __init__(
        self,
        folder: str = ".",
        videos: str = "videos",
        system: str | None = None,
        held_out: float = 0,
        seed: int = 42,
        fps: float | None = None,
        **named: Unpack[SplitNames],
    ) -> None:
        seed_given("data.reader", seed)
        above_zero("data.reader", fps=fps)
        self.files = SplitFiles(folder, self.layout, **named)
        self.held_out = HeldOut(held_out, *VIDEO, test=False)
        self.videos = videos
        self.system = system
        self.seed = seed
        self.fps = fps

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """The items of a split, and row → reason of what was left out.

        Raises:
            ConfigError: if a task is given.
            DataError: if the file is missing or broken.
        """
        refuse_task(task, "films that run while others speak")
        of = "train" if self.held_out.share and split == "val" else split
        rows = self.rows(Path(root), of)
        if of == "train":
            rows = self.held_out.of(split, rows)
        videos = Path(root) / self.videos
        return usable(
            ((row.place, row) for row in rows),
            lambda _, row: self.items(row, partial(_film, videos, row), split),
            layout=self.layout,
        )

    def rows(self, root: Path, split: str) -> Iterator[Row]:
        """The rows of a split's file."""
        return self.files.rows(root, split)

    @abstractmethod
    def items(self, row: Row, film: Callable[..., Medium], split: str) -> list[Item]:
        """The items of a row; `film` gives that of a name and, if given, of a stretch."""

    def drawn(self, *names: str) -> random.Random:
        """Draws that follow from the seed and these names alone."""
        return random.Random("/".join((str(self.seed), *names)))

    def one_of(self, texts: Sequence[str], *names: str) -> str:
        """One of some texts, drawn."""
        return texts[int(self.drawn(*names).random() * len(texts))]

    def opened(self, turns: Iterable[Turn]) -> tuple[Turn, ...]:
        """Turns behind what the system says."""
        first = () if self.system is None else (Turn("system", (self.system,)),)
        return (*first, *turns)


def _film(videos: Path, row: Row, name: str, start_s: float = 0.0) -> Medium:
    path = row.below(videos, name, "video")
    source = path if path.is_dir() else film_at(path)
    return Medium(medium_id=name, source=source, start_s=start_s)


class AnsweringReader(DuetReader):
    """Rows with answers that are given while a film runs; see `Insertion` for `insert_at`.

    An answer is awaited from the share `awaited_from` of the span it tells of: frames are
    informative from there up to the answer. With `rest` the film goes on behind the last answer in
    training, as it does elsewhere.

    Raises:
        ConfigError: if a setting cannot be.
    """

    def __init__(
        self,
        insert_at: float | Sequence[float] | None = None,
        awaited_from: float = 0.5,
        rest: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        at_least("data.reader", 0, awaited_from=awaited_from)
        if awaited_from > 1:
            raise ConfigError(
                f"data.reader.awaited_from={awaited_from}; give a share of the span from 0 to 1"
            )
        self.insertion = Insertion(insert_at)
        self.awaited_from = awaited_from
        self.rest = rest

    def said(self, answers: Iterable[Answer], name: str) -> list[Said]:
        """The answers of an item at the seconds at which they are said."""
        numbered = enumerate(answers)
        return [self.insertion.said(one, self.drawn(name, str(number))) for number, one in numbered]

    def answered(self, said: Iterable[Said], film: Medium, split: str) -> tuple[Turn, ...]:
        """The turns of what is said while a film runs in a split."""
        rest = self.rest or split != "train"
        return self.opened(answered(said, film, rest=rest, awaited_from=self.awaited_from))


def answered(
    said: Iterable[Said], film: Medium, *, rest: bool, awaited_from: float
) -> Iterator[Turn]:
    """The turns of what is said while a film runs, and the streams between, with labels.

    An answer that repeats the one before it is left out; for the rest see `AnsweringReader`.
    """
    last: Said | None = None
    for one in sorted(said, key=lambda one: one.time_s):
        answers = one.role == "assistant"
        if answers and last is not None and (one.role, one.text) == (last.role, last.text):
            continue
        if answers or one.time_s > film.start_s:
            yield _stream(one.time_s, _awaited(one, awaited_from) if answers else ())
        yield Turn(one.role, (one.text,), learned=answers and one.learned)
        last = one
    if rest or last is None or last.role == "user":
        yield _stream(None, ())


def _awaited(answer: Said, share: float) -> tuple[Span, ...]:
    """From when on an answer could be given, until it is."""
    start_s, stop_s = answer.span_s or (answer.time_s, answer.time_s)
    return ((min(start_s + share * (stop_s - start_s), answer.time_s), answer.time_s),)


def _stream(until_s: float | None, spans_s: tuple[Span, ...]) -> Turn:
    return Turn("stream", (FIRST,), until_s=until_s, labels=(FrameLabels(INFORMATIVE, spans_s),))


def item(
    name: str, task: str, turns: Iterable[Turn], film: Medium, truth: dict[str, Any] | None
) -> Item:
    """An item of one film, with what evaluation compares with."""
    talk = Conversation(tuple(turns), (film,))
    return Item(
        item_id=name,
        conversation=talk,
        task=task,
        meta={} if truth is None else {TRUTH: truth},
    )


def event_truth(name: str, film: Medium, said: Sequence[Said]) -> dict[str, Any]:
    """What is to be said of a film, as a row of a truth file: questions, and answers with times."""
    answers = [one for one in said if one.role == "assistant"]
    spans = [one.span_s or (one.time_s, one.time_s) for one in answers]
    return truth(
        name,
        film,
        [(a, b, one.text) for (a, b), one in zip(spans, answers, strict=True)],
        [one for one in said if one.role == "user"],
    )


def truth(
    name: str, film: Medium, events: Iterable[tuple[float, float, str]], asked: Iterable[Said]
) -> dict[str, Any]:
    """A row of a truth file: what happens from when to when, and what is asked when."""
    return {
        "question_id": name,
        "video_id": film.medium_id,
        "events": [{"start_s": a, "end_s": b, "text": text} for a, b, text in events],
        "queries": [{"time_s": one.time_s, "text": one.text} for one in asked],
    }
