"""Key-frame tables on disk, so that a film's packets are read once and not by every worker anew."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.files import write_whole
from mmavlm.data.probe import VideoInfo, probe
from mmavlm.data.timeline import Ticks

log = logging.getLogger(__name__)

FORMAT = "mmavlm probe 3"  # counts up when probing gives other tables
TOLD = ("codec", "width", "height", "duration_s", "tick_s", "in_order")
MAX_BYTES = 1 << 26  # an hour at 60 fps takes less than one
DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class ProbeIndex:
    """What films below `root` hold, kept in `folder`: one file a film.

    Its name is a hash of the film's path below the root, time of change and size, so that a film
    that changes has another. Any number of processes may read and write at once. A folder that
    cannot be written, or a file that is damaged, costs time and is logged, nothing else.
    """

    folder: Path
    root: Path

    def look_up(self, path: Path) -> VideoInfo:
        """What a film holds, from its file here if there is one, else by probing it.

        Raises:
            VideoError: as of `probe`.
        """
        kept = self.path(path)
        try:
            content = kept.read_bytes() if kept.stat().st_size <= MAX_BYTES else b""
            return _unpack(path, content, kept.stem)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except DAMAGE as error:
            log.warning("%s, key frames of %s, is damaged (%s); made anew", kept, path, error)
        info = probe(path)
        try:
            write_whole(kept, _pack(info, kept.stem))
        except OSError as error:
            _say_once(f"{self.folder} cannot be written ({error.strerror}): no key frames are kept")
        return info

    def path(self, film: Path) -> Path:
        """Where a film's table lies; no name of an annotation is part of it."""
        stat = film.stat()
        below = film.relative_to(self.root) if film.is_relative_to(self.root) else film
        told = [FORMAT, below.as_posix(), stat.st_mtime_ns, stat.st_size]
        key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
        return self.folder / key[:2] / f"{key}.npz"


def _pack(info: VideoInfo, key: str) -> bytes:
    told = {"format": FORMAT, "key": key, **{name: getattr(info, name) for name in TOLD}}
    decoded = np.union1d(info.frame_pts, info.hidden_pts)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        told=np.frombuffer(json.dumps(told).encode(), np.uint8),
        steps=np.diff(decoded, prepend=0),  # mostly the same one, so a kilobyte
        keyframes=np.searchsorted(decoded, info.keyframe_pts),
        hidden=np.searchsorted(decoded, info.hidden_pts),
    )
    return buffer.getvalue()


def _unpack(path: Path, content: bytes, key: str) -> VideoInfo:
    with np.load(io.BytesIO(content), allow_pickle=False) as parts:
        told = json.loads(parts["told"].tobytes())
        steps, *parts_of = (_ticks(parts[name]) for name in ("steps", "keyframes", "hidden"))
    if (told["format"], told["key"]) != (FORMAT, key):
        raise ValueError("its header differs")
    if (steps[1:] < 0).any() or any((np.diff(numbers) < 0).any() for numbers in parts_of):
        raise ValueError("its times do not ascend")
    if any(len(n) and (n[0] < 0 or n[-1] >= len(steps)) for n in parts_of):
        raise ValueError("it names frames it does not have")
    keyframes, hidden = parts_of
    decoded: Ticks = steps.cumsum()
    frames = np.delete(decoded, hidden)
    if not len(keyframes) or not len(frames):
        raise ValueError("it holds no frames")
    settings = {name: told[name] for name in TOLD}
    return VideoInfo(
        path=path, frame_pts=frames, hidden_pts=decoded[hidden], keyframe_pts=decoded[keyframes],
        **settings,
    )  # fmt: skip


def _ticks(part: NDArray[np.int64]) -> Ticks:
    if part.ndim != 1 or part.dtype != np.int64:
        raise ValueError(f"it holds {part.dtype} {part.shape}, expected int64 (N,)")
    return part


@lru_cache
def _say_once(message: str) -> None:
    log.info(message)
