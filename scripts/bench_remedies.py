"""What a remedy of training costs: seconds a step, beside those of the arm alone.

    python scripts/bench_remedies.py data.root=data/biased arm=one_level --remedies group_dro
    python scripts/bench_remedies.py data.root=data/biased arm=baseline --remedies longer --json

The steps are those of `experiment=remedies`, loading of batches included; whatever else is given is
Hydra's. Remedies take turns, so that all of them meet the same machine; medians over all rounds but
their first steps, which warm up. Preference training starts from random weights here: a step costs
the same.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from machine import machine
from mmavlm.core.config_files import choices, config_dir
from mmavlm.run import Run

NO_REMEDY = "none"
OFFERED = [name for name in choices("remedy") if name != NO_REMEDY]
WARM_UP = 3  # steps of each round
PLAIN = [
    "callbacks.last_checkpoint=null", "callbacks.step_checkpoint=null", "callbacks.overview=null",
    "callbacks.progress=null", "callbacks.decodings=null", "+trainer.enable_progress_bar=false",
    "+trainer.enable_checkpointing=false", "test=false", "init.required=false", "resume=null",
]  # fmt: skip


class StepClock(L.Callback):
    """Seconds from the end of one training step to that of the next."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends_s.append(time.perf_counter())

    @property
    def steps_s(self) -> list[float]:
        """What the steps took behind those that warm up."""
        pairs = zip(self.ends_s, self.ends_s[1:], strict=False)
        return [after - before for before, after in pairs][WARM_UP:]


def steps_of(remedy: str, overrides: Sequence[str], steps: int, folder: Path) -> list[float]:
    """The seconds of so many training steps with a remedy."""
    given = [f"remedy={remedy}", *PLAIN, f"+trainer.max_steps={steps + WARM_UP + 1}"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose(
            "train", ["experiment=remedies", *given, f"paths.run={folder}", *overrides]
        )
    run, clock = Run(config, given), StepClock()
    run.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    run.fit()
    return clock.steps_s


def bench(
    remedies: Sequence[str], overrides: Sequence[str], steps: int, rounds: int
) -> dict[str, Any]:
    """The median step of each remedy, and its ratio to that of the arm alone."""
    seconds: dict[str, list[float]] = {remedy: [] for remedy in (NO_REMEDY, *remedies)}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for remedy, found in seconds.items():
                found += steps_of(remedy, overrides, steps, Path(folder))
    medians = {remedy: median(found) for remedy, found in seconds.items()}
    times = {remedy: value / medians[NO_REMEDY] for remedy, value in medians.items()}
    return {"step_s": medians, "times": times, "steps": steps * rounds, **machine()}


def named(text: str) -> list[str]:
    """The remedies that a text names, with commas between them."""
    names = text.split(",")
    if unknown := [name for name in names if name not in OFFERED]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(OFFERED)}")
    return names


def show(result: dict[str, Any]) -> None:
    """Print the steps as a table."""
    table = Table("remedy", "a step", "times the arm alone", title=f"{result['steps']} steps each")
    for remedy, seconds in result["step_s"].items():
        table.add_row(remedy, f"{seconds * 1e3:.1f} ms", f"{result['times'][remedy]:.2f}")
    Console().print(table)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--remedies", type=named, required=True, help="such as balanced,longer")
    parser.add_argument("--steps", type=int, default=30, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options, overrides = parser.parse_known_args()
    result = bench(options.remedies, overrides, options.steps, options.rounds)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
