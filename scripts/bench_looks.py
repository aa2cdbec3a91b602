"""Frame T//2 with gradient, met on the one way through a film, against a way of its own.

    python scripts/bench_looks.py [--frames 100] [--size small] [--json]

Forward and backward of the frames that an alignment looks at: the first and the last (`ends`), and
the middle one beside them, for which the state is set aside (`middle`), or for which the film is
watched once more up to there (`apart`). All take turns in one process; settings are those of
bench_memory.py. The gradients of the latter two are compared.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench_memory import WARM_UP_FRAMES, side_by_side
from machine import machine
from memory_films import SIZES, build, film
from mmavlm.model.temporal import MemoryQFormer, Wanted


def outputs(name: str, module: MemoryQFormer, inputs: tuple[Any, ...]) -> Tensor:
    """The query outputs of the first, the middle and the last frame, or of the ends alone."""
    tokens, prompt, mask = inputs
    wanted = Wanted(1, middle=name == "middle", last=True)
    looks = module.look(tokens, prompt, mask, wanted)[1].outputs
    if name != "apart":
        return looks
    stop = tokens.shape[1] // 2 + 1
    middle = module(tokens[:, :stop], prompt, mask[:, :stop]).video_tokens
    return torch.stack([looks[:, 0], middle, looks[:, 1]], dim=1)


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each way, by those of the ends alone, and how far gradients are apart."""
    torch.set_num_threads(options.threads)
    module = build(options, cache_keys=True)
    tokens, prompt, mask = film(options, options.frames)
    gradients: dict[str, Tensor] = {}

    def run(name: str, frames: int | None = None) -> None:
        module.zero_grad()
        found = outputs(name, module, (tokens[:, :frames], prompt, mask[:, :frames]))
        direction = torch.linspace(-1, 1, found[0].numel(), device=found.device)
        (found.flatten(1) * direction).sum().backward()
        gradients[name] = torch.cat(
            [p.grad.flatten() for p in module.parameters() if p.grad is not None]
        )

    runs = {name: partial(run, name) for name in ("ends", "middle", "apart")}
    for warm_up in runs.values():
        warm_up(WARM_UP_FRAMES)
    taken = {name: median(times) for name, times in side_by_side(runs, options).items()}
    away = gradients["middle"] - gradients["apart"]
    return {
        "seconds": taken,
        "ratio": {name: seconds / taken["ends"] for name, seconds in taken.items()},
        "relative_error": float(away.norm() / gradients["apart"].norm()),
        "settings": {**vars(options)},
        **machine(options.device),
    }


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--frames", type=int, default=100, help="T")
    parser.add_argument("--bank", type=int, default=20, help="M")
    parser.add_argument("--batch", type=int, default=1, help="B")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    options.memory = "merge_adjacent"
    result = bench(options)
    if options.json:
        print(json.dumps(result, default=str))
        return
    table = Table("way", "seconds", "by the ends alone", title="the middle frame with gradient")
    for name, seconds in result["seconds"].items():
        table.add_row(name, f"{seconds:.3f}", f"{result['ratio'][name]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
