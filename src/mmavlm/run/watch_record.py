"""What is left of a film that was watched live: events as they came, scores, a report."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from mmavlm.core.redaction import redacted, redacted_address
from mmavlm.core.speaking import SpeakingRule
from mmavlm.data.live import LiveFrame
from mmavlm.metrics.duet.files import write_values
from mmavlm.metrics.duet.matching import matches
from mmavlm.metrics.duet.speaking import TOLERANCE_S
from mmavlm.metrics.duet.watched import EventTruth, Said, Watched
from mmavlm.report import Moment, Report, Timeline, write_report
from mmavlm.report.contents import MomentKind
from mmavlm.run.facts import commit, shown_duration
from mmavlm.run.live_duet import Asked, Event, Removed, Replied, Scored

MOST_FRAMES = 18  # that are kept to be shown; at every moment evenly spaced, to a factor of 2
EVENTS, WATCHED, REPORT = "events.jsonl", "watched.jsonl", "report.html"


class WatchRecord:
    """The folder of a film that is watched.

    events.jsonl has a line an event as soon as it came. At the end, however it came,
    watched.jsonl has all scores in the form that `evaluate` reads, and report.html the timeline.
    """

    def __init__(
        self, folder: Path, config: DictConfig, rule: SpeakingRule, truth: EventTruth | None
    ) -> None:
        self._folder, self._config, self._rule, self._truth = folder, config, rule, truth
        camera = None if config.camera is None else redacted_address(str(config.camera))
        self._source = camera or str(config.video)
        self._times_s: list[float] = []
        self._scores: dict[str, list[float]] = {}
        self._moments: list[Moment] = []
        self._shown: list[tuple[float, NDArray[np.uint8]]] = []
        self._every, self._frames = 1, 0
        self._file: TextIO | None = None

    @property
    def report(self) -> Path:
        """Where the report lies."""
        return self._folder / REPORT

    def __enter__(self) -> WatchRecord:
        """Open the folder; what an earlier film left in it goes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in (WATCHED, REPORT):  # else they would stand beside events of another film
            (self._folder / name).unlink(missing_ok=True)
        self._file = (self._folder / EVENTS).open("w", encoding="utf-8")
        self._began_s = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave what was watched, also where it ended in an error."""
        assert self._file is not None  # it was entered
        self._file.close()
        if self._times_s:
            write_values(self._folder / WATCHED, [self.watched])
        write_report(self.report, self._described())

    def seen(self, frames: Iterable[LiveFrame]) -> Iterator[LiveFrame]:
        """The frames as they come, of which a few are kept to be shown."""
        for given in frames:
            if self._frames % self._every == 0:
                picture = given.frame.permute(1, 2, 0).cpu().numpy().copy()
                self._shown.append((given.time_s, picture))
                if len(self._shown) > MOST_FRAMES:
                    self._shown, self._every = self._shown[::2], 2 * self._every
            self._frames += 1
            yield given

    def take(self, event: Event) -> None:
        """Write an event, and keep what the picture shows of it."""
        assert self._file is not None  # it was entered
        self._file.write(json.dumps(as_row(event), ensure_ascii=False) + "\n")
        self._file.flush()
        if isinstance(event, Scored):
            self._times_s.append(event.time_s)
            for head, score in event.scores.items():
                self._scores.setdefault(head, []).append(score)
        elif isinstance(event, Removed):
            self._at(event.time_s, "taken back", f"{event.text} ({event.why})")
        elif isinstance(event, Asked | Replied):
            self._at(event.time_s, "asked" if isinstance(event, Asked) else "said", event.text)

    def _at(self, time_s: float, kind: MomentKind, text: str) -> None:
        self._moments.append(Moment(kind, time_s, time_s, text))

    @property
    def watched(self) -> Watched:
        """What was scored and said, as `evaluate` reads it."""
        times_s = self._times_s
        step_s = times_s[-1] - times_s[-2] if len(times_s) > 1 else 0.0
        name = Path(self._source).stem if self._truth is None else self._truth.question_id
        said, asked = (
            tuple(Said(m.start_s, m.text) for m in self._moments if m.kind == kind)
            for kind in ("said", "asked")
        )
        scores = {head: tuple(values) for head, values in self._scores.items()}
        return Watched(name, times_s[-1] + step_s, tuple(times_s), scores, said, asked)

    def _described(self) -> Report:
        truth = () if self._truth is None else self._truth.events
        true = [Moment("true", event.start_s, event.end_s, event.text) for event in truth]
        frames = np.stack([picture for _, picture in self._shown]) if self._shown else None
        of_score = self._rule.by == "probability" and len(self._rule.heads) == 1
        line = Timeline(
            Path(self._source).name,
            self._times_s,
            self._scores,
            [*self._moments, *true],
            self._rule.in_words,
            self._rule.threshold if of_score else None,
            frames,
            [time_s for time_s, _ in self._shown],
        )
        config: Any = OmegaConf.to_container(self._config, resolve=True)
        config["camera"] = config["camera"] and self._source
        return Report(
            title=f"watched: {Path(self._source).name}",
            lead=self._lead(),
            facts=self._facts(),
            timelines=[line] if self._times_s else [],
            config_yaml=OmegaConf.to_yaml(redacted(config)),
        )

    def _lead(self) -> list[str]:
        if not self._times_s:
            return ["No frame came, so there is nothing to be shown."]
        replies_s = [moment.start_s for moment in self._moments if moment.kind == "said"]
        spoke = {0: "did not speak", 1: "spoke once"}
        often = spoke.get(len(replies_s), f"spoke {len(replies_s)} times")
        said = [f"The model {often} in {self.watched.duration_s:.1f} s of film."]
        if self._truth is not None:
            events = self._truth.events
            told = len(matches(events, replies_s, TOLERANCE_S))
            said.append(f"{told} of {len(events)} events were told within {TOLERANCE_S:g} s.")
        return said

    def _facts(self) -> dict[str, str]:
        took_s = time.monotonic() - self._began_s
        frames = len(self._times_s)
        known = {
            "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            "took": shown_duration(took_s),
            "watched": self._source,
            "frames": f"{frames}, {1000 * took_s / max(frames, 1):.0f} ms each",
            "checkpoint": str(self._config.checkpoint or "none"),
            "commit": commit(Path.cwd()),
            "mmavlm": version("mmavlm"),
            "torch": f"{torch.__version__}, Python {platform.python_version()}, {sys.platform}",
        }
        return {name: text for name, text in known.items() if text}


def as_row(event: Event) -> dict[str, Any]:
    """An event as plain values; `event` says which it is."""
    return {"event": type(event).__name__.lower(), **asdict(event)}
