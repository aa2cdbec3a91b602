"""The command `python -m mmavlm.movies out=<folder> clips=400 seed=0`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmavlm.errors import MmavlmError
from mmavlm.movies.write import ensure_movie_set


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a synthetic movie set; settings are key=value, as with the other commands."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args([f"--{a}" if "=" in a and a[0] != "-" else a for a in given])
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    settings = vars(options)
    out = settings.pop("out")
    try:
        with Progress(*columns) as bar:
            films = bar.add_task("films", total=options.clips)
            ensure_movie_set(
                out, **settings, progress=lambda done, total: bar.update(films, completed=done)
            )
    except MmavlmError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmavlm-movies",
        usage="mmavlm-movies out=FOLDER [key=value ...]",
        description="Make a set of synthetic movies with LVU annotation and captions.",
    )
    parser.add_argument("--out", required=True, help="the folder to make the set in")
    parser.add_argument("--clips", type=int, default=400, help="how many films (400)")
    parser.add_argument("--seed", type=int, default=0, help="what all chance follows from (0)")
    parser.add_argument("--duration_s", type=float, default=12.0, help="length in seconds (12)")
    parser.add_argument("--fps", type=int, default=10, help="frames per second (10)")
    parser.add_argument("--size", type=int, default=96, help="side of the picture in pixels (96)")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes to draw in; 0 draws in this one (all cores)",
    )
    return parser


if __name__ == "__main__":
    main()
