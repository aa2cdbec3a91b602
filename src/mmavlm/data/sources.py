"""Where frames come from: a video file, a folder of extracted JPEGs, a picture, or features."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.medium import Medium
from mmavlm.data import film_features
from mmavlm.data.looked_at import look_at
from mmavlm.data.pictures import count_frames, open_frame, open_picture, read_folder
from mmavlm.data.probe import VideoInfo, probe
from mmavlm.data.probe_index import ProbeIndex

if TYPE_CHECKING:  # readers of annotations, which look for films alone, wait for no torch
    from torch import Tensor

    from mmavlm.data.video import Picture, ToTensor

# The first of these is taken where a folder has several films of one name.
VIDEO_SUFFIXES = (
    ".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".ts", ".m2ts",
    ".mts", ".vob", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".gif", ".m2v", ".m1v", ".mxf", ".dv",
    ".nut", ".y4m", ".ivf", ".obu", ".rm", ".rmvb", ".f4v", ".apng", ".mjpeg", ".h264", ".264",
    ".h265", ".265", ".hevc",
)  # fmt: skip
GRID_FPS = 10.0  # at which MA-LMM extracted frames
LONGEST_PART, LONGEST_NAME = 250, 2000  # file systems take parts of 255 bytes, paths of 4096
KINDS = ("auto", "video", "frames")
FRAMES, VIDEOS = "frames", "videos"  # folders of a set


def locate(root: Path, name: str, kind: str = "auto") -> Path:
    """The folder `<root>/frames/<name>` or the file `<root>/videos/<name>.<suffix>`.

    With `auto` an existing folder of frames comes first; for the film see `film_at`. A source that
    does not exist is returned all the same, as the place where it is missed.

    Raises:
        ConfigError: if `kind` is unknown.
        DataError: if the name leads out of the root.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"data.reader.source={kind!r} is unknown; choose one of {', '.join(KINDS)}"
        )
    folder = inside(root / FRAMES, name)
    if kind == "frames" or (kind == "auto" and look_at(folder.parent) and folder.is_dir()):
        return folder
    return film_at(inside(root / VIDEOS, name))


def film_at(path: Path) -> Path:
    """The film of a name that may lack its suffix, or the place where it is missed.

    Suffixes may be in capitals, and letters with accents composed or not (Unicode's NFC and NFD):
    file systems and archives change both.
    """
    look_at(path.parent)
    whole = path.suffix.lower() in VIDEO_SUFFIXES
    usual = path if whole else path.with_name(path.name + VIDEO_SUFFIXES[0])
    if usual.is_file():
        return usual
    there = _held(path.parent).films
    names = [path.name] if whole else []
    found = (there.get(_plain(name)) for name in names + [path.name + s for s in VIDEO_SUFFIXES])
    return next((path.with_name(name) for name in found if name is not None), usual)


def written_film(root: Path, name: str) -> Path:
    """`root / name`, a film or a folder of frames; of a film as `film_at` finds it.

    Raises:
        DataError: if the name leads out of the root.
    """
    path = inside(root, name)
    look_at(path.parent)
    if path.exists():
        return path
    found = film_at(path)
    return found if found.exists() else path


class _Held(NamedTuple):
    """Names in a folder: all by their composed form, and those of films by their plain one."""

    composed: dict[str, str]
    films: dict[str, str]


def _held(folder: Path) -> _Held:
    """What a folder holds; nothing if there is no such folder."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return _Held({}, {})


@lru_cache(maxsize=64)
def _listed(folder: Path, changed: int) -> _Held:
    """What a folder holds; `changed` is when it was."""
    names = sorted(entry.name for entry in os.scandir(folder))
    films = {_plain(name): name for name in names if Path(name).suffix.lower() in VIDEO_SUFFIXES}
    return _Held({unicodedata.normalize("NFC", name): name for name in names}, films)


def _plain(name: str) -> str:
    """A name with composed letters and a suffix without capitals."""
    stem, dot, suffix = unicodedata.normalize("NFC", name).rpartition(".")
    return stem + dot + suffix.lower()


def inside(root: Path, name: str) -> Path:
    """`root / name`, refusing names from an annotation that lead out of the root.

    Letters with accents are taken composed or not, as they are there, and backslashes for slashes
    where no file has them in its name.

    Only the name is judged: links the owner of the data laid below the root may lead anywhere. A
    name must lead nowhere else on any system, so neither a drive nor `..` between backslashes is
    admitted, and must be one that files can have.

    Raises:
        DataError: naming both.
    """
    if not _possible(name):
        raise DataError(f"{name[:80]!r} below {root} is a name that no file can have")
    plain, windows = PurePosixPath(os.path.normpath(name)), PureWindowsPath(name)
    back = os.pardir in windows.parts and "\\" in name
    if plain.is_absolute() or plain.parts[:1] == (os.pardir,) or windows.anchor or back:
        raise DataError(f"{name!r} leads out of {root}; names in an annotation stay below it")
    if not plain.parts:
        raise DataError(f"{name!r} names the folder {root} itself; name a film below it")
    path = root / plain
    if (name.isascii() and "\\" not in name) or path.exists():
        return path
    return _as_written(root, PurePosixPath(*windows.parts) if "\\" in name else plain)


def _as_written(root: Path, plain: PurePosixPath) -> Path:
    """`root / plain`, each part with its letters composed or not, as it is there."""
    path = root
    for part in plain.parts:
        path /= _held(look_at(path)).composed.get(unicodedata.normalize("NFC", part), part)
    return path


def _possible(name: str) -> bool:
    """Whether files can have the name, with room for a suffix."""
    try:
        whole = name.encode()
    except UnicodeEncodeError:  # half of a pair that stands for one character
        return False
    parts = map(len, whole.split(b"/"))
    return "\0" not in name and max(parts) <= LONGEST_PART and len(whole) <= LONGEST_NAME


class FrameSource:
    """One film, whichever way it is stored; `grid_fps` is the rate JPEGs were extracted at.

    It is decoded by `threads` threads, None leaving it to `decode_threads`; what it holds is looked
    up in `index`, if given. A `picture` is a film of one frame. Of a file of `film_features` the
    frames are tokens, which no encoder reads.
    """

    def __init__(
        self,
        path: Path,
        grid_fps: float = GRID_FPS,
        *,
        index: ProbeIndex | None = None,
        threads: int | None = None,
        picture: bool = False,
    ) -> None:
        self.path = path
        self.grid_fps = grid_fps
        self.index = index
        self.threads = threads
        self.picture = picture

    @classmethod
    def of(cls, medium: Medium, grid_fps: float = GRID_FPS, **settings: Any) -> FrameSource:
        """The source of a film or picture; `settings` are those of `FrameSource`."""
        return cls(medium.source, grid_fps, picture=medium.kind == "picture", **settings)

    @property
    def duration_s(self) -> float:
        """Its length in seconds; that of a picture is of one frame of the grid."""
        if self.picture:
            return 1 / self.grid_fps
        if self.path.is_dir():
            return count_frames(self.path) / self.grid_fps
        if self.holds_features:
            times_s = self.times_s
            return float(times_s[-1]) + float(np.diff(times_s).mean() if len(times_s) > 1 else 1)
        return self._info.duration_s

    @property
    def times_s(self) -> NDArray[np.float64]:
        """The time of each of its frames in seconds, ascending from 0."""
        if self.picture:
            return np.zeros(1)
        if self.path.is_dir():
            return np.arange(count_frames(self.path)) / self.grid_fps
        return film_features.feature_times(self.path) if self.holds_features else self._info.times_s

    @property
    def holds_features(self) -> bool:
        """Whether an encoder's outputs are all that is left of the film."""
        return not self.picture and self.path.suffix.lower() == film_features.SUFFIX

    def read(self, times_s: Sequence[float], to_tensor: ToTensor) -> tuple[Tensor, Tensor]:
        """The frames shown at ascending times: uint8 (T,3,S,S), and their times (T,) in seconds.

        Of features: tokens float16 (T,P,Dv), whatever `to_tensor` is.

        Raises:
            VideoError: naming the file and the reason.
        """
        if self.holds_features:
            return film_features.read_film_features(self.path, times_s)
        if self.path.is_dir() and not self.picture:
            return read_folder(self.path, times_s, to_tensor, self.grid_fps)
        import torch

        from mmavlm.data.video import read_frames

        if self.picture:
            frame = to_tensor(open_picture(self.path))
            return frame.repeat(len(times_s), 1, 1, 1), torch.zeros(len(times_s))
        return read_frames(
            self.path, times_s, to_tensor, info=self._info, threads=self._decode_threads
        )

    def pictures(self, times_s: Sequence[float]) -> Iterator[Picture]:
        """One by one, in constant memory, the pictures (H,W,3) shown at ascending times.

        Raises:
            VideoError: naming the file and the reason.
        """
        from mmavlm.data.video import SAME_TIME_S, shown_pictures

        if self.holds_features:
            raise VideoError(f"{self.path} holds features of a film and no pictures; give the film")
        if self.picture:
            yield from [open_picture(self.path)] * len(times_s)
            return
        if not self.path.is_dir():
            shown = shown_pictures(self._info, times_s, threads=self._decode_threads)
            yield from (picture for _, picture in shown)
            return
        last = count_frames(self.path) - 1
        for at_s in times_s:
            yield open_frame(self.path, min(int(at_s * self.grid_fps + SAME_TIME_S), last))

    @property
    def _decode_threads(self) -> int:
        from mmavlm.data.video import decode_threads

        return decode_threads() if self.threads is None else self.threads

    @property
    def _info(self) -> VideoInfo:
        try:
            stat = self.path.stat()
            return _look_up_once(self.path, stat.st_mtime_ns, stat.st_size, self.index)
        except (FileNotFoundError, NotADirectoryError):
            return probe(self.path)  # which names a file that is missing, or gone meanwhile


@lru_cache(maxsize=2048)
def _look_up_once(path: Path, changed: int, size: int, index: ProbeIndex | None) -> VideoInfo:
    return probe(path) if index is None else index.look_up(path)
