"""The memory Q-Former against the plain loop: time, error, gradients, memory, cost against length.

    python scripts/bench_memory.py [--parts forward train peak cost] [--frames 100] [--json]
    python scripts/bench_memory.py --parts memories    # what each strategy takes, side by side

The plain loop projects the whole bank at every frame, computes all similarities anew and copies the
bank; it is the same module with `cache_keys=False`, on the same weights and frames. Both take turns
in one process; medians over the repetitions after a warm-up on fewer frames. Full size by default:
ViT-g frame tokens (257×1408), 12 layers of width 768, bank length 20, 32 query tokens, 12 words.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
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
from mmavlm.core.interfaces import Memory, TextTokens
from mmavlm.model.memory import EpisodicCompressor, Fifo, MergeAdjacent, TokenMerging
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal import MemoryQFormer

PARTS = ("forward", "train", "peak", "cost", "memories")
# Visual and query memory, by the names of conf/memory.
MEMORIES: dict[str, Callable[[int], tuple[Memory, Memory]]] = {
    "merge_adjacent": lambda length: (MergeAdjacent(length), MergeAdjacent(length)),
    "fifo": lambda length: (Fifo(length), Fifo(length)),
    "episodic": lambda length: (EpisodicCompressor(length), EpisodicCompressor(length, "position")),
    "token_merging": lambda length: (TokenMerging(length), TokenMerging(length, "time")),
}
COST_FRAMES = (50, 100, 200, 400, 1000)
WARM_UP_FRAMES = 25
SIZES = {
    "full": {"positions": 257, "visual": 1408, "width": 768, "layers": 12, "heads": 12},
    "small": {"positions": 16, "visual": 64, "width": 64, "layers": 2, "heads": 4},
}


def build(options: argparse.Namespace, cache_keys: bool) -> MemoryQFormer:
    """The module under test; equal weights whatever `cache_keys`."""
    torch.manual_seed(0)
    size = SIZES[options.size]
    qformer = partial(
        QFormer,
        width=size["width"],
        layers=size["layers"],
        heads=size["heads"],
        hidden_width=4 * size["width"],
        dropout=0.0,
    )
    visual_memory, query_memory = MEMORIES[options.memory](options.bank)
    module = MemoryQFormer(
        qformer=qformer,
        visual_memory=visual_memory,
        query_memory=query_memory,
        visual_width=size["visual"],
        vocab_size=30522,
        cache_keys=cache_keys,
    )
    return module.to(options.device)


def film(options: argparse.Namespace, frames: int) -> tuple[Tensor, TextTokens, Tensor]:
    """Frame tokens that drift from scene to scene, a prompt of 12 words, and a full mask."""
    size = SIZES[options.size]
    generator = torch.Generator().manual_seed(1)
    shape = (options.batch, size["positions"], size["visual"])
    tokens = torch.empty(options.batch, frames, *shape[1:])
    scene = torch.randn(shape, generator=generator)
    for t in range(frames):
        scene = 0.9 * scene + 0.44 * torch.randn(shape, generator=generator)
        tokens[:, t] = scene
    ids = torch.randint(1, 30522, (options.batch, 12), generator=generator)
    prompt = TextTokens(
        ids.to(options.device), torch.ones_like(ids, dtype=torch.bool).to(options.device)
    )
    mask = torch.ones(options.batch, frames, dtype=torch.bool)
    return tokens.to(options.device), prompt, mask.to(options.device)


def seconds(run: Callable[[], Any], options: argparse.Namespace) -> float:
    """How long one run takes, waiting for the device on both sides."""
    _wait(options)
    start = time.perf_counter()
    run()
    _wait(options)
    return time.perf_counter() - start


def side_by_side(
    runs: dict[str, Callable[[], Any]], options: argparse.Namespace
) -> dict[str, list[float]]:
    """The seconds of each of `runs`, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            taken[name].append(seconds(run, options))
    return taken


def ratio(taken: dict[str, list[float]]) -> dict[str, Any]:
    """Median seconds, and how many times faster: the median over the turns, and each of them."""
    ratios = [plain / fast for plain, fast in zip(taken["plain"], taken["fast"], strict=True)]
    medians = {name: median(times) for name, times in taken.items()}
    return {"seconds": medians, "speed_up": median(ratios), "speed_ups": ratios}


def bench_forward(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluation: time of both loops, and how far their tokens are apart."""
    fast, plain = build(options, True).eval(), build(options, False).eval()
    inputs = film(options, options.frames)

    found: dict[str, Tensor] = {}

    def run(name: str, module: MemoryQFormer, frames: int | None = None) -> None:
        tokens, prompt, mask = inputs
        with torch.no_grad(), _autocast(options):
            found[name] = module(tokens[:, :frames], prompt, mask[:, :frames]).video_tokens

    runs = {"fast": partial(run, "fast", fast), "plain": partial(run, "plain", plain)}
    for warm_up in runs.values():
        warm_up(WARM_UP_FRAMES)
    taken = side_by_side(runs, options)
    return {**ratio(taken), "relative_error": _relative(found["fast"], found["plain"])}


def bench_train(options: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward: time of both loops, and how far their gradients are apart."""
    modules = {"fast": build(options, True), "plain": build(options, False)}
    inputs = film(options, options.frames)

    def run(module: MemoryQFormer, frames: int | None = None) -> None:
        tokens, prompt, mask = inputs
        module.zero_grad()
        with _autocast(options):
            video_tokens = module(tokens[:, :frames], prompt, mask[:, :frames]).video_tokens
        direction = torch.linspace(-1, 1, video_tokens[0].numel(), device=video_tokens.device)
        (video_tokens.float().flatten(1) * direction).sum().backward()

    for module in modules.values():
        run(module, WARM_UP_FRAMES)
    runs = {name: partial(run, module) for name, module in modules.items()}
    taken = side_by_side(runs, options)
    fast, plain = (
        torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None])
        for m in modules.values()
    )
    return {**ratio(taken), "relative_error": _relative(fast, plain)}


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
    """Peak memory beyond weights and input frames, of `frames` and of ten times as many."""
    peaks = {str(t): _alone(options, t)["bytes"] for t in (options.frames, 10 * options.frames)}
    few, many = peaks.values()
    return {"bytes": peaks, "ratio": many / few}


def bench_cost(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory beyond weights and input frames, of films of growing length."""
    rows = {str(frames): _alone(options, frames) for frames in COST_FRAMES}
    if options.plot:
        plot_cost(rows, options.plot)
    return {"frames": rows}


def _alone(options: argparse.Namespace, frames: int) -> dict[str, float]:
    """Time and memory of one film in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_time_and_peak, (options, frames))


def _time_and_peak(options: argparse.Namespace, frames: int) -> dict[str, float]:
    torch.set_num_threads(options.threads)
    module, inputs = build(options, True).eval(), film(options, frames)

    def run(stop: int) -> None:
        tokens, prompt, mask = inputs
        with torch.no_grad(), _autocast(options):
            module(tokens[:, :stop], prompt, mask[:, :stop])

    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(WARM_UP_FRAMES)
        taken = seconds(partial(run, frames), options)
        return {"seconds": taken, "bytes": torch.cuda.max_memory_allocated() - before}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(WARM_UP_FRAMES)
    taken = seconds(partial(run, frames), options)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": taken, "bytes": 1024 * (most - before)}


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
    table = Table("part", "figure", title="memory Q-Former against the plain loop")
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
    parser.add_argument("--bank", type=int, default=20, help="M")
    parser.add_argument("--batch", type=int, default=1, help="B")
    parser.add_argument("--repeats", type=int, default=3)
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
