"""An evaluation killed at random moments leaves the files of one that ran through.

    python scripts/kill_evaluation.py [--rows 100000] [--kills 2] [--seed 0] [--json]

A small model with random weights answers so many questions about twelve synthetic films, once
undisturbed and once with SIGKILL, when a random share of the answers is on disk. Exits with 1
unless predictions.jsonl and metrics.json of both are the same, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine
from mmavlm.movies import ensure_movie_set

SETTINGS = [
    "experiment=own_videos", "model=tiny", "trainer=cpu", "init.allow_random=true",
    "data.num_frames=2", "data.num_workers=0", "data.keep_frames=true", "data.eval_batch_size=256",
    "stage.num_beams=1", "stage.num_answers=1", "stage.max_new_tokens=3", "callbacks.progress=null",
]  # fmt: skip
COMPARED = ("predictions.jsonl", "metrics.json")


def make_set(folder: Path, rows: int, draws: random.Random) -> Path:
    """A user's own set with so many questions to test."""
    films = ensure_movie_set(folder / "films", clips=12, duration_s=2)
    videos = sorted((films / "lvu/videos").glob("*.mp4"))
    (folder / "own").mkdir()
    (folder / "own/videos").symlink_to(videos[0].parent)
    for split, count in (("train", 1), ("val", 1), ("test", rows)):
        with (folder / f"own/{split}.jsonl").open("w") as file:
            for number in range(count):
                row = {"video": f"videos/{draws.choice(videos).name}", "answer": "a cat"}
                file.write(json.dumps({**row, "prompt": f"question {number}?"}) + "\n")
    return folder / "own"


def started(root: Path, folder: Path) -> subprocess.Popen[bytes]:
    """An evaluation that leaves its files in a folder."""
    line = [sys.executable, "-m", "mmavlm.evaluate", *SETTINGS, f"data.root={root}"]
    return subprocess.Popen([*line, f"hydra.run.dir={folder}"], stdout=subprocess.DEVNULL)


def killed(process: subprocess.Popen[bytes], answers: Path, size: float, wait_s: float) -> None:
    """Kill an evaluation some time after so many bytes of answers are there."""
    while not answers.is_file() or answers.stat().st_size < size:
        if process.poll() is not None:
            raise SystemExit(f"the evaluation ended with {process.returncode} before it was killed")
        time.sleep(0.02)
    time.sleep(wait_s)
    process.kill()
    process.wait()


def bench(rows: int, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """What both evaluations left, and how long they took."""
    draws = random.Random(seed)
    root = make_set(folder, rows, draws)
    whole, cut = folder / "whole", folder / "killed"
    start = time.monotonic()
    if code := started(root, whole).wait():
        raise SystemExit(f"the evaluation ended with {code}")
    whole_s = time.monotonic() - start
    size = (whole / COMPARED[0]).stat().st_size
    answers, lines = cut / "answers/0_of_1.jsonl", []
    start = time.monotonic()
    for share in sorted(draws.uniform(0.05, 0.9) for _ in range(kills)):
        killed(started(root, cut), answers, share * size, draws.random())
        lines.append(answers.read_bytes().count(b"\n"))
    code = started(root, cut).wait()
    same = [(whole / name).read_bytes() == (cut / name).read_bytes() for name in COMPARED]
    return {
        "rows": rows,
        "lines_at_kills": lines,
        "same": dict(zip(COMPARED, same, strict=True)),
        "exit": code,
        "whole_s": whole_s,
        "killed_s": time.monotonic() - start,
        **machine(),
    }


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        result = bench(options.rows, options.kills, options.seed, Path(made))
    told = {name: value for name, value in result.items() if name in ("rows", "same", "exit")}
    print(json.dumps(result if options.json else told))
    if result["exit"] or not all(result["same"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
