"""How soon commands speak and end, as ratios to the time of `python -c "import torch"`.

    python scripts/bench_start.py [--repeats 3] [--only check] [--json]

Each command runs in a process of its own, on a few synthetic films and predictions that are made
first. A round starts all of them one after another, torch first; medians over the rounds. To
measure another checkout, put its `src` into PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from machine import machine
from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction, write_predictions
from mmavlm.movies import ensure_movie_set

TORCH = "import torch"


def commands(root: Path, runs: tuple[Path, Path]) -> dict[str, list[str]]:
    """What is timed, by name: the arguments of `python`."""
    small = ["model=tiny", "trainer=cpu", "data.num_workers=0", "data.num_frames=4"]
    of_lvu = ["experiment=lvu_genre", *small]
    a, b = runs
    lines = {
        "train --help": ["train", "--help"],
        "evaluate --help": ["evaluate", "--help"],
        "export --help": ["export", "--help"],
        "a misspelt experiment": ["train", "experiment=lvu_gen"],
        "a misspelt key": ["train", *of_lvu, f"data.root={root}", "data.batchsize=2"],
        "a missing root": ["train", *of_lvu, "data.root=/nowhere"],
        "too many frames": ["train", *of_lvu, f"data.root={root}", "data.num_frames=200"],
        "a missing checkpoint": ["evaluate", "checkpoint=gone.ckpt"],
        "check on LVU": ["check", "data=lvu", "data.task=genre", f"data.root={root}"],
        "evaluate compare=": ["evaluate", f"compare=[{a},{b}]", "samples=10"],
        "evaluate predictions=": ["evaluate", f"predictions={a}"],
        "a tab": ["completion", "query", "mmavlm", "train", "data."],
        "doctor": ["doctor"],
        "movies": ["movies", "out=films", "clips=4", "duration_s=2", "workers=0"],
        "train": ["train", *of_lvu, f"data.root={root}", "trainer.max_epochs=0", "test=false"],
    }
    timed = {name: ["-m", f"mmavlm.{verb}", *rest] for name, (verb, *rest) in lines.items()}
    return {TORCH: ["-c", TORCH], **timed}


def timed(arguments: list[str], folder: Path) -> tuple[float, float, int]:
    """Seconds until a process has printed a line (or ended without), to its end; its exit code."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    first = time.perf_counter() - start
    process.communicate()
    return first, time.perf_counter() - start, process.returncode


def bench(repeats: int, only: str) -> dict[str, Any]:
    """Ratios of first line and end to the time of importing torch, by command."""
    ratios: dict[str, list[tuple[float, float]]] = {}
    torch_s: list[float] = []
    codes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        root = ensure_movie_set(folder / "films", clips=12, duration_s=2)
        chosen = commands(root, (write_run(folder / "a", 0), write_run(folder / "b", 1)))
        for _ in range(repeats):
            for name, arguments in chosen.items():
                if name != TORCH and only not in name:
                    continue
                first, end, codes[name] = timed(arguments, folder)
                if name == TORCH:
                    torch_s.append(end)
                else:
                    ratios.setdefault(name, []).append((first / torch_s[-1], end / torch_s[-1]))
    return {
        "first_line": {name: median(first for first, _ in found) for name, found in ratios.items()},
        "end": {name: median(end for _, end in found) for name, found in ratios.items()},
        "exit": codes,
        "torch_s": median(torch_s),
        "repeats": repeats,
        **machine(),
    }


def write_run(folder: Path, wrong: int) -> Path:
    """A folder with predictions for a few questions, some of them wrong."""
    folder.mkdir()
    rows = []
    for k in range(20):
        said = Answer("comedy" if k % 4 > wrong else "drama", -1.0)
        rows.append(Prediction(f"i{k}", f"v{k}", "genre", "?", "comedy", [said], [], ["comedy"]))
    write_predictions(folder / "predictions.jsonl", rows)
    return folder


def show(result: dict[str, Any]) -> None:
    """Print the ratios as a table."""
    title = f"python -c 'import torch' = 1 ({result['torch_s']:.1f} s)"
    table = Table("command", "first line", "end", "exit", title=title)
    for name, first in result["first_line"].items():
        table.add_row(name, f"{first:.2f}", f"{result['end'][name]:.2f}", str(result["exit"][name]))
    Console().print(table)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="only commands whose name holds this")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    result = bench(options.repeats, options.only)
    print(json.dumps(result)) if options.json else show(result)


if __name__ == "__main__":
    main()
