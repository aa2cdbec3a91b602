"""Frozen encoder outputs on disk: float16, memory-mapped, written once, read without pickle.

A cache is a folder with a sub-folder for each encoder, by its fingerprint, and in that one
safetensors file for each entry, of a film or of a sound. Any number of processes may read and
write at once: a file appears whole or not at all, and who writes an entry a second time writes the
same.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mmavlm.core.checksums import KEY, damaged_tensors, noted, tell_unverified, tensor_crc32
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.medium import Medium
from mmavlm.data.encoder_cards import EncoderCard, write_whole
from mmavlm.data.film_entries import Entry, FilmFrames, FilmPlan
from mmavlm.data.sampling import StretchError

FORMAT, WITHOUT_CHECKSUMS = "mmavlm features 2", "mmavlm features 1"
CHECKSUMS = "crc32"  # one for each frame, so that frames are verified that are read, and no other
SUFFIX = ".safetensors"
MISSING = "missing"
COMPUTED_ANEW = "remove the file, and the next run computes it anew"
# What a killed writer leaves is removed when it is older than any write takes.
ABANDONED_S = 3600.0


class DamagedEntryError(VideoError):
    """A file of the cache that is not what its name says."""


@dataclass(frozen=True)
class FeatureCache:
    """The features of one encoder below the folder `root`."""

    root: Path
    card: EncoderCard

    def path(self, entry: Entry) -> Path:
        """Where an entry lies; no name of an annotation is part of it."""
        return self.root / self.card.folder / entry.key[:2] / f"{entry.key}{SUFFIX}"

    def problem(self, entry: Entry) -> str | None:
        """None where the entry is there and whole, otherwise "missing" or what is wrong with it."""
        try:
            self._open(entry)
        except FileNotFoundError:
            return MISSING
        except DamagedEntryError as error:
            return str(error)
        return None

    def write(self, entry: Entry, film: FilmFrames, features: Tensor) -> None:
        """Keep the features (N,P,Dv) of a film's frames, or of a sound's clips.

        Raises:
            ConfigError: if the folder cannot be written, or float16 cannot hold the features.
        """
        kept = features.detach().to("cpu", torch.float16)
        if not bool(torch.isfinite(kept).all()):
            raise ConfigError(
                f"the encoder gives values of {entry.video_id} beyond float16 (at most 65504) or "
                "that are no numbers, which the cache cannot hold; set data.cache=null"
            )
        of_frames = torch.tensor([tensor_crc32(frame) for frame in kept], dtype=torch.int64)
        tensors = {"times_s": film.times_s, "rows": film.rows, CHECKSUMS: of_frames}
        told = {**self._told(entry), KEY: noted(tensors)}
        write_whole(self.path(entry), save({**tensors, "features": kept.contiguous()}, told))

    def read(self, entry: Entry, row: int) -> tuple[Tensor, Tensor]:
        """Features (T,P,Dv) float16 and times (T,) of the entry's stretch number `row`.

        Only the pages of these frames are read from disk.

        Raises:
            StretchError: if the film gave no frame of the stretch.
            VideoError: if the entry is missing or damaged.
        """
        try:
            tensors = self._open(entry)
        except FileNotFoundError:
            raise VideoError(
                f"{self.path(entry)}, its features, is gone from data.cache; "
                "run `python -m mmavlm.cache` or start again"
            ) from None
        chosen = tensors["rows"][row].long()
        chosen = chosen[chosen >= 0]
        if not len(chosen) and (why := entry.why_empty(row)):
            raise StretchError(why)
        features = tensors["features"][chosen]
        if CHECKSUMS in tensors:
            found = [tensor_crc32(frame) for frame in features]
            same = found == tensors[CHECKSUMS][chosen].tolist()
            self._require(same, entry, f"the checksum of a frame is another; {COMPUTED_ANEW}")
        return features, tensors["times_s"][chosen]

    def sweep(self) -> None:
        """Remove what writers left that were killed."""
        for left in (self.root / self.card.folder).glob("*/.*.partial"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > ABANDONED_S:
                    left.unlink()

    def _open(self, entry: Entry) -> dict[str, Tensor]:
        """The tensors of an entry, mapped and not yet read."""
        path = self.path(entry)
        try:
            with safe_open(path, framework="pt") as file:
                told = dict(file.metadata() or {})
                checksums = told.pop(KEY, None)
                self._require(told == self._told(entry, checksums), entry, "its header differs")
                names = file.keys()
                found = {name: file.get_slice(name) for name in names}
                self._require_shapes(entry, found, verified=checksums is not None)
                tensors = {name: file.get_tensor(name) for name in names}
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(path) from None
        except (SafetensorError, OSError, ValueError) as error:
            raise DamagedEntryError(f"{path}, features of {entry.video_id}: {error}") from error
        if checksums is None:
            tell_unverified(f"the feature cache {self.root}")
        else:
            small = {name: tensor for name, tensor in tensors.items() if name != "features"}
            wrong = damaged_tensors(small, checksums)
            self._require(not wrong, entry, f"the checksum of its {', '.join(wrong)} is another")
        rows = tensors["rows"]
        inside = bool(((rows >= -1) & (rows < len(tensors["features"]))).all())
        self._require(inside, entry, "it names frames it does not have")
        return tensors

    def _require_shapes(self, entry: Entry, found: dict[str, Any], *, verified: bool) -> None:
        shapes = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in found.items()}
        frames = shapes.get("times_s", ("", (0,)))[1][0]
        wanted = {
            "features": ("F16", (frames, self.card.num_tokens, self.card.width)),
            "times_s": ("F32", (frames,)),
            "rows": ("I32", entry.rows_shape),
        }
        if verified:
            wanted[CHECKSUMS] = ("I64", (frames,))
        self._require(shapes == wanted, entry, f"it holds {shapes}, expected {wanted}")

    def _require(self, right: bool, entry: Entry, why: str) -> None:
        if not right:
            raise DamagedEntryError(f"{self.path(entry)}, features of {entry.video_id}: {why}")

    def _told(self, entry: Entry, checksums: str | None = "") -> dict[str, str]:
        told = {"format": WITHOUT_CHECKSUMS if checksums is None else FORMAT, "key": entry.key}
        return {**told, "fingerprint": self.card.fingerprint, "video": entry.video_id}


class CachedFilms:
    """The features of a set's films, as a dataset reads them."""

    def __init__(self, cache: FeatureCache, plan: FilmPlan) -> None:
        self.cache = cache
        self.plan = plan

    def read(self, medium: Medium) -> tuple[Tensor, Tensor]:
        """Features (T,P,Dv) and times (T,) of a medium; errors as of `FeatureCache.read`."""
        return self.cache.read(*self.plan.place(medium))
