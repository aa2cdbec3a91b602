"""What a start from a feature cache of very many entries takes, before any film is read.

    python scripts/bench_cache.py [--entries 100000 1000000] [--open-at-most 100000] [--json]

Entries are small and made here, of as many empty films. Timed are: naming the entries by size and
time of each film, and by what was remembered of it; finding out which are there by opening each, by
listing their names, and where all are in packs; and packing. Seconds are of the processor, since a
busy machine takes longer; a disk that is not cached does, too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save

from machine import machine
from mmavlm.core.checksums import KEY, noted, tensor_crc32
from mmavlm.core.medium import Medium
from mmavlm.data.cache_upkeep import pack_entries
from mmavlm.data.encoder_cards import EncoderCard
from mmavlm.data.feature_cache import CHECKSUMS, FORMAT, FeatureCache
from mmavlm.data.fill_cache import CacheFiller
from mmavlm.data.film_entries import FilmEntry, FilmPlan, Sampling
from mmavlm.data.known_films import KnownFilms

SAMPLING = Sampling(1, 10.0)
IN_A_FOLDER = 10_000
MIB = 2**20


def cpu_s(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor that some work takes, and what it gives."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, found


def make_films(folder: Path, count: int) -> list[Medium]:
    """So many empty files."""
    media = []
    for number in range(count):
        path = folder / f"{number // IN_A_FOLDER}/{number}.mp4"
        if number % IN_A_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.touch()
        media.append(Medium(medium_id=f"film {number}", source=path))
    return media


def make_entries(cache: FeatureCache, entries: list[FilmEntry]) -> None:
    """The files of entries, written without waiting for the disk."""
    frame = torch.zeros(1, 1, 1, dtype=torch.float16)
    small = {
        "times_s": torch.zeros(1),
        "rows": torch.zeros(1, 1, dtype=torch.int32),
        CHECKSUMS: torch.tensor([tensor_crc32(frame[0])]),
    }
    told = {"format": FORMAT, "fingerprint": cache.card.fingerprint, KEY: noted(small)}
    for entry in entries:
        path = cache.path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {**told, "key": entry.key, "video": entry.video_id}
        path.write_bytes(save({**small, "features": frame}, about))


def bench(count: int, open_at_most: int) -> dict[str, Any]:
    """Seconds of each part, and bytes of memory at the peak."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        media = make_films(Path(made, "films"), count)
        cache = FeatureCache(Path(made, "cache"), EncoderCard(32, 1, 1, "none"))
        found["named_s"], plan = cpu_s(lambda: FilmPlan(media, SAMPLING))
        known = KnownFilms(Path(made))
        known.remember([(e.stretches[0].source, list(e.identity)) for e in plan.entries])
        found["known_s"], again = cpu_s(lambda: FilmPlan(media, SAMPLING, KnownFilms(Path(made))))
        assert [entry.key for entry in again.entries] == [entry.key for entry in plan.entries]
        make_entries(cache, plan.entries)
        if count <= open_at_most:
            find = lambda: CacheFiller(cache, plan.entries, verify=True)  # noqa: E731
            found["opened_s"], filler = cpu_s(find)
            assert not filler.missing
        found["listed_s"], filler = cpu_s(lambda: CacheFiller(cache, plan.entries))
        assert not filler.missing
        found["packing_s"], _ = cpu_s(lambda: pack_entries(cache))
        fresh = FeatureCache(cache.root, cache.card)
        found["packed_s"], filler = cpu_s(lambda: CacheFiller(fresh, plan.entries))
        assert not filler.missing
        found["files_packed"] = sum(len(files) for _, _, files in os.walk(cache.root))
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    return found


def show(result: dict[str, Any]) -> None:
    """Print the seconds as a table."""
    names = ["named_s", "known_s", "opened_s", "listed_s", "packed_s", "packing_s"]
    table = Table("entries", *(name.removesuffix("_s") for name in names), "peak")
    for count, found in result["entries"].items():
        cells = [f"{found[name]:.1f} s" if name in found else "" for name in names]
        table.add_row(count, *cells, f"{found['peak_mib']:.0f} MiB")
    Console().print(table)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--open-at-most", type=int, default=100_000, help="entries to be opened")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    found = {str(count): bench(count, options.open_at_most) for count in options.entries}
    result = {"entries": found, **machine()}
    print(json.dumps(result)) if options.json else show(result)


if __name__ == "__main__":
    main()
