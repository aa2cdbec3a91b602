"""A film or a camera watched by a loaded model, moment by moment."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from mmavlm.data.live import given_frames
from mmavlm.metrics.duet.watched import Said as Query
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.run.live_duet import Asked, Event, LiveDuet, Missed, Removed, Replied, Scored
from mmavlm.run.watching import frames_of, habits_of, queries_of, rule_of

log = logging.getLogger(__name__)

Pictures = Iterable[tuple[float, Any]]  # times in seconds, ascending, and pictures


@dataclass(frozen=True)
class Moment:
    """What happened at a time of a film, in seconds.

    `scores` are those of the newest frame, by the names of the model's heads, and `total` what the
    rule goes by. Of the others at most one is there: `reply` is what the model said, `query` what
    it was told, `taken_back` a reply that it repeated or does not keep, and `missed` counts frames
    that came and went since the model was slower.
    """

    time_s: float
    scores: Mapping[str, float] = field(default_factory=dict)
    total: float = 0.0
    reply: str | None = None
    query: str | None = None
    taken_back: str | None = None
    missed: int = 0

    def __repr__(self) -> str:
        told = [f"{name} {score:.2f}" for name, score in self.scores.items()]
        texts = {"reply": self.reply, "query": self.query, "taken back": self.taken_back}
        told += [f"{name} {text!r}" for name, text in texts.items() if text is not None]
        if self.missed:
            told.append(f"missed {self.missed} frames")
        return f"<{self.time_s:.1f} s: {', '.join(told)}>"


class Watching:
    """The moments of one film, as they come; `ask` says something meanwhile, from any thread.

    Film or camera are opened with the first moment, and closed with the last, or by `close`.
    """

    def __init__(
        self, model: VideoLanguageModel, config: DictConfig, pictures: Pictures | None = None
    ) -> None:
        self._config, self._pictures = config, pictures
        self._queries = queries_of(config.query, config.queries)
        self.duet = LiveDuet(model, habits_of(config, rule_of(config)))
        self._newest = Moment(0.0)
        self._moments = self._watched()

    def ask(self, text: str) -> None:
        """Say something in front of the next frame.

        Raises:
            DataError: if there is nothing in it.
        """
        self.duet.ask(text)

    @property
    def waiting(self) -> tuple[Query, ...]:
        """Queries whose time has not come, and at the film's end those never asked."""
        return self.duet.waiting

    def close(self) -> None:
        """End it here, and close the camera."""
        self._moments.close()

    def __iter__(self) -> Iterator[Moment]:
        return self

    def __next__(self) -> Moment:
        return next(self._moments)

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        of = self._config.video or ("pictures" if self._pictures is not None else "a camera")
        return f"<watching {of}, at {self._newest.time_s:.1f} s>"

    def _watched(self) -> Generator[Moment, None, None]:
        if self._pictures is not None:
            frames = given_frames(self._pictures, self.duet.image_size)
            yield from map(self._moment, self.duet.watch(frames, self._queries))
            return
        with frames_of(self._config, self.duet.image_size, log.warning) as shown:
            yield from map(self._moment, self.duet.watch(shown, self._queries))

    def _moment(self, event: Event) -> Moment:
        if isinstance(event, Scored):
            self._newest = Moment(event.time_s, event.scores, event.total)
            return self._newest
        what: dict[str, Any] = {}
        if isinstance(event, Replied):
            what["reply"] = event.text
        elif isinstance(event, Asked):
            what["query"] = event.text
        elif isinstance(event, Removed):
            what["taken_back"] = event.text
        elif isinstance(event, Missed):
            what["missed"] = event.frames
        return Moment(event.time_s, self._newest.scores, self._newest.total, **what)
