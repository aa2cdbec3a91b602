"""A model that watches a film as it runs, scores its frames and speaks when there is something new.

    for event in duet.watch(film_frames(path, 2.0, duet.image_size), [Said(0.0, "what happens?")]):
        print(event)

The film may be a file, a camera, or any iterable of frames; see `data.live`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from queue import SimpleQueue

import torch
from torch import Tensor

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.generation import Generation
from mmavlm.core.settings import whole_at_least
from mmavlm.core.speaking import SILENT, SpeakingRule
from mmavlm.core.turns import Turn
from mmavlm.data.live import LiveFrame
from mmavlm.metrics.duet.matching import plain
from mmavlm.metrics.duet.watched import Said
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.live_film import LiveFilm
from mmavlm.model.llm.prompted import PromptedLanguageModel
from mmavlm.model.llm.stream_session import ONE_ANSWER


@dataclass(frozen=True, slots=True)
class Scored:
    """A frame was seen. `scores` are those of the heads; `total` is what the rule goes by."""

    time_s: float
    scores: Mapping[str, float]
    total: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A user's text was read, in front of the frame at this time."""

    time_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Replied:
    """The model said something behind the frame at this time."""

    time_s: float
    text: str
    log_prob: float


@dataclass(frozen=True, slots=True)
class Removed:
    """A reply was taken back, and the model forgets it: `why` says whether it was given before."""

    time_s: float
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Missed:
    """So many frames came and went, since the model was slower than the film."""

    time_s: float
    frames: int


Event = Scored | Asked | Replied | Removed | Missed
FORGOTTEN, REPEATED, EMPTY = "not kept", "repeats the last reply", "empty"


@dataclass(frozen=True)
class Habits:
    """How a model takes part: by which rule it speaks, how it answers, what it remembers.

    `window` is the most tokens that are remembered (None: all). Without `keep_replies` the model
    forgets each reply once it was given (MMDuet's "remove assistant turns"). Unless it may `repeat`
    itself, a reply equal to the last one is not given. `system` is said first.

    Raises:
        ConfigError: if a setting is no such number, or a reply fills the window.
    """

    speak: SpeakingRule
    generation: Generation = ONE_ANSWER
    window: int | None = None
    keep_replies: bool = True
    repeat: bool = False
    system: str | None = None

    def __post_init__(self) -> None:
        whole_at_least("", 1, window=self.window)
        longest = self.generation.max_new_tokens
        if self.window is not None and self.window <= longest:  # hours before the first reply
            raise ConfigError(
                f"window={self.window} has no room for a reply of max_new_tokens={longest} and for "
                "what it is about; raise window, or lower max_new_tokens"
            )


class LiveDuet:
    """One film that a model watches, and the conversation meanwhile.

    Raises:
        ConfigError: if the model has no heads, or not those of the rule, or cannot watch a film as
            it runs.
    """

    def __init__(self, model: VideoLanguageModel, habits: Habits) -> None:
        if not isinstance(model.llm, PromptedLanguageModel):
            raise ConfigError(
                f"{type(model.llm).__name__} cannot watch a film as it runs; choose an llm of "
                "transformers"
            )
        self._heads = model.require_heads()
        if unknown := [name for name in habits.speak.heads if name not in self._heads.names]:
            raise ConfigError(
                f"speak.heads names {', '.join(unknown)}; this model's heads are "
                f"{', '.join(self._heads.names)}"
            )
        self._model, self._habits = model.eval(), habits
        # which refuses what cannot be watched, before a film is opened
        latest = LiveFilm(model.vision, "").latest
        self._film: LiveFilm | None = None
        self._session = model.llm.watching(latest=latest, window=habits.window)
        self._guide = ""
        self._listening = SILENT
        self._time_s: float | None = None
        self._to_speak = False
        self._last_reply: str | None = None
        self._frame: LiveFrame | None = None  # that has come and was not seen
        self._queries: deque[Said] = deque()
        self._typed: SimpleQueue[str] = SimpleQueue()
        if habits.system is not None:
            self._session.say(Turn("system", (habits.system,)))

    @property
    def image_size(self) -> int:
        """The side in pixels of the frames that `watch` takes."""
        return self._model.vision.encoder.image_size

    @property
    def num_tokens(self) -> int:
        """How many tokens the model remembers."""
        return self._session.num_tokens

    def ask(self, text: str) -> None:
        """Say something in front of the next frame; from any thread, also while the model speaks.

        Raises:
            DataError: if there is nothing in it.
        """
        Turn("user", (text,))  # which refuses an empty one here, where it was typed
        self._typed.put(text)

    @property
    def waiting(self) -> tuple[Said, ...]:
        """The queries whose time has not come."""
        return tuple(self._queries)

    def watch(self, frames: Iterable[LiveFrame], queries: Iterable[Said] = ()) -> Iterator[Event]:
        """What happens at each of the frames, as they come.

        `queries`, in order of time, are each read in front of the first frame that is not earlier.
        What was typed (`ask`) when the frames end is read then, and answered. A film may be left at
        any event and watched on by another call: nothing is lost or done twice.

        Raises:
            DataError: if a frame is none of its size, or not later than the one before, or queries
                are out of order.
            TooLongError: if the model has too few positions; set a `window`.
        """
        self._take_queries(queries)
        yield from self._speak()
        if self._frame is not None:
            yield from self._at(self._frame)
        for given in frames:
            self._check(given)
            if self._time_s is not None and given.time_s <= self._time_s:
                raise DataError(
                    f"a frame at {given.time_s:g} s follows one at {self._time_s:g} s; frames of "
                    "a film must come in order of time"
                )
            self._frame = given
            if given.missed:
                yield Missed(given.time_s, given.missed)
            yield from self._at(given)
        for asked in self._listen(self._time_s or 0.0):
            self._to_speak = self._film is not None
            yield asked
        yield from self._speak()

    def _check(self, given: LiveFrame) -> None:
        size = (3, self.image_size, self.image_size)
        if not isinstance(given, LiveFrame) or given.frame.shape != size:
            what = f"of {(*given.frame.shape,)}" if isinstance(given, LiveFrame) else "none"
            raise DataError(
                f"a frame is {what}; expected a LiveFrame of {size}, which data.live.given_frames "
                "makes of any picture"
            )

    def _take_queries(self, queries: Iterable[Said]) -> None:
        self._queries.extend(queries)
        for before, said in pairwise(self._queries):
            if said.time_s < before.time_s:
                self._queries.clear()
                raise DataError(
                    f"a query at {said.time_s:g} s follows one at {before.time_s:g} s; give them "
                    "in order of time"
                )

    def _at(self, given: LiveFrame) -> Iterator[Event]:
        """What happens at a frame."""
        yield from self._listen(given.time_s)
        scored, self._frame = self._see(given), None
        yield scored
        yield from self._speak()

    def _listen(self, time_s: float) -> Iterator[Asked]:
        """Read the queries that are due, and what was typed meanwhile."""
        while self._queries and self._queries[0].time_s <= time_s:
            asked = self._say(self._queries[0].text, time_s)
            self._queries.popleft()
            yield asked
        while not self._typed.empty():
            yield self._say(self._typed.get(), time_s)

    def _say(self, text: str, time_s: float) -> Asked:
        self._session.say(Turn("user", (text,)))
        self._guide = text
        return Asked(time_s, text)

    def _see(self, given: LiveFrame) -> Scored:
        # As in training, the film is seen under what was asked before its first frame.
        if self._film is None:
            self._film = LiveFilm(self._model.vision, self._guide)
        state = self._session.see(self._film.see(given.frame), given.time_s)
        self._time_s = given.time_s
        scores = self._scores(state)
        total = sum(scores[name] for name in self._habits.speak.heads)
        rule = self._habits.speak
        self._listening, self._to_speak = rule.step(self._listening, given.time_s, total)
        return Scored(given.time_s, scores, total)

    @torch.no_grad()
    def _scores(self, state: Tensor) -> dict[str, float]:
        """The scores of a frame by its state (H,): here alone the film waits for the device."""
        values = self._heads.scores(state[None])[0].tolist()
        return dict(zip(self._heads.names, values, strict=True))

    def _speak(self) -> Iterator[Replied | Removed]:
        """What the model says where the rule has it speak."""
        if not self._to_speak or self._time_s is None:
            return
        time_s, habits = self._time_s, self._habits
        answer = self._session.reply(
            habits.generation, keep=lambda text: habits.keep_replies and not self._repeats(text)
        )
        self._to_speak = False
        if not answer.text:
            yield Removed(time_s, "", EMPTY)
            return
        if self._repeats(answer.text):
            yield Removed(time_s, answer.text, REPEATED)
            return
        self._last_reply = plain(answer.text)
        yield Replied(time_s, answer.text, answer.log_prob)
        if not habits.keep_replies:
            yield Removed(time_s, answer.text, FORGOTTEN)

    def _repeats(self, text: str) -> bool:
        return not self._habits.repeat and plain(text) == self._last_reply
