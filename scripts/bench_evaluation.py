"""Seconds and memory of scores without a model, over many predictions.

    python scripts/bench_evaluation.py [--rows 10000 100000 1000000] [--keep FOLDER] [--json]

`evaluate predictions=` and `evaluate compare=` run in processes of their own, on made-up answers:
one question in two is open, the other has ten classes, which are ranked, too; five are about each
film. Two runs are right in 60 % and 65 % of them. To measure another checkout, put its `src` into
PYTHONPATH, and give `--keep` a folder, so that both read the same files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from machine import machine
from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction, write_predictions

QUESTIONS = 5  # about each film
CLASSES = [f"class {number}" for number in range(10)]
WORDS = [f"word{number}" for number in range(5000)]
MIB = 2**20


def predictions(rows: int, seed: int, right: float) -> Iterator[Prediction]:
    """Made-up answers; of each item only those depend on the seed, and how often they are right."""
    draws = random.Random(seed)
    for number in range(rows):
        item = random.Random(number)
        is_open = number % 2 == 0
        choices = WORDS if is_open else CLASSES
        truth = item.choice(choices)
        said = [truth if draws.random() < right else draws.choice(choices)]
        said += draws.sample(choices, 4)
        answers = [Answer(text, -draws.random()) for text in said]
        ranking = [] if is_open else [Answer(c, -draws.random()) for c in draws.sample(CLASSES, 10)]
        yield Prediction(
            f"question {number}", f"film {number // QUESTIONS}", "qa" if is_open else "class",
            f"What is seen in the film at second {number % 7}?", truth, answers, ranking, [truth],
        )  # fmt: skip


def measured(arguments: list[str]) -> dict[str, float]:
    """Seconds, those of the processor, and peak memory in MiB of a command, which must not fail."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return {
        "seconds": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,  # of use where the machine is busy
        "peak_mib": usage.ru_maxrss * 1024 / MIB,
    }


def bench(sizes: list[int], samples: int, kept: Path) -> dict[str, Any]:
    """What both commands take, by number of rows."""
    found: dict[str, Any] = {}
    for rows in sizes:
        runs = [kept / f"{rows}_{name}.jsonl" for name in "ab"]
        for seed, (path, right) in enumerate(zip(runs, (0.6, 0.65), strict=True)):
            if not path.is_file():
                write_predictions(path, predictions(rows, seed, right))
        own = f"hydra.run.dir={kept}/out_{rows}"
        a, b = map(str, runs)
        compare = [f"compare=[{a},{b}]", f"samples={samples}"]
        found[str(rows)] = {
            "file_mib": runs[0].stat().st_size / MIB,
            "predictions": measured(["mmavlm.evaluate", f"predictions={a}", own]),
            "compare": measured(["mmavlm.evaluate", *compare, own]),
        }
    return {"rows": found, "samples": samples, **machine()}


def show(result: dict[str, Any]) -> None:
    """Print the numbers as a table."""
    table = Table("rows", "file", "predictions=", "", f"compare=, {result['samples']} draws", "")
    for rows, found in result["rows"].items():
        cells = [
            text
            for name in ("predictions", "compare")
            for text in (f"{found[name]['cpu_s']:.1f} s", f"{found[name]['peak_mib']:.0f} MiB")
        ]
        table.add_row(rows, f"{found['file_mib']:.0f} MiB", *cells)
    Console().print(table)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="a folder in which the rows are kept")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        kept = options.keep or Path(made)
        kept.mkdir(parents=True, exist_ok=True)
        result = bench(options.rows, options.samples, kept)
    print(json.dumps(result)) if options.json else show(result)


if __name__ == "__main__":
    main()
