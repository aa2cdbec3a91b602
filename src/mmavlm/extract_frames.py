"""Films → folders of JPEGs: `python -m mmavlm.extract_frames videos=… frames=…`.

For a public set, `mmavlm.prepare` does this and checks the number of frames as well. How pictures
are taken, and what an interrupted extraction leaves, stands in mmavlm.data.extraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmavlm.commands.plain import run_plain


def extract_frames(
    videos: Path, frames: Path, fps: float, short_side: int, quality: int, workers: int | None
) -> int:
    """Extract all films below a folder; 1 if any of them failed, else 0.

    Raises:
        ConfigError: if a setting is out of range, or there is nothing to extract.
    """
    # Imported here, so that mistakes are told at once.
    from rich.console import Console

    from mmavlm.data.extraction import Extraction, extract_folder

    settings = Extraction(fps, short_side, quality)
    return 0 if extract_folder(videos, frames, settings, workers, Console(stderr=True)) else 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mmavlm-extract-frames`."""
    run_plain("extract-frames", extract_frames, arguments)


if __name__ == "__main__":
    main()
