"""The memory Q-Former against plain loops: time, error, gradients, memory, cost against length.

    python scripts/bench_memory.py [--parts forward train peak cost] [--frames 100] [--json]
    python scripts/bench_memory.py --parts memories    # what each strategy takes, side by side

Plain loops project the whole bank at every frame, compute all similarities anew and copy the bank.
"published" is that of MA-LMM's code, restated (plain_memory.py), "uncached" our own module with
`cache_keys=False`. All have the same weights and frames and take turns in one process; medians over
the repetitions after a warm-up on fewer frames. Full size by default: ViT-g frame tokens
(257×1408), 12 layers of width 768, bank length 20, 32 query tokens, 12 words.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from machine import machine
from memory_films import MEMORIES, SIZES, Film, build, film
from mmavlm.core.interfaces import TextTokens
from mmavlm.model.temporal import MemoryQFormer
from plain_memory import plain_loop

Loop = Callable[[Tensor, TextTokens, Tensor], Tensor]  # frame tokens, prompt, mask → video tokens
OURS, PUBLISHED, UNCACHED = "ours", "published", "uncached"
PARTS = ("forward", "train", "peak", "cost", "memories")
COST_FRAMES = (50, 100, 200, 400, 1000)
WARM_UP_FRAMES = 5
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def seconds(run: Callable[[], Any], options: argparse.Namespace) -> float:
    """How long one run takes, waiting for the device on both sides."""
    clock = CLOCKS[vars(options).get("clock", "wall")]
    _wait(options)
    start = clock()
    run()
    _wait(options)
    return clock() - start


def side_by_side(
    runs: dict[str, Callable[[], Any]], options: argparse.Namespace
) -> dict[str, list[float]]:
    """The seconds of each of `runs`, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            taken[name].append(seconds(run, options))
    return taken


def ratios(taken: dict[str, list[float]]) -> dict[str, Any]:
    """Median seconds, and how many times as fast as each other loop ours is: the median over turns.

    Of each turn, too.
    """
    turns = {
        name: [other / ours for other, ours in zip(times, taken[OURS], strict=True)]
        for name, times in taken.items()
        if name != OURS
    }
    return {
        "seconds": {name: median(times) for name, times in taken.items()},
        "speed_up": {name: median(each) for name, each in turns.items()},
        "speed_ups": turns,
    }


def loops(options: argparse.Namespace) -> dict[str, tuple[MemoryQFormer, Loop]]:
    """The loops to compare by name, each with its weights, which are equal."""
    found: dict[str, tuple[MemoryQFormer, Loop]] = {}
    for name in (OURS, *options.against):
        if name == PUBLISHED and options.memory != "merge_adjacent":
            continue  # the published code has no other strategy
        module = build(options, cache_keys=name != UNCACHED)
        loop = partial(published, module, options) if name == PUBLISHED else partial(ours, module)
        found[name] = module, loop
    return found


def ours(module: MemoryQFormer, tokens: Tensor, prompt: TextTokens, mask: Tensor) -> Tensor:
    """The video tokens of a film by our module."""
    return module(tokens, prompt, mask).video_tokens


def published(
    module: MemoryQFormer,
    options: argparse.Namespace,
    tokens: Tensor,
    prompt: TextTokens,
    mask: Tensor,
) -> Tensor:
    """The same by the published loop, for films without padding."""
    return plain_loop(module, tokens, prompt, options.bank)


def watch(loop: Loop, inputs: Film, options: argparse.Namespace, frames: int) -> Tensor:
    """The video tokens of a film's first frames, without gradient."""
    tokens, prompt, mask = inputs
    with torch.no_grad(), _autocast(options):
        return loop(tokens[:, :frames], prompt, mask[:, :frames])


def learn(
    module: MemoryQFormer, loop: Loop, inputs: Film, options: argparse.Namespace, frames: int
) -> Tensor:
    """The gradients of a training step on a film's first frames, in one row."""
    tokens, prompt, mask = inputs
    module.zero_grad()
    with _autocast(options):
        video_tokens = loop(tokens[:, :frames], prompt, mask[:, :frames])
    direction = torch.linspace(-1, 1, video_tokens[0].numel(), device=video_tokens.device)
    (video_tokens.float().flatten(1) * direction).sum().backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def bench_forward(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluation: time of the loops, and how far their tokens are apart."""
    inputs, runs = film(options, options.frames), {}
    for name, (module, loop) in loops(options).items():
        module.eval()
        runs[name] = partial(watch, loop, inputs, options)
    return _compare(runs, options)


def bench_train(options: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward: time of the loops, and how far their gradients are apart."""
    inputs = film(options, options.frames)
    runs = {
        name: partial(learn, module, loop, inputs, options)
        for name, (module, loop) in loops(options).items()
    }
    return _compare(runs, options)


def _compare(
    runs: dict[str, Callable[[int], Tensor]], options: argparse.Namespace
) -> dict[str, Any]:
    """Time of `runs`, which take a number of frames, and how far each other's outcome is off."""
    found: dict[str, Tensor] = {}

    def run(name: str, frames: int) -> None:
        found[name] = runs[name](frames)

    for name in runs:
        run(name, min(WARM_UP_FRAMES, options.frames))
    taken = side_by_side({name: partial(run, name, options.frames) for name in runs}, options)
    errors = {name: _relative(found[OURS], found[name]) for name in runs if name != OURS}
    return {**ratios(taken), "relative_error": errors}


def bench_memories(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluation with each strategy, in place where it can be: seconds, and against the first."""
    tokens, prompt, mask = film(options, options.frames)

    def run(module: MemoryQFormer, stop: int) -> None:
        with torch.no_grad(), _autocast(options):
            module(tokens[:, :stop], prompt, mask[:, :stop])

    runs = {}
    for name in MEMORIES:
        module = build(argparse.Namespace(**{**vars(options), "memory": name}), True).eval()
        run(module, 2)
        runs[name] = partial(run, module, options.frames)
    taken = {name: median(times) for name, times in side_by_side(runs, options).items()}
    first = next(iter(taken.values()))
    return {"seconds": taken, "ratio": {name: t / first for name, t in taken.items()}}


def bench_peak(options: argparse.Namespace) -> dict[str, Any]:
    """Bytes at most beyond weights and input frames, and beyond gradients in a training step.

    Of films a little longer than the bank, from where on it no longer grows; of ours also of one
    ten times as long as `frames`.
    """
    full = options.bank + 5
    peaks = {
        part: {name: _alone(_peak, options, name, full, part) for name in (OURS, *options.against)}
        for part in ("forward", "train")
    }
    long = _alone(_peak, options, OURS, 10 * options.frames, "forward")
    return {**peaks, "forward_of_a_long_film": {OURS: long}}


def bench_cost(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory beyond weights and input frames, of films of growing length."""
    rows = {str(frames): _alone(_time_and_peak, options, frames) for frames in COST_FRAMES}
    if options.plot:
        plot_cost(rows, options.plot)
    return {"frames": rows}


def _alone(measure: Callable[..., Any], *arguments: Any) -> Any:
    """What is measured in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def _time_and_peak(options: argparse.Namespace, frames: int) -> dict[str, float]:
    torch.set_num_threads(options.threads)
    module, inputs = build(options, True).eval(), film(options, frames)
    run = partial(watch, partial(ours, module), inputs, options)
    before = _count_from_here(options)
    run(WARM_UP_FRAMES)
    taken = seconds(partial(run, frames), options)
    return {"seconds": taken, "bytes": _most_memory(options) - before}


def _peak(options: argparse.Namespace, name: str, frames: int, part: str) -> float:
    torch.set_num_threads(options.threads)
    alone = argparse.Namespace(**{**vars(options), "against": [name]})
    (module, loop), inputs = loops(alone)[name], film(options, frames)
    if part == "train":
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
    before = _count_from_here(options)
    if part == "train":
        learn(module, loop, inputs, options, frames)
    else:
        watch(loop, inputs, options, frames)
    return _most_memory(options) - before


def _count_from_here(options: argparse.Namespace) -> float:
    """The bytes in use now; what was in use before no longer counts. Needs Linux."""
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _told("VmRSS")


def _most_memory(options: argparse.Namespace) -> float:
    """The most bytes that were in use since."""
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return _told("VmHWM")


def _told(what: str) -> float:
    """Bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def plot_cost(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Draw time and peak memory against the number of frames, side by side."""
    frames = [int(name) for name in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.plot(frames, [row["seconds"] for row in rows.values()], "o-")
    left.set(xlabel="frames", ylabel="seconds", title="time", ylim=(0, None), xlim=(0, None))
    right.plot(frames, [row["bytes"] / 2**20 for row in rows.values()], "o-")
    right.set(xlabel="frames", ylabel="MiB beyond weights and frames", title="peak memory")
    right.set(ylim=(0, None), xlim=(0, None))
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _relative(ours: Tensor, theirs: Tensor) -> float:
    """‖ours − theirs‖ / ‖theirs‖."""
    return float((ours - theirs).float().norm() / theirs.float().norm())


def _autocast(options: argparse.Namespace) -> torch.autocast:
    return torch.autocast(options.device, torch.bfloat16, enabled=options.bf16)


def _wait(options: argparse.Namespace) -> None:
    if options.device == "cuda":
        torch.cuda.synchronize()


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """All parts asked for, and what they were run on."""
    torch.set_num_threads(options.threads)
    parts = {
        "forward": bench_forward,
        "train": bench_train,
        "peak": bench_peak,
        "cost": bench_cost,
        "memories": bench_memories,
    }
    return {
        **{name: parts[name](options) for name in options.parts},
        "settings": {**vars(options)},
        **machine(options.device),
    }


def show(result: dict[str, Any]) -> None:
    """Print the parts as a table."""
    table = Table("part", "figure", title="memory Q-Former against plain loops")
    for name in PARTS:
        for key, value in result.get(name, {}).items():
            table.add_row(f"{name} {key}", json.dumps(value))
    Console().print(table)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS[:-1]))
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--frames", type=int, default=100, help="T")
    parser.add_argument("--memory", choices=list(MEMORIES), default="merge_adjacent")
    parser.add_argument(
        "--against", nargs="+", choices=(PUBLISHED, UNCACHED), default=[PUBLISHED, UNCACHED]
    )
    parser.add_argument("--bank", type=int, default=20, help="M")
    parser.add_argument("--batch", type=int, default=1, help="B")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="processor: for a busy machine"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="under bfloat16 autocast")
    parser.add_argument("--plot", type=Path, help="where to draw the cost (svg, png, pdf)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    result = bench(options)
    print(json.dumps(result, default=str)) if options.json else show(result)


if __name__ == "__main__":
    main()
