"""Where frames come from: a video file, or a folder of extracted JPEGs."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.data.containers import MAX_PIXELS
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
EXIF_TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
GRID_FPS = 10.0  # at which MA-LMM extracted frames
FRAME_NAME = "frame{:06d}.jpg"  # counted from 1
OTHER_SUFFIXES = (".jpeg", ".JPG", ".JPEG")  # that others may have given frames
LONGEST_PART, LONGEST_NAME = 250, 2000  # file systems take parts of 255 bytes, paths of 4096
KINDS = ("auto", "video", "frames")


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
    folder = inside(root / "frames", name)
    if kind == "frames" or (kind == "auto" and folder.is_dir()):
        return folder
    return film_at(inside(root / "videos", name))


def film_at(path: Path) -> Path:
    """The film of a name that may lack its suffix, or the place where it is missed.

    Suffixes may be in capitals, and letters with accents composed or not (Unicode's NFC and NFD):
    file systems and archives change both.
    """
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
        path /= _held(path).composed.get(unicodedata.normalize("NFC", part), part)
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
    up in `index`, if given.
    """

    def __init__(
        self,
        path: Path,
        grid_fps: float = GRID_FPS,
        *,
        index: ProbeIndex | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = path
        self.grid_fps = grid_fps
        self.index = index
        self.threads = threads

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        if self.path.is_dir():
            return count_frames(self.path) / self.grid_fps
        return self._info.duration_s

    @property
    def times_s(self) -> NDArray[np.float64]:
        """The time of each of its frames in seconds, ascending from 0."""
        if self.path.is_dir():
            return np.arange(count_frames(self.path)) / self.grid_fps
        return self._info.times_s

    def read(self, times_s: Sequence[float], to_tensor: ToTensor) -> tuple[Tensor, Tensor]:
        """The frames shown at ascending times: uint8 (T,3,S,S), and their times (T,) in seconds.

        Raises:
            VideoError: naming the file and the reason.
        """
        if self.path.is_dir():
            return _read_jpegs(self.path, times_s, to_tensor, self.grid_fps)
        from mmavlm.data.video import read_frames

        return read_frames(
            self.path, times_s, to_tensor, info=self._info, threads=self._decode_threads
        )

    def pictures(self, times_s: Sequence[float]) -> Iterator[Picture]:
        """One by one, in constant memory, the pictures (H,W,3) shown at ascending times.

        Raises:
            VideoError: naming the file and the reason.
        """
        from mmavlm.data.video import SAME_TIME_S, shown_pictures

        if not self.path.is_dir():
            shown = shown_pictures(self._info, times_s, threads=self._decode_threads)
            yield from (picture for _, picture in shown)
            return
        last = count_frames(self.path) - 1
        for at_s in times_s:
            yield _open_jpeg(self.path, min(int(at_s * self.grid_fps + SAME_TIME_S), last))

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


def count_frames(folder: Path) -> int:
    """How many frames a folder holds.

    Raises:
        VideoError: if it holds none, or some are missing in between.
    """
    pattern = re.compile(r"frame(\d{6,})\.(?:jpe?g|JPE?G)")
    names = (pattern.fullmatch(entry.name) for entry in os.scandir(folder))
    numbers = {int(name[1]) for name in names if name}
    if not numbers:
        raise VideoError(
            f"{folder} holds no frames ({FRAME_NAME.format(1)} and so on); extract them anew"
        )
    if missing := next((k for k in range(1, max(numbers)) if k not in numbers), None):
        raise _missing(folder / FRAME_NAME.format(missing), len(numbers))
    return len(numbers)


@lru_cache(maxsize=2048)
def _look_up_once(path: Path, changed: int, size: int, index: ProbeIndex | None) -> VideoInfo:
    return probe(path) if index is None else index.look_up(path)


def _read_jpegs(
    folder: Path, times_s: Sequence[float], to_tensor: ToTensor, fps: float
) -> tuple[Tensor, Tensor]:
    import torch

    numbers = np.rint(np.asarray(times_s, np.float64) * fps).astype(np.int64)
    unique, places = np.unique(numbers, return_inverse=True)
    first = _read_jpeg(folder, int(unique[0]), to_tensor)
    pictures = torch.empty(len(unique), *first.shape, dtype=torch.uint8)
    pictures[0] = first
    for i, number in enumerate(unique[1:].tolist(), start=1):
        pictures[i] = _read_jpeg(folder, number, to_tensor)
    repeated = len(unique) < len(numbers)
    frames = pictures[torch.from_numpy(places)] if repeated else pictures
    return frames, torch.from_numpy(numbers / fps).float()


def _read_jpeg(folder: Path, number: int, to_tensor: ToTensor) -> Tensor:
    return to_tensor(_open_jpeg(folder, number))


def _open_jpeg(folder: Path, number: int) -> Picture:
    """A picture of a folder, turned as its EXIF data say."""
    path = folder / FRAME_NAME.format(number + 1)
    if not path.exists():
        others = (path.with_suffix(suffix) for suffix in OTHER_SUFFIXES)
        path = next((other for other in others if other.exists()), path)
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise VideoError(
                    f"{path} has {image.width}×{image.height} pixels, more than {MAX_PIXELS}; "
                    "extract the frames again"
                )
            # copied, as what Pillow lends cannot be written to, and torch warns of that
            return np.array(_upright(image).convert("RGB"))
    except FileNotFoundError:
        raise _missing(path, count_frames(folder)) from None
    # what Pillow raises for pictures that it does not know, that are cut off, broken, or huge
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path} cannot be read: {error}; extract the frames again") from error


def _upright(image: Image.Image) -> Image.Image:
    """The picture as its EXIF data say; ImageOps.exif_transpose fails where others are broken."""
    turn = EXIF_TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    return image if turn is None else image.transpose(turn)


def _missing(path: Path, there: int) -> VideoError:
    return VideoError(
        f"{path} is missing; the folder holds {there} frames. Extract them again, or correct the "
        "annotation's count (scripts/prepare.py of the repository, --write-counts)"
    )
