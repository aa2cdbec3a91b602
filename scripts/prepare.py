"""A public set, made ready: frames extracted, and their number checked against the annotation.

    python scripts/prepare.py lvu --root data
    python scripts/prepare.py lvu --root data --write-counts
    python -m mmavlm.train experiment=lvu_genre data.root=data data.reader.counted=true

The set is one of conf/data whose annotation counts frames. Films are taken from
<root>/<set>/videos, or another folder (--videos), and extracted to <root>/<set>/frames as by
extract_frames.py; where there are no films, the frames that are there are checked alone.

FFmpeg's versions and rounding give some films a few frames more or less than an annotation says.
Each such film is named. With --write-counts the numbers that are there go into a copy beside the
annotation, train.counted.json and so on, which data.reader.counted=true takes; the annotation
itself stays as it is. Ends with 1 if a film failed or a difference is left as it is, else with 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console

from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import ConfigError, MmavlmError
from mmavlm.data.extraction import add_settings, extract_folder
from mmavlm.data.frame_counts import CountedReader, Counts, FrameCounts

LISTED = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Extract and check a set; 1 if something is left to mend, else 0."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    try:
        return prepare(options, console)
    except (MmavlmError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 1


def prepare(options: argparse.Namespace, console: Console) -> int:
    """What `main` does, mistakes raised.

    Raises:
        ConfigError: if the set or a folder is unknown, or there is nothing to extract or check.
        DataError: if there is no annotation, or it is broken.
    """
    reader, root = reader_of(options.set), options.root
    if not root.is_dir():
        raise ConfigError(f"--root {root} is no folder; give the one that holds the data")
    checker = FrameCounts(reader, root)
    annotations = checker.annotations()  # told before hours of extraction
    videos = options.videos or checker.frames.parent / "videos"
    whole = True
    if options.videos or videos.is_dir() or not checker.frames.is_dir():
        whole = extract_folder(videos, checker.frames, options, console)
    left = False
    for path in annotations:
        counts = checker.compare(path)
        tell(counts, console)
        if options.write_counts and (copy := checker.write(counts)):
            console.print(f"wrote {copy}", markup=False, soft_wrap=True)
        left = left or (bool(counts.differ) and not options.write_counts)
    if options.write_counts:
        console.print("train with data.reader.counted=true to take the copies that were written")
    elif left:
        console.print(
            "add --write-counts to take the numbers that are there, or remove these folders to "
            "extract them anew; data.reader.source=video reads the films and needs no frames"
        )
    return 0 if whole and not left else 1


def reader_of(name: str) -> CountedReader:
    """The reader of a set, as conf/data has it.

    Raises:
        ConfigError: if there is no such set, or its annotation counts no frames.
    """
    found: dict[str, Any] = {}
    sets = config_dir() / "data"
    common = OmegaConf.load(sets / "videos.yaml")
    for path in sorted(sets.glob("*.yaml")):
        given = {"seed": 0, "clips": None, "root": "."}  # which the annotation does not depend on
        config = OmegaConf.merge(common, OmegaConf.load(path), given)
        reader = instantiate(config.get("reader"))  # a mix has none of its own
        if isinstance(reader, CountedReader):
            found[path.stem] = reader
    if name not in found:
        raise ConfigError(f"{name!r} is no set that counts frames; choose one of {list(found)}")
    return found[name]


def tell(counts: Counts, console: Console) -> None:
    """Print what a file says of its films beside what is there."""
    lines = [
        f"{counts.path}: {counts.equal} films agree, {len(counts.differ)} differ, "
        f"{len(counts.absent)} have no frames, {len(counts.unusable)} entries cannot be used"
    ]
    lines += _some(
        f"  {f}: {said} said, {there} there" for f, (said, there) in counts.differ.items()
    )
    lines += _some(f"  {film}: no folder of frames" for film in counts.absent)
    lines += _some(f"  {reason}" for reason in counts.unusable.values())
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _some(lines: Any) -> list[str]:
    every = list(lines)
    more = [f"  … and {len(every) - LISTED} more"] if len(every) > LISTED else []
    return every[:LISTED] + more


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", help="a set of conf/data, such as lvu, breakfast, msvd_qa")
    parser.add_argument("--root", type=Path, required=True, help="as data.root: it holds the set")
    parser.add_argument("--videos", type=Path, help="folder of films, if not <root>/<set>/videos")
    parser.add_argument("--write-counts", action="store_true", help="write corrected copies")
    add_settings(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
