"""What is done for a visitor: answers, what they rest on, a film that is watched."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmavlm.core.errors import ConfigError, MmavlmError
from mmavlm.loaded.answers import Said
from mmavlm.loaded.model import LoadedModel
from mmavlm.loaded.talk import Talk
from mmavlm.serve.limits import Limits, RefusedError
from mmavlm.serve.line import Line
from mmavlm.serve.rests import what_it_rests_on
from mmavlm.serve.turns import Event, InTurn, Told, Until
from mmavlm.serve.visits import Film, Visit


@dataclass(frozen=True)
class Question:
    """What is asked of some models, by their numbers; `films` are shown with it."""

    text: str
    models: tuple[int, ...] = (0,)
    films: tuple[str, ...] = ()


@dataclass
class Served:
    """The models that are talked with, and the line in front of them."""

    models: Sequence[LoadedModel]
    limits: Limits
    line: Line = field(init=False)
    talks: Sequence[bool] = field(init=False)  # which of the models answer questions

    def __post_init__(self) -> None:
        self.line = Line(self.limits.waiting)
        self.talks = [_talks(model) for model in self.models]

    @property
    def hears(self) -> bool:
        """Whether any of the models takes sounds in."""
        return any(model.backbone.sound is not None for model in self.models)

    def model(self, number: int) -> LoadedModel:
        """A model by its number.

        Raises:
            RefusedError: if there is none.
        """
        if not 0 <= number < len(self.models):
            raise RefusedError(f"there is no model {number}; expected 0 to {len(self.models) - 1}")
        return self.models[number]

    def answers(self, visit: Visit, asked: Question) -> InTurn:
        """The answers of the models, one after the other, piece by piece."""
        films = [visit.film(film_id) for film_id in asked.films]
        models = [(number, self.model(number)) for number in asked.models]
        if not asked.text.strip():
            raise RefusedError("there is no question; write one")
        told = _without_paths(visit)

        def work(_: InTurn) -> Generator[Event, None, None]:
            until = Until(self.limits.answer_s)
            for number, model in models:
                try:
                    if number not in visit.talks:
                        visit.talks[number] = model.chat()
                    talk = visit.talks[number]
                    talk.chat.waiting = ()  # of a question that failed; its films come again
                    for event in answered(talk, asked.text, films, until):
                        yield {"model": number, **event}
                except MmavlmError as error:
                    if len(models) == 1:
                        raise
                    yield {"model": number, "failed": told(str(error))}

        return InTurn(self.line, work, told)

    def explained(self, visit: Visit, number: int, film_id: str, prompt: str, said: str) -> InTurn:
        """What an answer to a first question about a film rests on."""
        film, model = visit.film(film_id), self.model(number)

        def work(_: InTurn) -> Generator[Event, None, None]:
            yield {"doing": "hiding parts of the film"}
            # one candidate: what is to be explained is given, not looked for
            answer = model.ask(film.path, prompt, candidates=[said])
            yield {"explained": what_it_rests_on(model.explain(answer))}

        return InTurn(self.line, work, _without_paths(visit))

    def watched(self, visit: Visit, number: int, film_id: str, query: str) -> InTurn:
        """The moments of a film that a model watches as it runs."""
        film, model = visit.film(film_id), self.model(number)

        def work(turn: InTurn) -> Generator[Event, None, None]:
            frames, seconds = 0, 0.0
            with model.watch(film.path, query or None) as moments:
                begun = time.monotonic()
                for moment in moments:
                    seconds += time.monotonic() - begun
                    frames += not (moment.query or moment.reply or moment.taken_back)
                    told = {name: value for name, value in vars(moment).items() if value}
                    yield {"moment": {**told, "scores": dict(moment.scores)}}
                    yield from turn.let_others()
                    begun = time.monotonic()
            yield {"seen": {"frames": frames, "frame_s": seconds / max(frames, 1)}}

        return InTurn(self.line, work, _without_paths(visit))


def answered(talk: Talk, text: str, films: Sequence[Film], until: Until) -> Iterator[Event]:
    """An answer piece by piece, and at its end all of it with its probability."""
    begun = time.monotonic()
    for film in films:
        talk.show(film.path, kind=film.kind)
    pieces = talk.stream(text)
    first_s: float | None = None
    try:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                yield _whole(end.value, begun, first_s)
                return
            if first_s is None:
                first_s = time.monotonic() - begun
            yield {"piece": piece}
            until.check()
    finally:
        pieces.close()


def _talks(model: LoadedModel) -> bool:
    """Whether a model answers questions; one of the duet watches films instead."""
    try:
        model.chat()
    except ConfigError:
        return False
    return True


def _whole(said: Said, begun: float, first_s: float | None) -> Event:
    taken: dict[str, Any] = {"seconds": time.monotonic() - begun, "first_s": first_s}
    return {"answer": said.text, "probability": said.probability, "cut": said.cut, **taken}


def _without_paths(visit: Visit) -> Told:
    """Errors name films as their owners do, not where they lie here."""

    def told(text: str) -> str:
        for film in visit.films.values():
            text = text.replace(str(film.path), film.name)
        return text.replace(str(visit.folder), "…")

    return told
