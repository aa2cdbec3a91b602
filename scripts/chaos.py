"""Kill training runs at random moments, and see that they end as if nothing had happened.

    python scripts/chaos.py --kills 50

Runs experiment=demo, both stages, small, with workers, crops, gradients gathered over several
batches and a checkpoint every other step: once undisturbed, then again and again with SIGKILL or
SIGTERM at moments drawn from the seed, each time continued by resume=auto. Weights, optimizers,
metrics.json and predictions.jsonl of both stages must then equal those of the undisturbed run, bit
for bit; a process must end by the signal's status, without a traceback. What a kill cost is the
number of optimizer steps that had to be done again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from machine import machine
from mmavlm import train
from mmavlm.movies import ensure_movie_set

FIRST, FIRST_STAGE = "demo_alignment", "SemanticAlignment"
STAGES = {FIRST_STAGE: Path(FIRST), "FineTune": Path()}  # stage → its folder in the run's
SETTINGS = [
    "experiment=demo", "prepare=null", "resume=auto", "trainer=cpu", "callbacks.progress=null",
    "callbacks.wait=null", "callbacks.throughput=null",  # of time, which no two runs have alike
    "callbacks.overview=null", "callbacks.step_checkpoint.every_n_steps=2",
    "trainer.accumulate_grad_batches=3", "trainer.deterministic=true", "data.batch_size=8",
    "data.keep_frames=false", "data.crop=true", "data.flip=true",
]  # fmt: skip
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "rng", "global_step")
EXITS = {signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}}  # -15: before there is anything to save
SHARE_OF_SIGTERM, SHARE_OF_STARTS = 0.3, 0.1
GOES_ON = re.compile(
    r"resume=auto: (?:the run goes on from (\S+) \(step (\d+)\)|no checkpoint in (\S+))"
)
LIMIT_S = 600.0


class Progress(L.Callback):
    """Appends to a file where a run is: stage, phase, optimizer steps."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def _tell(self, trainer: L.Trainer, phase: str) -> None:
        told = f"{type(trainer.lightning_module).__name__} {phase} {trainer.global_step}\n"
        with self.path.open("a") as file:
            file.write(told)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before the first batch."""
        self._tell(trainer, "train")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """After each batch."""
        self._tell(trainer, "train")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before each validation."""
        self._tell(trainer, "val")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before the test."""
        self._tell(trainer, "test")


@dataclass(frozen=True)
class Kill:
    """One kill: where the run was, where it went on, and whether it ended as it should."""

    run: int
    signal: str
    stage: str
    phase: str
    step: int
    status: int
    resumed_from: str = ""
    resumed_step: int | None = None
    equal: bool = False

    @property
    def lost(self) -> int | None:
        """Optimizer steps done twice, where the run went on in the same stage."""
        return None if self.resumed_step is None else self.step - self.resumed_step


def run_command(settings: list[str], log: Path) -> None:
    """The command as a user types it, in a process and session of its own, its words in a file."""
    os.setsid()
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    os.dup2(sys.stderr.fileno(), 1)
    os.dup2(sys.stderr.fileno(), 2)
    sys.argv = ["train", *settings]
    train.main()


class Process:
    """One start of a run in a folder; `marks` and `said` are what it told of itself.

    It is forked from this process, which has imported all that takes most of a start.
    """

    def __init__(self, run: Path, data: Path, options: argparse.Namespace) -> None:
        self.marks, self.log = run.with_suffix(".marks"), run.with_suffix(".log")
        self.marks.write_text("")
        self.log.write_text("")
        settings = [
            *SETTINGS, f"data.root={data}", f"hydra.run.dir={run}",
            f"trainer.max_epochs={options.epochs}", f"data.num_workers={options.workers}",
            "+callbacks.marks._target_=chaos.Progress", f"+callbacks.marks.path={self.marks}",
        ]  # fmt: skip
        self.start_s = time.monotonic()
        self.child = mp.get_context("fork").Process(target=run_command, args=(settings, self.log))
        self.child.start()

    def wait(self, seconds: float, *, training: bool = False) -> bool:
        """Wait so long from its start, or from its first batch; whether it still runs then."""
        while training and self.running and not self.marks.stat().st_size:
            self._check_limit()
            time.sleep(0.02)
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            self._check_limit()
            time.sleep(0.005)
        return self.running

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.child.is_alive()

    @property
    def status(self) -> int | None:
        """Its exit status, or the negative number of the signal that ended it."""
        return self.child.exitcode

    @property
    def said(self) -> str:
        """All it printed."""
        return self.log.read_text()

    def mark(self) -> tuple[str, str, int]:
        """Stage, phase and step it told of last."""
        lines = self.marks.read_text().splitlines()
        stage, phase, step = lines[-1].split() if lines else ("", "start", "0")
        return stage, phase, int(step)

    def kill(self, how: signal.Signals) -> None:
        """SIGKILL to the process alone, SIGTERM to its workers as well, as SLURM does."""
        if how == signal.SIGKILL:
            self.child.kill()
        else:
            try:
                os.killpg(self.child.pid or 0, how)
            except ProcessLookupError:  # its session is not there yet
                self.child.terminate()
        self.child.join(LIMIT_S)

    def _check_limit(self) -> None:
        if time.monotonic() - self.start_s > LIMIT_S:
            self.child.kill()
            raise SystemExit(f"a run took longer than {LIMIT_S:g} s:\n{self.said[-2000:]}")


class Chaos:
    """Runs that are killed until `options.kills` kills are done, compared with one that is not."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.random = random.Random(options.seed)
        self.data = ensure_movie_set(folder / "films", clips=options.clips, duration_s=4)
        self.faults: list[str] = []
        self.whole = folder / "whole"
        process = Process(self.whole, self.data, options)
        process.wait(0, training=True)
        self.starting_s = time.monotonic() - process.start_s
        process.wait(LIMIT_S)
        self.training_s = time.monotonic() - process.start_s - self.starting_s
        if process.status:
            raise SystemExit(f"the undisturbed run failed:\n{process.said[-2000:]}")

    def kills(self) -> Iterator[Kill]:
        """All kills, each run's as it has ended."""
        done, run = 0, 0
        while done < self.options.kills:
            kills = self.run(run, self.options.kills - done)
            yield from kills
            done, run = done + len(kills), run + 1
            equal = all(kill.equal for kill in kills)
            print(f"{done} kills; run {run}: {'equal' if equal else 'NOT EQUAL'}", file=sys.stderr)

    def run(self, number: int, most: int) -> list[Kill]:
        """One run, killed at most so often and continued until it ends."""
        run, kills = self.folder / f"run{number}", []
        while True:
            process = Process(run, self.data, self.options)
            kill = self._killed(process, number) if len(kills) < most else None
            if kill is None:
                process.wait(LIMIT_S)
            kills[-1:] = [with_resumption(last, process.said) for last in kills[-1:]]
            if kill is None:
                break
            kills.append(kill)
        wrong = differences(self.whole, run)
        if process.status:
            wrong.append(f"exit status {process.status}: {process.said[-1000:]}")
        self.faults += [f"run {number}: {text}" for text in wrong]
        return [replace(kill, equal=not wrong) for kill in kills]

    def _killed(self, process: Process, number: int) -> Kill | None:
        """Kill a process at a moment that is drawn; None if it had ended before."""
        draw = self.random
        how = signal.SIGTERM if draw.random() < SHARE_OF_SIGTERM else signal.SIGKILL
        at_start, share = draw.random() < SHARE_OF_STARTS, draw.random()
        longest_s = self.starting_s if at_start else self.training_s * self.options.spread
        if not process.wait(share * longest_s, training=not at_start):
            return None
        process.kill(how)
        status = process.status
        if status == 0:
            return None
        stage, phase, step = process.mark()
        # workers may complain once their parent was killed
        if status not in EXITS[how] or (how == signal.SIGTERM and "Traceback" in process.said):
            self.faults.append(
                f"run {number}: {how.name} ended in {status}: {process.said[-1000:]}"
            )
        return Kill(number, how.name, stage, phase, step, status)


def with_resumption(kill: Kill, said: str) -> Kill:
    """The kill, with where the next process went on by what it said, if it came so far."""
    found = GOES_ON.search(said)
    if kill.resumed_from or found is None:
        return kill
    path, step, empty = found.groups()
    same = kill.stage and (FIRST in (path or empty)) == (kill.stage == FIRST_STAGE)
    return replace(
        kill,
        resumed_from=Path(path).name if path else "start",
        resumed_step=int(step or 0) if same else None,
    )


def differences(whole: Path, other: Path) -> list[str]:
    """What differs between two runs' checkpoints, metrics and predictions, in both stages."""
    found = []
    for stage, inside in STAGES.items():
        for name in ("last.ckpt", "best.ckpt"):
            one, two = (root / inside / "checkpoints" / name for root in (whole, other))
            if not two.is_file():
                found.append(f"{stage} has no {name}")
                continue
            one_held, two_held = (torch.load(path, weights_only=True) for path in (one, two))
            found += [
                f"{key} of {name} of {stage}"
                for key in COMPARED
                if not equal(one_held[key], two_held[key])
            ]
        for name in ("metrics.json", "predictions.jsonl"):
            one, two = (root / inside / name for root in (whole, other))
            if one.is_file() and (not two.is_file() or one.read_bytes() != two.read_bytes()):
                found.append(f"{name} of {stage}")
    return found


def equal(one: Any, two: Any) -> bool:
    """Whether two values of a checkpoint are the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return bool(one == two)


def show(kills: list[Kill], faults: list[str]) -> None:
    """Print a row a kill, and what differed."""
    columns = ["run", "signal", "status", "stage", "phase", "step", "resumed from", "step", "lost"]
    table = Table(*columns, "equal")
    for kill in kills:
        step, lost = ("-" if n is None else str(n) for n in (kill.resumed_step, kill.lost))
        table.add_row(
            str(kill.run), kill.signal, str(kill.status), kill.stage, kill.phase, str(kill.step),
            kill.resumed_from, step, lost, "yes" if kill.equal else "NO",
        )  # fmt: skip
    Console(width=130).print(table)
    for fault in faults:
        print(fault)


def main() -> None:
    """Parse the command line, kill and compare, print; exit with 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3, help="of each stage")
    parser.add_argument("--clips", type=int, default=240, help="films in the set")
    parser.add_argument("--spread", type=float, default=0.33,
                        help="latest kill, as a share of the training time")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="keep films and runs there")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads do not go along into a fork
    start_s = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        chaos = Chaos((options.folder or Path(made)).absolute(), options)
        kills = list(chaos.kills())
    if options.json:
        print(json.dumps({**machine(), "seed": options.seed, "kills": len(kills),
                          "runs": 1 + max(kill.run for kill in kills),
                          "equal": sum(kill.equal for kill in kills),
                          "wall_s": round(time.monotonic() - start_s), "faults": chaos.faults,
                          "rows": [{**asdict(k), "lost": k.lost} for k in kills]}))  # fmt: skip
    else:
        show(kills, chaos.faults)
    raise SystemExit(bool(chaos.faults))


if __name__ == "__main__":
    main()
