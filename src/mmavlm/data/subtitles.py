"""Subtitles: what is said in a film, and between which of its frames."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pysubs2

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Line, Part, Shown, Turn
from mmavlm.data.containers import demuxed, films, opened_container
from mmavlm.data.film_features import SUFFIX as FEATURES

SUFFIXES = (".srt", ".vtt", ".json")
LARGEST_BYTES = 32 * 2**20  # a film of three hours has a tenth of a megabyte


class Subtitle(NamedTuple):
    """A text that is shown from `start_s` to `end_s`, in the film's own seconds."""

    start_s: float
    end_s: float
    text: str


def subtitles_of(film: Medium, choice: bool | None = None) -> tuple[Subtitle, ...]:
    """What is said in a film; nothing where there are no subtitles, or none are to be read.

    `choice` None reads those that the annotation names; True else the file beside a film that has
    its name (`.srt`, `.vtt`, `.json`), else the first track of text in the film; False none.

    Raises:
        VideoError: naming the file that cannot be used.
    """
    if film.kind != "film" or choice is False:
        return ()
    if film.subtitles is not None:
        return read_subtitles(film.subtitles)
    if choice is None:
        return ()
    source = film.source
    # a folder's name may hold a full stop that ends no stem
    stem = source.with_suffix("") if source.is_file() else source
    beside = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    if (found := next((path for path in beside if path.is_file()), None)) is not None:
        return read_subtitles(found)
    has_tracks = source.is_file() and source.suffix.lower() != FEATURES
    return _track(source, _changed(source)) if has_tracks else ()


def said_in(film: Medium, said: Sequence[Subtitle]) -> list[Subtitle]:
    """What is said in the stretch of a film that is shown, in the order of time."""
    end_s = float("inf") if film.end_s is None else film.end_s
    return [line for line in sorted(said) if line.end_s > film.start_s and line.start_s < end_s]


def check_choice(choice: bool | None) -> bool | None:
    """The choice of `subtitles_of`, as `data.subtitles` says it.

    Raises:
        ConfigError: if it is none.
    """
    if choice is not None and not isinstance(choice, bool):
        raise ConfigError(f"data.subtitles={choice!r} is unknown; choose true, false or null")
    return choice


def read_subtitles(path: Path) -> tuple[Subtitle, ...]:
    """The subtitles of a file: SubRip, WebVTT, SubStation Alpha, or a transcript as Whisper's.

    Those without a text are left out.

    Raises:
        VideoError: naming the file, if it is missing, too large, not UTF-8 or nothing of the kind.
    """
    if not path.is_file():
        raise VideoError(f"the subtitles {path} do not exist; take them out, or give the file")
    return _read(path, _changed(path))


def with_lines(
    talk: Conversation, said: Sequence[Sequence[Subtitle]], times_s: Sequence[Sequence[float]]
) -> Conversation:
    """A conversation whose films show what is said in them between their frames.

    `said` and `times_s` have an entry for each medium: its subtitles, and when its frames are. A
    subtitle stands behind the last frame before its end (LLaMA-VID), or before the first frame.
    Those that end before the stretch that is shown, or begin behind it, are left out. Of a film
    that runs while others speak, each stream has those that stand between its frames or behind
    them.
    """
    if not any(said):
        return talk
    behind = [
        _behind(film, *pair)
        for film, pair in zip(talk.media, zip(said, times_s, strict=True), strict=True)
    ]

    def opened(turn: Turn) -> Iterator[Part]:
        for part in turn.parts:
            if isinstance(part, Shown) and behind[part.medium]:
                entire = Shown(part.medium, (0, len(times_s[part.medium])))
                yield from _pieces(part if part.frames else entire, behind[part.medium])
            else:
                yield part

    turns = tuple(replace(turn, parts=tuple(opened(turn))) for turn in talk.turns)
    return replace(talk, turns=turns)


def _behind(
    film: Medium, said: Sequence[Subtitle], times_s: Sequence[float]
) -> dict[int, list[str]]:
    """How many frames of a film stand in front → the texts that follow them."""
    behind: dict[int, list[str]] = {}
    for _, stop_s, text in said_in(film, said):
        behind.setdefault(bisect_left(times_s, stop_s), []).append(text)
    return behind


def _pieces(part: Shown, behind: Mapping[int, Sequence[str]]) -> Iterator[Part]:
    """Some frames of a film, and the texts that stand in front of its first, and behind others."""
    shown, last = part.frames or (0, 0)
    here = {at for at in behind if shown < at <= last or at == shown == 0}
    for at in sorted({*here, last}):
        if at > shown:
            yield part.only(shown, at)
            shown = at
        if at in here:
            yield Line("\n".join(behind[at]))


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns


@lru_cache(maxsize=256)
def _read(path: Path, changed: int) -> tuple[Subtitle, ...]:
    """The subtitles of a file that was last changed at this time."""
    if (size := path.stat().st_size) > LARGEST_BYTES:
        raise VideoError(
            f"the subtitles {path} have {size} bytes; expected {LARGEST_BYTES} at most"
        )
    content = path.read_bytes()
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise VideoError(f"the subtitles {path} are not UTF-8; convert them") from error
    return _of_file(_parsed(path, text))


def _parsed(path: Path, text: str) -> Any:
    if not text.strip():
        return []
    try:
        if path.suffix.lower() == ".json":
            return pysubs2.load_from_whisper(_segments(path, text))
        return pysubs2.SSAFile.from_string(text)
    except VideoError:
        raise
    # a parser of foreign files meets whatever they hold
    except Exception as error:
        raise VideoError(
            f"{path} holds no subtitles that can be read ({type(error).__name__}: {error}); give "
            "SubRip, WebVTT, or JSON with segments of start, end and text"
        ) from error


def _segments(path: Path, text: str) -> list[dict[str, Any]]:
    """Segments `{"start", "end", "text"}`, alone or as `segments` of a transcript."""
    found = json.loads(text)
    segments: Any = found.get("segments") if isinstance(found, dict) else found
    try:
        return [
            {"start": float(s["start"]), "end": float(s["end"]), "text": str(s["text"])}
            for s in segments
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise VideoError(
            f"{path} holds no transcript ({type(error).__name__}: {error}); expected segments such "
            'as {"start": 0.5, "end": 2, "text": "Hello."}'
        ) from error


def _of_file(events: Any) -> tuple[Subtitle, ...]:
    found = [
        Subtitle(event.start / 1000, event.end / 1000, _plain(event.plaintext))
        for event in events
        if not event.is_comment
    ]
    return tuple(sorted(line for line in found if line.text))


def _plain(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


@lru_cache(maxsize=256)
def _track(path: Path, changed: int) -> tuple[Subtitle, ...]:
    """The texts of a film's first subtitle track (the default, if one is) that holds texts."""
    with opened_container(path) as container:
        tracks = [s for s in container.streams.subtitles if s.codec_context is not None]
        tracks.sort(key=lambda stream: "default" not in str(stream.disposition))
        film = next(iter(films(container)), None)
        zero_s = 0.0
        if film is not None and film.start_time is not None:
            zero_s = float(film.start_time * film.time_base)
        for stream in tracks:
            if found := _texts(path, container, stream, zero_s):
                return found
            container.seek(0)
    return ()


def _texts(path: Path, container: Any, stream: Any, zero_s: float) -> tuple[Subtitle, ...]:
    found = []
    for packet in demuxed(path, container, stream):
        if packet.pts is None:
            continue
        start_s = float(packet.pts * packet.time_base) - zero_s
        length_s = float((packet.duration or 0) * packet.time_base)
        texts = filter(None, map(_dialogue, packet.decode()))
        found += [Subtitle(start_s, start_s + length_s, text) for text in texts]
    return tuple(sorted(found))


def _dialogue(drawn: Any) -> str:
    """The text of a subtitle, "" of one that is a picture."""
    raw = getattr(drawn, "ass", b"")
    if not raw:
        return ""
    # "ReadOrder, Layer, Style, Name, three margins, Effect, Text"
    text = raw.decode("utf-8", errors="replace").split(",", 8)[-1]
    return _plain(pysubs2.SSAEvent(text=text).plaintext)
