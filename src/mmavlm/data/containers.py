"""Opening a film: the containers that are read, and which of a file's streams is the film."""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from mmavlm.core.errors import VideoError

# More than 8K (7680×4320): a header that says so is hostile, and a frame would take gigabytes.
MAX_PIXELS = 8192 * 8192

# Films, and pictures as films of one frame: playlists and lists of files, which FFmpeg also takes
# for films, open other files.
CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,dv,rm,h264,hevc,m4v,ivf,obu,av1,"
    "mjpeg,yuv4mpegpipe,gif,apng,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe"
)
REMEDY = "convert it (ffmpeg -i FILM film.mp4)"

# Pictures that stand for something else than the film's own.
PICTURES_BESIDE = Disposition.attached_pic | Disposition.timed_thumbnails


@contextmanager
def opened(
    path: Path, threads: int = 1, options: Mapping[str, str] | None = None
) -> Iterator[tuple[Any, Any]]:
    """The container and the stream a player shows; every failure of FFmpeg becomes a VideoError.

    That is the default video stream, or else the largest. `options` are those of the decoder.
    """
    with opened_container(path) as container:
        stream = _film(path, container)
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS), **(options or {})}
        stream.codec_context.thread_count = threads
        stream.thread_type = "NONE" if threads == 1 else "AUTO"
        yield container, stream


@contextmanager
def opened_container(path: Path, formats: str = CONTAINERS) -> Iterator[Any]:
    """The container, if it is of one of `formats`; every failure of FFmpeg becomes a VideoError."""
    if not path.is_file():
        raise VideoError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes)")
    try:
        with _container(path, formats) as container:
            yield container
    except (av.FFmpegError, EOFError) as error:
        raise VideoError(f"{path} cannot be decoded: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What FFmpeg says, without the names of functions and files that PyAV adds, and a remedy."""
    said = getattr(error, "strerror", None) or str(error)
    return f"{said}; copy or download it again, or {REMEDY}"


def _container(path: Path, formats: str) -> Any:
    try:
        return av.open(
            f"file:{path}",
            metadata_errors="replace",
            container_options={"format_whitelist": formats, "protocol_whitelist": "file"},
        )
    except av.FFmpegError as error:
        if error.errno != errno.EINVAL:
            raise
        sound = "a sound file, " if formats == CONTAINERS else ""
        raise VideoError(
            f"{path} cannot be decoded: it is {sound}a playlist, or of another container "
            f"that is not read here; {REMEDY}"
        ) from error


def films(container: Any) -> list[Any]:
    """The video streams that are films, the one to show first: the default, or the largest."""
    pictures = container.streams.video
    found = [stream for stream in pictures if not stream.disposition & PICTURES_BESIDE]
    return sorted(found, key=_rank, reverse=True)


def _film(path: Path, container: Any) -> Any:
    if not (found := films(container)):
        pictures = container.streams.video
        what = "holds a cover picture, but no film" if pictures else "has no video stream"
        raise VideoError(f"{path} {what}; leave it out, or give the film itself")
    chosen = found[0]
    if chosen.codec_context is None:
        raise VideoError(f"{path} is of a codec that FFmpeg does not know; {REMEDY}")
    return chosen


def _rank(stream: Any) -> tuple[bool, int]:
    context = stream.codec_context
    area = 0 if context is None else context.width * context.height
    return bool(stream.disposition & Disposition.default), area


def demuxed(path: Path | str, container: Any, *streams: Any) -> Generator[Any, None, None]:
    """The packets of some streams, or of all; PyAV has no place for a stream that turns up late."""
    try:
        yield from container.demux(*streams)
    except IndexError as error:
        raise VideoError(
            f"{path} is damaged: a stream turns up in it that its header does not name; {REMEDY}"
        ) from error
