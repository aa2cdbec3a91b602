"""A camera, or a stream from the network: what is to be seen now."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

from av.video.reformatter import VideoReformatter

from mmavlm.core.errors import VideoError
from mmavlm.core.redaction import redacted_address
from mmavlm.core.settings import above_zero, whole_at_least
from mmavlm.data.containers import CONTAINERS
from mmavlm.data.live import LiveFrame
from mmavlm.data.newest import Newest, Source
from mmavlm.data.transforms import ClipTransform
from mmavlm.data.video import as_shown

DEVICES = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
SCHEMES = ("rtsp", "rtsps", "http", "https", "udp", "tcp")
# What an address leads to, as a playlist, may lead on to these, and never to a local file.
PROTOCOLS = "rtsp,rtp,srtp,udp,tcp,tls,http,https,httpproxy,crypto"
STREAMED = f"{CONTAINERS},rtsp,rtp,mpjpeg,hls,aac,ac3,mp3,webvtt"
DEFAULTS = {
    "rtsp_transport": "tcp",  # FFmpeg's own choice, UDP, loses parts of pictures
    "fpsprobesize": "0",  # a rate is not needed, and finding it takes a second
}


class Camera:
    """What a camera shows now, as `LiveFrame`s at `fps`: iterate over it, best inside `with`.

    `source` is a device (/dev/video0, or a name as FFmpeg's `format` has it: v4l2, avfoundation,
    dshow) or an address (rtsp, rtsps, http, https, udp, tcp). `options` are FFmpeg's, as
    {"video_size": "1280x720"}. A thread decodes all pictures and keeps the newest, so a slow reader
    misses some and is never late. Times are the pictures' own, or of their arrival where these are
    missing or leap. Damaged pictures are left out and counted (`damaged`). The frames end with the
    camera; leaving `with`, or a loop without it, closes the camera.

    Raises:
        ConfigError: if a number does not fit.
        VideoError: if it cannot be opened, breaks off, or gives no picture for `timeout_s`; without
            passwords.
    """

    def __init__(
        self,
        source: str | Path,
        fps: float,
        image_size: int,
        *,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        above_zero("", fps=fps, timeout_s=timeout_s)
        whole_at_least("", 1, image_size=image_size)
        self.fps = fps
        self._source = _source(str(source), format, options or {}, timeout_s)
        self._transform = ClipTransform(image_size, None)
        self._newest: Newest | None = None

    @property
    def damaged(self) -> int:
        """How many pictures were damaged, or refer to such or to some from before the start."""
        return 0 if self._newest is None else self._newest.damaged

    def __enter__(self) -> Camera:
        self._newest = Newest(self._source, self.fps)
        self._newest.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the camera and end its thread; frames that are iterated over end, too."""
        if self._newest is not None:
            self._newest.close()

    def __iter__(self) -> Iterator[LiveFrame]:
        running = self._newest is not None and not self._newest.closed
        with nullcontext() if running else self:
            newest, reformatter = self._newest, VideoReformatter()
            while newest is not None and (taken := newest.take()) is not None:
                picture = as_shown(taken.picture, reformatter, self._source.name)
                yield LiveFrame(taken.time_s, self._transform(picture), taken.missed)


def _source(
    address: str, format: str | None, options: Mapping[str, str], timeout_s: float
) -> Source:
    name = redacted_address(address)
    scheme, is_address, _ = address.partition("://")
    if not is_address:
        if format is None and Path(address).is_file():
            raise VideoError(f"{name} is a film and no camera; give it as a file")
        return Source(
            address,
            name,
            format or DEVICES.get(sys.platform, "v4l2"),
            dict(options),
            {"protocol_whitelist": "file"},
            timeout_s,
            "check that it is plugged in, that you may read it, and that no other program does",
        )
    if scheme.lower() not in SCHEMES:
        known = ", ".join(SCHEMES)
        raise VideoError(f"{name} is no camera; give a device, or an address of {known}")
    formats = STREAMED if format is None else f"{STREAMED},{format}"
    return Source(
        address,
        name,
        format,
        {**DEFAULTS, **options},
        {"protocol_whitelist": PROTOCOLS, "format_whitelist": formats},
        timeout_s,
        "check that it is on, and its address, user and password",
    )
