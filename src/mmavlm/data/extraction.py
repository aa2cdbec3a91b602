"""Films → folders of JPEGs, as MA-LMM's annotations count them: 10 a second, short side 256.

Picture k of a film, `frame{k+1:06d}.jpg`, is the frame shown at k / fps seconds. A film's folder
appears when it is complete, so that an interrupted extraction goes on where it stopped. It holds
`extraction.json`, which says how its pictures were taken; other settings need another folder.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.data.pictures import FRAME_NAME
from mmavlm.data.probe import VideoInfo, probe
from mmavlm.data.sources import VIDEO_SUFFIXES

if TYPE_CHECKING:  # torch, which decoding takes, is imported when films are opened
    from mmavlm.data.video import Picture

log = logging.getLogger(__name__)

SETTINGS_NAME = "extraction.json"
VERSION_KEY = "decoding_version"
# A duration is a sum of rounded times: one this little above a multiple of 1/fps is that multiple.
ROUNDING = 1e-3
# A frame that is shown for longer is one whose time is broken: its folder would have millions of
# copies of one picture.
LONGEST_SHOWN_S = 3600.0


@dataclass(frozen=True)
class Extraction:
    """How pictures are taken: `fps` a second, `short_side` pixels, JPEG `quality`.

    Raises:
        ConfigError: if a number is out of range.
    """

    fps: float = 10.0
    short_side: int = 256
    quality: int = 95

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise ConfigError(f"fps must be above 0, got {self.fps:g}")
        if self.short_side < 1:
            raise ConfigError(f"short_side must be at least 1 pixel, got {self.short_side}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality must be 1 to 100, got {self.quality}")


def plan(videos: Path, frames: Path, settings: Extraction) -> tuple[dict[Path, Path], int]:
    """Film → folder of those still to extract, and how many are complete.

    Raises:
        ConfigError: if `videos` is no folder or holds no films, two films share a folder, or
            folders were extracted with other settings.
    """
    if not videos.is_dir():
        raise ConfigError(f"videos={videos} is no folder; give the one that holds the films")
    found = sorted(path for path in videos.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    films = [path for path in found if path.is_file() and not path.name.startswith(".")]
    if not films:
        raise ConfigError(f"videos={videos} holds no films ({', '.join(VIDEO_SUFFIXES)})")
    folders = [frames / path.relative_to(videos).with_suffix("") for path in films]
    sharing: dict[Path, list[str]] = defaultdict(list)
    for film, folder in zip(films, folders, strict=True):
        sharing[folder].append(film.name)
    for folder, names in sharing.items():
        if len(names) > 1:
            raise ConfigError(
                f"{' and '.join(names)} would both be extracted to {folder}; keep one of them"
            )
    todo = {film: into for film, into in zip(films, folders, strict=True) if not into.is_dir()}
    _require_alike([into for into in folders if into.is_dir()], settings)
    return todo, len(films) - len(todo)


def _require_alike(folders: Sequence[Path], settings: Extraction) -> None:
    """Refuse complete folders of other settings; what does not say how it was made is taken."""
    from mmavlm.data.video import DECODING_VERSION

    written = [path for folder in folders if (path := folder / SETTINGS_NAME).is_file()]
    wanted = asdict(settings)
    told = {path: _read_settings(path) for path in written}
    old = [path for path, found in told.items() if found.pop(VERSION_KEY, 1) < DECODING_VERSION]
    for path, found in told.items():
        if found != wanted:
            others = sum(other != wanted for other in told.values())
            raise ConfigError(
                f"{path.parent} was extracted with {_told(found)}, but {_told(wanted)} is asked "
                f"for ({others} folders differ); give the settings it was extracted with, another "
                "folder (frames=…), or remove the folders to extract them anew"
            )
    if old:
        log.warning(
            "%s and %d more were extracted by a version that showed mirrored, trimmed and joined "
            "films differently; remove the folders of such films to extract them again",
            old[0].parent,
            len(old) - 1,
        )


def _read_settings(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(value) for name, value in found.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"{path} does not say how {path.parent} was extracted ({error}); remove that folder, "
            "to extract it anew"
        ) from None


def _told(settings: Mapping[str, float]) -> str:
    """Settings as they are given on the command line."""
    return " ".join(f"{name}={value:g}" for name, value in settings.items())


def extract_all(
    todo: dict[Path, Path], settings: Extraction, workers: int, console: Console
) -> dict[Path, str]:
    """Extract films in `workers` processes; film → reason of those that failed."""
    failed: dict[Path, str] = {}
    columns = (TextColumn("extracting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # spawned, as forked processes may inherit locks that a thread of PyTorch holds
    pool = ProcessPoolExecutor(max(1, min(workers, len(todo))), get_context("spawn"))
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=len(todo))
            running: dict[Future[str | None], Path] = {
                pool.submit(attempt, film, folder, settings): film for film, folder in todo.items()
            }
            for future in as_completed(running):
                if reason := future.result():
                    failed[running[future]] = reason
                progress.advance(bar)
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def attempt(film: Path, folder: Path, settings: Extraction) -> str | None:
    """Extract one film; the reason if it is broken. Other failures, as a full disk, stop all."""
    try:
        extract(film, folder, settings)
    except VideoError as error:
        return str(error)
    return None


def extract(film: Path, folder: Path, settings: Extraction) -> int:
    """Write the frames of a film to `folder`, which appears when all are there; their number.

    Raises:
        VideoError: if the film cannot be read to its end, or shows one frame for above an hour.
    """
    from mmavlm.data.video import DECODING_VERSION, shown_pictures

    unfinished = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        info = probe(film)
        _check_times(info)
        count = max(1, math.ceil(info.duration_s * settings.fps - ROUNDING))
        times_s = [k / settings.fps for k in range(count)]
        pictures = (picture for _, picture in shown_pictures(info, times_s))
        for number, small in enumerate(_shrunk(pictures, settings.short_side), start=1):
            small.save(unfinished / FRAME_NAME.format(number), quality=settings.quality)
        text = json.dumps({**asdict(settings), VERSION_KEY: DECODING_VERSION}) + "\n"
        (unfinished / SETTINGS_NAME).write_text(text, encoding="utf-8")
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return count


def _check_times(info: VideoInfo) -> None:
    ends_s = np.append(info.times_s, info.duration_s)
    shown_s = np.diff(ends_s)
    longest = int(shown_s.argmax())
    if shown_s[longest] > LONGEST_SHOWN_S:
        raise VideoError(
            f"{info.path} shows frame {longest + 1} of {len(shown_s)} for {shown_s[longest]:.0f} s "
            f"(at most {LONGEST_SHOWN_S:.0f}), so its times are broken; encode it anew"
        )


def _shrunk(pictures: Iterator[Picture], short_side: int) -> Iterator[Image.Image]:
    """Pictures with a short side of `short_side` pixels, bicubic; smaller ones stay as they are."""
    for picture in pictures:
        image = Image.fromarray(picture)
        scale = short_side / min(image.size)
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        yield image


def extract_folder(
    videos: Path, frames: Path, settings: Extraction, workers: int | None, console: Console
) -> bool:
    """Extract all films below a folder, in a process a core by default; True if none failed.

    Raises:
        ConfigError: as `plan` does.
    """
    todo, complete = plan(videos, frames, settings)
    failed = extract_all(todo, settings, workers or os.cpu_count() or 1, console)
    for path, reason in sorted(failed.items()):
        console.print(f"failed {path}: {reason}", style="red", markup=False, soft_wrap=True)
    console.print(
        f"{len(todo) - len(failed)} films extracted, {complete} were complete, "
        f"{len(failed)} failed",
        highlight=False,
    )
    return not failed
