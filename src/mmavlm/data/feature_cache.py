"""Frozen encoder outputs on disk: float16, memory-mapped, written once, read without pickle.

A cache is a folder with a sub-folder for each encoder, by its fingerprint, and in that one
safetensors file for each entry, of a film or of a sound, or packs of many such files. Any number of
processes may read and write at once: a file appears whole or not at all, and who writes an entry a
second time writes the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from mmavlm.core.checksums import KEY, damaged_tensors, noted, tell_unverified, tensor_crc32
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.medium import Medium
from mmavlm.data.cache_keys import SUFFIX, key_numbers, listed_keys
from mmavlm.data.encoder_cards import EncoderCard, write_whole
from mmavlm.data.feature_packs import Packs
from mmavlm.data.film_entries import Entry, FilmFrames, FilmPlan
from mmavlm.data.known_films import KnownFilms, identity
from mmavlm.data.sampling import StretchError
from mmavlm.data.stored_tensors import Stored, stored_at, stored_in

FORMAT, WITHOUT_CHECKSUMS = "mmavlm features 2", "mmavlm features 1"
CHECKSUMS = "crc32"  # one for each frame, so that frames are verified that are read, and no other
MISSING = "missing"
COMPUTED_ANEW = "remove the file, and the next run computes it anew"
# What a killed writer leaves is removed when it is older than any write takes.
ABANDONED_S = 3600.0


class DamagedEntryError(VideoError):
    """A file of the cache that is not what its name says."""


@dataclass(frozen=True)
class FeatureCache:
    """The features of one encoder below the folder `root`; `known` is what it says of films."""

    root: Path
    card: EncoderCard
    known: KnownFilms | None = None

    def path(self, entry: Entry) -> Path:
        """Where an entry lies; no name of an annotation is part of it."""
        return self.folder / entry.key[:2] / f"{entry.key}{SUFFIX}"

    @property
    def folder(self) -> Path:
        """Where the entries of the encoder lie."""
        return self.root / self.card.folder

    @cached_property
    def packs(self) -> Packs:
        """The entries that have no files of their own."""
        return Packs(self.folder)

    def present(self, entries: Sequence[Entry]) -> NDArray[np.bool_]:
        """Which entries (n,) are there by their names; none of them is opened."""
        there = np.concatenate([key_numbers(listed_keys(self.folder)), self.packs.numbers])
        return np.isin(key_numbers(entry.key for entry in entries), there)

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
        for left in self.folder.glob("*/.*.partial"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > ABANDONED_S:
                    left.unlink()

    def _open(self, entry: Entry) -> dict[str, Tensor]:
        """The tensors of an entry, mapped and not yet read."""
        try:
            stored = self._stored(entry)
        except ValueError as error:
            raise DamagedEntryError(self._named(entry, str(error))) from error
        told = dict(stored.told)
        checksums = told.pop(KEY, None)
        self._require(told == self._told(entry, checksums), entry, "its header differs")
        self._require_shapes(entry, stored, verified=checksums is not None)
        if checksums is None:
            tell_unverified(f"the feature cache {self.root}")
        else:
            small = {name: part for name, part in stored.tensors.items() if name != "features"}
            wrong = damaged_tensors(small, checksums)
            self._require(not wrong, entry, f"the checksum of its {', '.join(wrong)} is another")
        rows = stored.tensors["rows"]
        inside = bool(((rows >= -1) & (rows < len(stored.tensors["features"]))).all())
        self._require(inside, entry, "it names frames it does not have")
        return stored.tensors

    def _stored(self, entry: Entry) -> Stored:
        """An entry as it lies in a file of its own, which was written later, or in a pack."""
        try:
            return stored_in(self.path(entry))
        except FileNotFoundError:
            if (content := self.packs.find(entry.key)) is None:
                raise
            return stored_at(content)

    def _require_shapes(self, entry: Entry, stored: Stored, *, verified: bool) -> None:
        shapes = stored.shapes
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
            raise DamagedEntryError(self._named(entry, why))

    def _named(self, entry: Entry, why: str) -> str:
        where = self.path(entry)
        if not where.exists() and (part := self.packs.part(entry.key)) is not None:
            where = part.pack
        return f"{where}, features of {entry.video_id}: {why}"

    def damage(self, key: str, stored: Stored) -> str | None:
        """What is wrong with the file of an entry of which only its key is known; None if nothing.

        Unlike `problem` it reads all frames.
        """
        told, parts = dict(stored.told), stored.tensors
        checksums = told.pop(KEY, None)
        if (told.get("key"), told.get("fingerprint")) != (key, self.card.fingerprint):
            return "its header differs"
        if checksums is None:
            return None  # of an earlier version
        small = {name: part for name, part in parts.items() if name != "features"}
        if damaged_tensors(small, checksums) or not {"features", CHECKSUMS} <= parts.keys():
            return "a checksum is another"
        of_frames = [tensor_crc32(frame) for frame in parts["features"]]
        same = of_frames == parts[CHECKSUMS].tolist()
        return None if same else "the checksum of a frame is another"

    def _told(self, entry: Entry, checksums: str | None = "") -> dict[str, str]:
        told = {"format": WITHOUT_CHECKSUMS if checksums is None else FORMAT, "key": entry.key}
        return {**told, "fingerprint": self.card.fingerprint, "video": entry.video_id}


class CachedFilms:
    """The features of a set's films, as a dataset reads them."""

    def __init__(self, cache: FeatureCache, plan: FilmPlan) -> None:
        self.cache = cache
        self.plan = plan

    def read(self, medium: Medium) -> tuple[Tensor, Tensor]:
        """Features (T,P,Dv) and times (T,) of a medium; errors as of `FeatureCache.read`.

        Raises:
            VideoError: also if the film is no longer what is remembered of it.
        """
        entry, row = self.plan.place(medium)
        if self.plan.known is not None and tuple(identity(medium.source)) != entry.identity:
            raise VideoError(
                f"{medium.source} has changed, or is gone, since its features were computed; run "
                "`python -m mmavlm.cache`, which looks at every film"
            )
        return self.cache.read(entry, row)
