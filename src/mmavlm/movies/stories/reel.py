"""Frames as data → pictures → a film on disk, named by what it is made of and resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmavlm.core.files import write_whole, written_whole
from mmavlm.movies.encode import Sound, write_video
from mmavlm.movies.frames import FrameSpec, ImageGenerator, Picture
from mmavlm.movies.vocabulary import Style

Progress = Callable[[int, int], None]


def digest(*parts: Any) -> str:
    """A short name for plain values: equal parts, equal name."""
    told = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def film_key(
    frames: Sequence[FrameSpec],
    style: Style,
    images: ImageGenerator,
    fps: int,
    twin_of: str | None = None,
) -> str:
    """The name of a film: a hash of frames, style, generator and rate, and of what it is a twin."""
    told = [frame.model_dump(mode="json") for frame in frames]
    twin = [] if twin_of is None else [twin_of]
    return digest("film", told, style.model_dump(mode="json"), images.fingerprint, fps, *twin)


def draw_film(
    folder: Path,
    frames: Sequence[FrameSpec],
    style: Style,
    images: ImageGenerator,
    fps: int,
    progress: Progress | None = None,
    *,
    twin_of: str | None = None,
    sound: Sound | None = None,
) -> Path:
    """The film of `frames`, one a 1/fps s, as `<folder>/<key>/film.mp4`, drawn in one style.

    A twin has the seeds of the film whose key is `twin_of`: what its frames share, looks the same.
    With `sound` it is heard, too, and named by what is heard as well.

    Beside it lie `film.srt`, the words; `frames/`, the pictures; and `manifest.jsonl`, prompt,
    seed, generator and sha256 of each. Pictures that are there are kept, so a broken-off film goes
    on; the film itself comes last, so where it is, all is.
    """
    key = film_key(frames, style, images, fps, twin_of)
    seeded = twin_of or key
    if sound is not None:
        heard = hashlib.sha256(sound.samples.tobytes()).hexdigest()
        key = digest("heard", key, heard, sound.rate_hz)
    film = folder / key / "film.mp4"
    if film.is_file():
        return film
    seeds = [int(digest(seeded, index)[:8], 16) >> 1 for index in range(len(frames))]
    paths = [folder / key / "frames" / f"{index:06d}.png" for index in range(len(frames))]
    missing = [index for index, path in enumerate(paths) if not path.is_file()]
    held = images.prepare_style(style, int(seeded[:8], 16))
    drawn = images.render([frames[i] for i in missing], held, [seeds[i] for i in missing])
    for done, (index, picture) in enumerate(zip(missing, drawn, strict=True), start=1):
        _write_picture(paths[index], picture)
        if progress is not None:
            progress(len(frames) - len(missing) + done, len(frames))
    rows = [
        {
            "frame": path.name,
            "prompt": frame.text,
            "seed": seed,
            "generator": images.fingerprint,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path, frame, seed in zip(paths, frames, seeds, strict=True)
    ]
    write_rows(folder / key / "manifest.jsonl", rows)
    write_whole(folder / key / "film.srt", _subtitles(frames, fps).encode())
    write_video((_read_picture(path) for path in paths), film, fps, sound)
    return film


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Write a jsonl file, whole or not at all."""
    write_whole(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode())


def _write_picture(path: Path, picture: Picture) -> None:
    with written_whole(path) as part:
        Image.fromarray(picture).save(part, format="PNG")


def _read_picture(path: Path) -> Picture:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _subtitles(frames: Sequence[FrameSpec], fps: int) -> str:
    spoken = [(index, frame.line) for index, frame in enumerate(frames) if frame.line]
    return "".join(
        f"{number}\n{_clock(index / fps)} --> {_clock((index + 1) / fps)}\n{line}\n\n"
        for number, (index, line) in enumerate(spoken, start=1)
    )


def _clock(t_s: float) -> str:
    ms = round(1000 * t_s)
    return f"{ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d},{ms % 1000:03d}"
