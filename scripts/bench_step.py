"""Where the time of one training step goes: decode, encode, memory, LLM, backward, optimizer.

    python scripts/bench_step.py experiment=demo data.root=… [--steps 7] [--json]

Everything but the options is Hydra's: any experiment, model or data set can be timed. Each part is
timed by itself on the same batch, after a warm-up step; medians over the steps. With `data.cache=…`
an epoch after the first is timed: features are read where frames were decoded, and no encoder runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from machine import machine
from mmavlm.core.batch import Batch
from mmavlm.core.config_files import config_dir
from mmavlm.core.conversation import num_views
from mmavlm.core.interfaces import MediaTokens
from mmavlm.data.collate import collate
from mmavlm.run import build_backbone
from mmavlm.run.features import take_features


class Timer:
    """Seconds of each named part, step by step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what happens inside, waiting for the device on both sides."""
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)

    def medians(self) -> dict[str, float]:
        """The median of each part over all steps but the first, which warms up."""
        return {name: median(times[1:]) for name, times in self.seconds.items()}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def bench(config: DictConfig, steps: int) -> dict[str, Any]:
    """Time `steps` training steps of an experiment, part by part."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    if config.prepare is not None:
        instantiate(config.prepare)
    data = instantiate(config.data)
    data.setup("fit")
    stand_in = None if data.cache is None else take_features(config, data, ["train"])
    backbone = build_backbone(config, stand_in).to(device).train()
    data.image_size = backbone.vision.encoder.image_size
    dataset = data.dataset("train")
    optimizer, _ = instantiate(config.optimizer).build(
        backbone.named_parameters(), total_steps=1000, epoch_steps=100
    )
    timer, size = Timer(device), min(config.data.batch_size, len(dataset))
    batch: Batch | None = None
    for _ in range(steps + 1):
        with timer.part("decode" if stand_in is None else "read"):
            batch = collate([dataset[i] for i in range(size)])
        batch = batch.to(device)
        step(backbone, batch, optimizer, timer)
    assert batch is not None
    parts = timer.medians()
    total = sum(parts.values())
    return {
        "seconds": parts,
        "share": {name: value / total for name, value in parts.items()},
        "step_s": total,
        "batch_size": size,
        "cached": stand_in is not None,
        "num_frames": int(batch.frame_mask.shape[1]),
        **machine(str(device)),
    }


def step(backbone: Any, batch: Batch, optimizer: Any, timer: Timer) -> None:
    """One training step of stage 2, its parts timed one after the other."""
    with timer.part("encode"):
        watched = backbone.watch(batch)
    with timer.part("memory"):
        state = backbone.vision.remember(watched)
    terms: list[torch.Tensor] = []
    with timer.part("llm"):
        tokens, mask = backbone.video_tokens(state), backbone.vision.mask(state)
        media = MediaTokens(tokens, num_views(batch.conversations), mask)
        terms.append(backbone.answer_loss(batch, media))
    if backbone.alignment is not None:
        with timer.part("alignment"):
            texts = backbone.alignment.texts(batch.views.guides, batch.views.replies)
            _, aligned = backbone.alignment_inputs(watched)
            terms += backbone.alignment(aligned, texts).values()
    with timer.part("backward"):
        torch.stack(terms).sum().backward()
    with timer.part("optimizer"):
        optimizer.step()
        optimizer.zero_grad()


def show(result: dict[str, Any]) -> None:
    """Print the parts as a table."""
    title = f"one step: batch {result['batch_size']} × {result['num_frames']} frames"
    table = Table("part", "median", "share", title=title)
    for name, seconds in result["seconds"].items():
        table.add_row(name, f"{seconds * 1e3:.1f} ms", f"{result['share'][name]:.0%}")
    Console().print(table)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options, overrides = parser.parse_known_args()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", overrides)
    result = bench(config, options.steps)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


if __name__ == "__main__":
    main()
