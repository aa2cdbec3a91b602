"""A public set, made ready: frames extracted, and their number checked against the annotation.

    python -m mmavlm.prepare lvu root=data
    python -m mmavlm.prepare lvu root=data write_counts=true
    python -m mmavlm.train experiment=lvu_genre data.root=data data.reader.counted=true

The set is one of conf/data whose annotation counts frames. Films are taken from
<root>/<set>/videos, or another folder (videos=…), and extracted to <root>/<set>/frames as by
`mmavlm.extract_frames`; where there are no films, the frames that are there are checked alone.

FFmpeg's versions and rounding give some films a few frames more or less than an annotation says.
Each such film is named. With write_counts=true the numbers that are there go into a copy beside the
annotation, train.counted.json and so on, which data.reader.counted=true takes; the annotation
itself stays as it is. Ends with 1 if a film failed or a difference is left as it is, else with 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.commands.plain import run_plain
from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import ConfigError

if TYPE_CHECKING:  # what reads and extracts is imported when mistakes have been told
    from rich.console import Console

    from mmavlm.data.extraction import Extraction
    from mmavlm.data.frame_counts import CountedReader, Counts, FrameCounts

LISTED = 20


def prepare(
    set: str,
    root: Path,
    videos: Path | None,
    write_counts: bool,
    workers: int | None,
    **extraction: Any,
) -> int:
    """Extract and check a set; 1 if something is left to mend, else 0.

    Raises:
        ConfigError: if the set or a folder is unknown, or there is nothing to extract or check.
        DataError: if there is no annotation, or it is broken.
    """
    if not root.is_dir():
        raise ConfigError(f"root={root} is no folder; give the one that holds the data")
    from rich.console import Console

    from mmavlm.data.extraction import Extraction
    from mmavlm.data.frame_counts import FrameCounts

    reader, settings = reader_of(set), Extraction(**extraction)
    console = Console(stderr=True, highlight=False)
    checker = FrameCounts(reader, root)
    annotations = checker.annotations()  # told before hours of extraction
    whole = _extracted(checker, videos, settings, workers, console)
    left = False
    for path in annotations:
        counts = checker.compare(path)
        tell(counts, console)
        if write_counts and (copy := checker.write(counts)):
            console.print(f"wrote {copy}", markup=False, soft_wrap=True)
        left = left or (bool(counts.differ) and not write_counts)
    if write_counts:
        console.print("train with data.reader.counted=true to take the copies that were written")
    elif left:
        console.print(
            "add write_counts=true to take the numbers that are there, or remove these folders to "
            "extract them anew; data.reader.source=video reads the films and needs no frames"
        )
    return 0 if whole and not left else 1


def _extracted(
    checker: FrameCounts,
    videos: Path | None,
    settings: Extraction,
    workers: int | None,
    console: Console,
) -> bool:
    """Extract the films that there are; whether none failed."""
    from mmavlm.data.extraction import extract_folder

    folder = videos or checker.frames.parent / "videos"
    if videos is None and not folder.is_dir() and checker.frames.is_dir():
        return True
    return extract_folder(folder, checker.frames, settings, workers, console)


def reader_of(name: str) -> CountedReader:
    """The reader of a set, as conf/data has it.

    Raises:
        ConfigError: if there is no such set, or its annotation counts no frames.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from mmavlm.data.frame_counts import CountedReader

    found: dict[str, Any] = {}
    sets = config_dir() / "data"
    common = OmegaConf.load(sets / "videos.yaml")
    for path in sorted(sets.glob("*.yaml")):
        given = {"seed": 0, "clips": None, "root": "."}  # which the annotation does not depend on
        config = OmegaConf.merge(common, OmegaConf.load(path), given)
        reader = instantiate(OmegaConf.select(config, "reader"))  # a mix has none of its own
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


def _some(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    more = [f"  … and {len(every) - LISTED} more"] if len(every) > LISTED else []
    return every[:LISTED] + more


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mmavlm-prepare`."""
    run_plain("prepare", prepare, arguments)


if __name__ == "__main__":
    main()
