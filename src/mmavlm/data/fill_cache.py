"""Decode, encode and keep what a feature cache lacks, beside whoever else does the same."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.data.cache_keys import Numbers, key_numbers
from mmavlm.data.feature_cache import MISSING, FeatureCache
from mmavlm.data.film_entries import Entry, FilmEntry, FilmFrames
from mmavlm.data.known_films import Identity

log = logging.getLogger(__name__)

HEADER_BYTES = 4096  # of a file, generously
LISTED = 10
OPENED = 10_000  # so many entries take a few seconds


class CacheFiller:
    """What of `entries` a cache lacks, what it will take, and the work of adding it.

    Entries that are damaged or another's are named in the log and computed anew. To find them, each
    is opened; of more than `OPENED` entries only with `verify`, and otherwise their names are
    listed, and damage is told when they are read.
    """

    def __init__(
        self, cache: FeatureCache, entries: Sequence[Entry], *, verify: bool = False
    ) -> None:
        self.cache = cache
        self.entries = entries
        looked_at = entries
        if len(entries) > OPENED and not verify:
            # those that are there are verified as they are read
            looked_at = list(compress(entries, (~cache.present(entries)).tolist()))
        problems = [(entry, cache.problem(entry)) for entry in looked_at]
        self.missing = [entry for entry, problem in problems if problem is not None]
        damaged = [problem for _, problem in problems if problem not in (None, MISSING)]
        for problem in damaged[:LISTED]:
            log.warning("damaged entry, to be computed anew: %s", problem)
        if len(damaged) > LISTED:
            log.warning("… and %d more damaged entries", len(damaged) - LISTED)

    @property
    def numbers(self) -> Numbers:
        """The numbers of all entries, by which a note says what is needed."""
        return key_numbers(entry.key for entry in self.entries)

    @property
    def films(self) -> list[tuple[Path, Identity]]:
        """The films of the entries, and what they are."""
        films = [entry for entry in self.entries if isinstance(entry, FilmEntry)]
        return [(film.stretches[0].source, list(film.identity)) for film in films]

    @property
    def needed_bytes(self) -> int:
        """What the missing entries will take, at most."""
        frames = sum(entry.most_frames for entry in self.missing)
        return frames * self.cache.card.frame_bytes + len(self.missing) * HEADER_BYTES

    @property
    def free_bytes(self) -> int:
        """What is free on the cache's disk."""
        root = self.cache.root.absolute()
        return shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free

    def __str__(self) -> str:
        what = "entries" if self.cache.card.of_pictures else "entries of sound"
        total = len(self.entries)
        counts = f"{total} {what}, {total - len(self.missing)} present"
        if self.missing:
            needed, free = size(self.needed_bytes), size(self.free_bytes)
            counts += f", {len(self.missing)} missing: up to {needed} to write, {free} free"
        return f"feature cache {self.cache.root}: {counts}"

    def require_room(self) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            ConfigError: with both sizes.
        """
        if self.needed_bytes > self.free_bytes:
            raise ConfigError(
                f"data.cache={self.cache.root} needs up to {size(self.needed_bytes)} more, "
                f"{size(self.free_bytes)} are free on its disk; give a folder on a larger one, "
                "lower data.num_frames, or set data.cache=null"
            )

    def fill(
        self,
        encode: Callable[[Tensor], Tensor],
        on_broken: Callable[[Iterable[str]], None],
        *,
        num_workers: int = 0,
    ) -> int:
        """Add the missing entries, and say how many were encoded here.

        `encode` takes frames uint8 (N,3,S,S), or clips (N,samples), to features (N,P,Dv);
        `on_broken` is told of `"video_id: reason"`. Each writer goes through the entries in an
        order of its own and passes over those that have come meanwhile, so several share the work.
        """
        self.cache.sweep()
        order = list(range(len(self.missing)))
        random.SystemRandom().shuffle(order)  # a seed would send all writers the same way
        loader: DataLoader[Any] = DataLoader(
            _DecodedFilms(self.cache, self.missing),
            batch_size=None,
            sampler=order,
            num_workers=num_workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # the run's own is not to depend on what was missing
        )
        written = 0
        films = track(loader, "encoding films", len(order), console=Console(stderr=True))
        for index, film in zip(order, films, strict=True):
            entry = self.missing[index]
            if isinstance(film, str):
                on_broken([f"{entry.video_id}: {film}"])
            elif film is not None and self.cache.problem(entry) is not None:
                on_broken(f"{entry.video_id}: {problem}" for problem in film.problems)
                card = self.cache.card
                nothing = torch.zeros(0, card.num_tokens, card.width)
                features = encode(film.frames) if len(film.frames) else nothing
                self.cache.write(entry, film, features)
                written += 1
        return written


class _DecodedFilms(Dataset[FilmFrames | str | None]):
    """Entries as decoded frames, as why they are broken, or None for those that have come."""

    def __init__(self, cache: FeatureCache, entries: Sequence[Entry]) -> None:
        self.cache = cache
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> FilmFrames | str | None:
        entry = self.entries[index]
        if self.cache.problem(entry) is None:
            return None
        try:
            return entry.decode(self.cache.card)
        except VideoError as error:
            return str(error)


def _unchanged(film: Any) -> Any:
    return film


def size(number: int) -> str:
    """Bytes as a reader takes them in."""
    for unit, least in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if number >= least:
            return f"{number / least:.1f} {unit}"
    return f"{number / 2**10:.0f} KiB"
