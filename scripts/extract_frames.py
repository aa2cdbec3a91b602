"""Films → folders of JPEGs, as MA-LMM's annotations count them: 10 a second, short side 256.

    python scripts/extract_frames.py --videos data/lvu/videos --frames data/lvu/frames

For a public set, scripts/prepare.py does this and checks the number of frames as well. How pictures
are taken, and what an interrupted extraction leaves, stands in mmavlm.data.extraction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mmavlm.core.errors import MmavlmError
from mmavlm.data.extraction import add_settings, extract_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Extract all films below a folder; 1 if any of them failed, else 0."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        return 0 if extract_folder(options.videos, options.frames, options, console) else 1
    except MmavlmError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder of films, searched deep")
    parser.add_argument("--frames", type=Path, required=True, help="folder to write folders to")
    add_settings(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
