"""The command that watches: a film or a camera, what is typed meanwhile, and what is left of it."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmavlm.callbacks.signals import exit_status
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.generation import Generation
from mmavlm.core.settings import at_least
from mmavlm.core.speaking import SpeakingRule
from mmavlm.core.turns import Turn
from mmavlm.data.camera import Camera
from mmavlm.data.live import LiveFrame, film_frames
from mmavlm.metrics.duet.files import read_events
from mmavlm.metrics.duet.watched import EventTruth, Said
from mmavlm.run.ask import load_backbone
from mmavlm.run.dialogue import printable
from mmavlm.run.live_duet import Asked, Event, Habits, LiveDuet, Missed, Removed, Replied, Scored
from mmavlm.run.typed import Typed
from mmavlm.run.watch_record import WatchRecord, as_row

DEFAULT_FPS = 2.0
EXAMPLE = "{time_s: 12.5, text: and now?}"
# Of a service that is stopped, and of a terminal that is closed, which Windows does not have.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
CHOSEN = "duet.json"  # what `evaluate` leaves of a rule chosen on validation


def watch_live(config: DictConfig) -> None:
    """Watch what the config names; see `mmavlm.watch`, which checked the request.

    Raises:
        ConfigError: if the model cannot watch, or the query is none.
        CheckpointError: if the weights do not fit.
        DataError: if truth or rule cannot be read.
        VideoError: if film or camera cannot be read, or a camera is lost.
    """
    rule, queries = rule_of(config), queries_of(config.query, config.queries)
    source = Path(config.video or config.camera)
    truth = None if config.truth is None else truth_of(Path(config.truth), source)
    duet = LiveDuet(load_backbone(config)[0], habits_of(config, rule))
    screen = Screen(as_json=config.format == "json")
    with (
        signals_end_it(),
        # in front of the record, so that what cannot be opened leaves no folder
        frames_of(config, duet.image_size, screen.note) as frames,
        WatchRecord(Path(config.to), config, rule, truth) as record,
    ):
        typed = Typed(duet.ask, screen.note) if sys.stdin.isatty() else None
        coming = record.seen(frames if typed is None else typed.gated(frames))
        try:
            for event in duet.watch(coming, queries):
                record.take(event)
                screen.show(event)
        except KeyboardInterrupt:
            screen.note("stopped")
        for said in duet.waiting:
            screen.note(f"never asked, since it ended before {said.time_s:g} s: {said.text}")
    screen.note(f"report: {record.report}")


def habits_of(config: DictConfig, rule: SpeakingRule) -> Habits:
    """How a model takes part that speaks by a rule, as a config has it.

    Raises:
        ConfigError: if a setting does not fit.
    """
    generation = Generation(
        num_beams=1,
        num_answers=1,
        max_new_tokens=config.max_new_tokens,
        repetition_penalty=config.repetition_penalty,
    )
    return Habits(
        rule, generation, config.window, config.keep_replies, config.repeat, config.system
    )


@contextmanager
def signals_end_it() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP of a terminal that is closed, end what is inside as an exit does.

    Raises:
        SystemExit: with the status of a process ended by that signal.
    """
    here = threading.current_thread() is threading.main_thread()  # which alone may say so
    before = {number: signal.signal(number, _exit) for number in ENDING} if here else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(exit_status(number))


@contextmanager
def frames_of(
    config: DictConfig, size: int, note: Callable[[str], None]
) -> Iterator[Iterable[LiveFrame]]:
    """The frames S×S of the film or the camera of a config, which is closed afterwards.

    Raises:
        VideoError: if film or camera cannot be read.
    """
    fps = config.fps or config.data.get("sample_fps") or DEFAULT_FPS
    if config.camera is None:
        yield film_frames(
            config.video, fps, size,
            start_s=config.start_s, end_s=config.end_s, realtime=config.realtime,
        )  # fmt: skip
        return
    options = None if config.camera_options is None else dict(config.camera_options)
    with Camera(
        config.camera,
        fps,
        size,
        format=config.camera_format,
        options=options,
        timeout_s=config.timeout_s,
    ) as camera:
        yield camera
        if camera.damaged:
            note(f"{camera.damaged} pictures of the camera were damaged, and left out")


def rule_of(config: DictConfig) -> SpeakingRule:
    """The rule that was set, or chosen on validation films.

    Raises:
        ConfigError: if a setting is none of a rule, or what is to be read chose none.
        DataError: if the file cannot be read.
    """
    if config.speak_as is None:
        return SpeakingRule.of(config.speak)
    path = Path(config.speak_as)
    path = path / CHOSEN if path.is_dir() else path
    try:
        chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"]["setting"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} names no chosen rule ({error}); give the duet.json of evaluate … "
            "task=speaking with val_predictions and val_truth"
        ) from error
    if not isinstance(chosen, Mapping):
        raise DataError(f"{path} chose {chosen!r}, which is no rule when to speak")
    return SpeakingRule.of(chosen)


def queries_of(query: str | None, later: Any) -> list[Said]:
    """What is asked at the start, and the queries of a list of {time_s, text}, in order of time.

    Raises:
        ConfigError: naming one that is none.
        DataError: if a text is none.
    """
    rows = OmegaConf.to_container(later) if OmegaConf.is_config(later) else later
    if not isinstance(rows, list | None):
        raise ConfigError(f"queries={later!r} is no list; give [{EXAMPLE}]")
    if query is not None and not query.strip():
        raise ConfigError('query is empty; ask something: query="what happens?"')
    found = [] if query is None else [Said(0.0, query)]
    return sorted([*found, *map(_query, rows or ())], key=lambda said: said.time_s)


def _query(row: Any) -> Said:
    if not (isinstance(row, dict) and row.keys() == {"time_s", "text"}):
        raise ConfigError(f"queries holds {row!r}; give a time and a text, such as {EXAMPLE}")
    at_least("queries", 0, time_s=row["time_s"])
    if row["time_s"] is None or not str(row["text"] or "").strip():
        raise ConfigError(f"queries holds {row!r}, which asks nothing; give {EXAMPLE}")
    text = str(row["text"])
    Turn("user", (text,))  # which refuses what is no text here, and not where its time has come
    return Said(float(row["time_s"]), text)


def truth_of(path: Path, source: Path) -> EventTruth:
    """What a file of truth says of a film.

    Raises:
        DataError: if it cannot be read, or does not have one row about the film.
    """
    rows = read_events(path)
    own = [row for row in rows if Path(row.video_id).stem == source.stem]
    own = rows if len(rows) == 1 else own
    if len(own) != 1:
        raise DataError(
            f"{path} has {len(own)} of {len(rows)} rows about {source.name}; expected one, so "
            "write the one that is meant to a file of its own"
        )
    return own[0]


class Screen:
    """What is printed of events: a live line and what is said, or each as a line of JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._live = not as_json and sys.stdout.isatty()

    def show(self, event: Event) -> None:
        """Print an event."""
        if self._as_json:
            print(json.dumps(as_row(event)), flush=True)
        elif isinstance(event, Scored):
            if self._live:
                print(f"\r\x1b[K{live_line(event)}", end="", flush=True)
        else:
            start = "\r\x1b[K" if self._live else ""
            print(f"{start}{event.time_s:8.1f} s  {in_words(event)}", flush=True)

    def note(self, text: str) -> None:
        """Say what is no event."""
        start = "\r\x1b[K" if self._live else ""
        print(f"{start}{text}", file=sys.stderr, flush=True)


def live_line(event: Scored) -> str:
    """Time and scores, each with a bar."""
    shown = (f"{name} {score:.2f} {_bar(score)}" for name, score in event.scores.items())
    return f"{event.time_s:8.1f} s  {'  '.join(shown)}"


def _bar(score: float, width: int = 10) -> str:
    return ("█" * round(score * width)).ljust(width, "·")


def in_words(event: Asked | Replied | Removed | Missed) -> str:
    """What was said, and by whom."""
    if isinstance(event, Missed):
        return f"missed {event.frames} frames: the model is slower than the film"
    text = printable(" ".join(event.text.splitlines()))
    if isinstance(event, Asked):
        return f"you    {text}"
    if isinstance(event, Replied):
        return f"model  {text}"
    return f"       ({event.why}) {text}"
