"""Films of which only an encoder's outputs are left: a safetensors file in the place of a film.

`features` float16 (N,P,Dv) are the tokens of its frames, `times_s` float32 (N,) ascending from 0
say when these are, and `crc32` (N,) has the checksum of each, so that what is read is verified.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mmavlm.core.errors import DataError, VideoError
from mmavlm.core.files import written_whole

if TYPE_CHECKING:  # readers of annotations wait for no torch
    from torch import Tensor

SUFFIX = ".safetensors"
FORMAT = "mmavlm film features 1"
SAME_TIME_S = 1e-6
REMEDY = "convert or copy it again"
CHECKSUMS = "crc32"


def write_film_features(path: Path, features: Tensor, fps: float) -> None:
    """Keep the tokens (N,P,Dv) of a film's frames, of which frame k is at k/fps seconds.

    Raises:
        DataError: if there is no frame, or float16 cannot hold the tokens.
        OSError: if the folder cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    from mmavlm.core.checksums import KEY, noted, tensor_crc32

    if features.ndim != 3 or not features.numel():
        raise DataError(f"features of a film are (N,P,Dv), got {tuple(features.shape)}")
    kept = features.to(torch.float16).contiguous()
    if not all(bool(torch.isfinite(frame).all()) for frame in kept):
        raise DataError(
            f"features for {path} have values beyond float16 (at most 65504) or that are no numbers"
        )
    tensors = {
        "times_s": torch.arange(len(kept), dtype=torch.float32) / fps,
        CHECKSUMS: torch.tensor([tensor_crc32(frame) for frame in kept], dtype=torch.int64),
    }
    header = {"format": FORMAT, KEY: noted(tensors)}
    with written_whole(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        save_file({**tensors, "features": kept}, partial, header)
        partial.chmod(mode)  # safetensors leaves a file that its owner alone may read


def feature_times(path: Path) -> NDArray[np.float64]:
    """When the frames of a film are of which features are left, in seconds, ascending from 0.

    Raises:
        VideoError: naming the file, if it is missing, damaged or something else.
    """
    with _told(path):
        return _times(path, path.stat().st_mtime_ns)


def read_film_features(path: Path, times_s: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Tokens float16 (T,P,Dv) of the frames shown at some times, and the times (T,) of these.

    Only the pages of these frames are read from disk.

    Raises:
        VideoError: naming the file, if it is missing, damaged or something else.
    """
    import torch

    from mmavlm.core.checksums import tensor_crc32

    there = feature_times(path)
    rows = np.searchsorted(there, np.asarray(times_s) + SAME_TIME_S, side="right") - 1
    chosen = torch.from_numpy(rows.clip(0)).long()
    with _told(path), safe_open(path, framework="pt") as file:
        tokens = file.get_tensor("features")[chosen]
        expected = file.get_tensor(CHECKSUMS)[chosen].tolist()
    if [tensor_crc32(frame) for frame in tokens] != expected:
        raise VideoError(f"{path}: the checksum of a frame's features is another; {REMEDY}")
    return tokens, torch.from_numpy(there[rows.clip(0)]).float()


@lru_cache(maxsize=2048)
def _times(path: Path, changed: int) -> NDArray[np.float64]:
    """The times of a file that was last changed at this time, once its header is checked."""
    with safe_open(path, framework="np") as file:
        if (file.metadata() or {}).get("format") != FORMAT:
            raise ValueError(f"its header does not say {FORMAT!r}")
        _require_shapes({name: file.get_slice(name) for name in file.keys()})  # noqa: SIM118
        times_s = file.get_tensor("times_s").astype(np.float64)
    if times_s[0] != 0 or not np.isfinite(times_s).all() or (np.diff(times_s) <= 0).any():
        raise ValueError("its times do not ascend from 0")
    times_s.flags.writeable = False
    return times_s


def _require_shapes(found: dict[str, Any]) -> None:
    shapes = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in found.items()}
    frames = shapes.get("times_s", ("", ()))[1]
    _, sizes = shapes.get("features", ("", ()))
    wanted = {"times_s": ("F32", frames), CHECKSUMS: ("I64", frames), "features": ("F16", sizes)}
    whole = len(frames) == 1 and len(sizes) == 3 and sizes[:1] == frames and min(sizes) > 0
    if shapes != wanted or not whole:
        raise ValueError(
            f"it holds {shapes}; expected times_s F32 (N,), {CHECKSUMS} I64 (N,) and features F16 "
            "(N,P,Dv)"
        )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What goes wrong in reading a file, as an error that names it."""
    try:
        yield
    except FileNotFoundError:
        raise VideoError(f"{path} does not exist") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise VideoError(f"{path} holds no features of a film: {error}; {REMEDY}") from error
