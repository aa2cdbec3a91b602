"""What ten million clips take at 8, 64, 256 GPUs: bytes, requests, seconds, and the bottleneck.

    python scripts/simulate_scale.py [--work align answer] [--gpus 8 64 256] [--json]

A step is simulated as it runs: workers of each GPU make batches ahead, with times drawn from a
seed; all GPUs wait for the slowest; gradients follow. Beside it stand the limits that formulas give
alone, of which the largest is the bottleneck: arithmetic, launches of kernels, decoding (or reading
features), a node's line, the bucket, gradients. Rates that were measured have their row in
docs/benchmarks.md; the others are data sheets and assumptions, and each can be set (--set mfu=0.3).
No figure of a GPU is measured: see docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mmavlm.core.flops import Products, look_flops, loop_flops
from mmavlm.core.footprint import FilmSizes, QFormerSizes

ALIGN, ANSWER = "align", "answer"
MARKS = "o^sDvx"  # of the limits, so that they are told apart without colours
VIDEOS, FEATURES = "videos", "features"

# InstructBLIP with Vicuna-7B. A test compares them with the modules themselves.
TOKENS, WIDTH = 257, 1408  # of a frame
VIT = Products(frozen=40 * (4 * 1408**2 + 2 * 1408 * 6144) + 3 * 14**2 * 1408, attending=40 * 1408)
VICUNA = Products(frozen=32 * (4 * 4096**2 + 3 * 4096 * 11008), attending=32 * 4096)
HEAD = Products(frozen=32000 * 4096)
BERT = Products(learnt=12 * (4 * 768**2 + 2 * 768 * 3072), attending=12 * 768)
LAUNCHES = 645  # kernels of a frame in the frame loop, counted on its modules
QFORMER = QFormerSizes(
    positions=44, queries=32, width=768, hidden=3072, layers=12, crossing=6, slots=20
)
LEARNT = {ALIGN: 300e6, ANSWER: 190e6}  # parameters whose gradients are exchanged


@dataclass(frozen=True)
class Rates:
    """What a machine does, and what is asked of it."""

    clips: float = 10e6
    clip_bytes: float = 3.6e6  # measured: 18 s of 640×360, the mean of two
    decode_s: float = 0.35  # measured: core seconds of 20 frames of such a clip, the mean of two
    decode_few_s: float = 0.19  # measured: of 3 frames
    read_s: float = 0.015  # measured: core seconds of 20 frames' features from a file
    launches: float = LAUNCHES  # counted: kernels of a frame in the frame loop
    launch_s: float = 5e-6  # assumed: until the host has launched a kernel
    spread: float = 0.5  # assumed: of a clip's time around its mean (a lognormal's sigma)
    batch: int = 32  # clips of a GPU; 8 where answers are trained
    shard_bytes: float = 1e9  # of a tar file
    range_bytes: float = 64e6  # of a request to a bucket
    request_s: float = 0.05  # assumed: until the first byte
    peak: float = 989e12  # data sheet: H100, dense, 16 bit
    mfu: float = 0.35  # assumed
    cores: int = 12  # of a GPU, each a worker
    prefetch: int = 2  # batches that a worker makes ahead
    gpus_a_node: int = 8
    node_bytes_s: float = 8e9  # assumed: of a bucket, 100 Gbit/s at two thirds
    bucket_bytes_s: float = 1e11  # assumed: of all nodes together
    link_bytes_s: float = 35e9  # assumed: of a GPU to other nodes, 400 Gbit/s at 0.7
    inner_bytes_s: float = 300e9  # assumed: of a GPU to those of its node
    hidden: float = 0.8  # assumed: the part of the backward pass in which gradients travel


@dataclass(frozen=True)
class Plan:
    """What is trained (`align` or `answer`), as what clips are stored, how many frames are read."""

    work: str = ALIGN
    stored: str = VIDEOS
    read: int = 20  # data.num_frames: 3 or 20

    @property
    def frames(self) -> int:
        """Frames of a clip that the model looks at: the alignment at the first three."""
        return min(self.read, 3) if self.work == ALIGN else self.read

    def clip_bytes(self, rates: Rates) -> float:
        """Bytes of a clip as it is stored; features of the frames that are read, in 16 bit."""
        return rates.clip_bytes if self.stored == VIDEOS else 2.0 * TOKENS * WIDTH * self.read

    def item_s(self, rates: Rates) -> float:
        """Seconds of a core to make an item of a clip."""
        if self.stored == FEATURES:
            return rates.read_s * self.read / 20
        return rates.decode_s if self.read > 3 else rates.decode_few_s

    def launches(self, rates: Rates) -> float:
        """Kernels of a step's frame loop; frames with gradient have about two more backward."""
        learnt = self.frames if self.work == ALIGN else 1
        return rates.launches * (self.frames + 2 * learnt)

    def flops(self, batch: int) -> int:
        """Operations of a GPU's step: what `model.flops` counts of such a model."""
        film = FilmSizes(batch, self.frames, TOKENS, WIDTH)
        images = batch * self.frames
        seen = VIT.forward(images * TOKENS) + VIT.attention(images, TOKENS, TOKENS)
        found = seen if self.stored == VIDEOS else 0
        if self.work == ALIGN:
            texts = batch * 64
            found += loop_flops(film, QFORMER, 3, cached=False)
            return found + BERT.forward(texts) + BERT.backward(texts)
        quiet = self.frames - 1
        found += loop_flops(replace(film, frames=quiet), QFORMER, 0, cached=True)
        found += 3 * look_flops(film, QFORMER, min(quiet, QFORMER.slots))
        read = batch * 96  # 32 tokens of the film, 64 of texts
        found += VICUNA.forward(read) + VICUNA.backward(read) + 3 * VICUNA.attention(batch, 96, 96)
        return found + HEAD.forward(batch * 32) + HEAD.backward(batch * 32)


PLANS = (
    Plan(ALIGN, VIDEOS), Plan(ALIGN, VIDEOS, read=3), Plan(ALIGN, FEATURES, read=3),
    Plan(ANSWER, VIDEOS), Plan(ANSWER, FEATURES),
)  # fmt: skip


def limits(plan: Plan, rates: Rates, gpus: int) -> dict[str, float]:
    """Seconds that a step takes by each limit alone."""
    of_nodes = max(ceil(gpus / rates.gpus_a_node), 1)
    sharing = min(gpus, rates.gpus_a_node)
    asked = rates.batch * plan.clip_bytes(rates)
    arithmetic = plan.flops(rates.batch) / (rates.peak * rates.mfu)
    bytes_ = 4 * LEARNT[plan.work]
    exchanged = 2 * bytes_ * (sharing - 1) / sharing / rates.inner_bytes_s
    if of_nodes > 1:  # within nodes first, then a share of each GPU between them
        exchanged += 2 * bytes_ / sharing * (of_nodes - 1) / of_nodes / rates.link_bytes_s
    return {
        "arithmetic": arithmetic,
        "launches": plan.frames
        * (3 if plan.work == ALIGN else 1)
        * rates.launches
        * rates.launch_s,
        "decoding": rates.batch * plan.item_s(rates) / rates.cores,
        "line": asked * sharing / rates.node_bytes_s,
        "bucket": asked * gpus / rates.bucket_bytes_s,
        "gradients": exchanged,
    }


def simulate(plan: Plan, rates: Rates, gpus: int, steps: int = 200, seed: int = 0) -> float:
    """Seconds a step, the mean over the last half of so many simulated ones.

    Worker w of a GPU makes its batches w, w + cores, …, and is at most `prefetch` ahead.
    """
    rng = np.random.default_rng(seed)
    alone = limits(plan, rates, gpus)
    item_s = plan.item_s(rates)
    wait_s = rates.request_s * rates.batch * plan.clip_bytes(rates) / rates.range_bytes
    workers, ahead = rates.cores, rates.cores * rates.prefetch
    ready = np.zeros((steps, gpus))
    begun: NDArray[np.float64] = np.zeros(steps)
    network, end = np.zeros(gpus), 0.0
    device_s = max(alone["arithmetic"], alone["launches"])
    exposed = max(0.0, alone["gradients"] - rates.hidden * device_s * 2 / 3)
    line_s = max(alone["line"], alone["bucket"])
    for step in range(steps):
        free = ready[step - workers] if step >= workers else np.zeros(gpus)
        allowed = begun[step - ahead] if step >= ahead else 0.0
        drawn = _drawn(rng, gpus, rates) * rates.batch * item_s
        network = np.maximum(network, allowed) + line_s  # one line for all workers
        ready[step] = np.maximum(np.maximum(free, allowed) + drawn + wait_s, network)
        begun[step] = max(end, float(ready[step].max()))
        end = begun[step] + device_s + exposed
    span = min(max(steps // 2 // workers, 1) * workers, steps - 1)  # batches come in rounds
    return float(begun[-1] - begun[-1 - span]) / span


def _drawn(rng: np.random.Generator, gpus: int, rates: Rates) -> NDArray[np.float64]:
    """The mean time of a batch's clips by their mean: lognormal, of mean 1, for each GPU."""
    if not rates.spread:
        return np.ones(gpus)
    drawn = rng.lognormal(-(rates.spread**2) / 2, rates.spread, (gpus, rates.batch))
    return np.asarray(drawn.mean(axis=1))


def result(plan: Plan, rates: Rates, gpus: int, **how: int) -> dict[str, Any]:
    """One row: a number of GPUs, and all that follows."""
    step_s, alone = simulate(plan, rates, gpus, **how), limits(plan, rates, gpus)
    device_s = max(alone["arithmetic"], alone["launches"])
    nodes = ceil(gpus / rates.gpus_a_node)
    steps = ceil(rates.clips / (rates.batch * gpus))
    stored = rates.clips * plan.clip_bytes(rates)
    epoch_s = steps * step_s
    return {
        **asdict(plan), "gpus": gpus, "nodes": nodes, "steps": steps, "step_s": step_s,
        "limits_s": alone, "bottleneck": max(alone, key=alone.__getitem__),
        "waiting": max(0.0, 1 - device_s / step_s),
        "mfu": plan.flops(rates.batch) / step_s / rates.peak,
        "epoch_h": epoch_s / 3600, "gpu_h": gpus * epoch_s / 3600,
        "core_h": rates.clips * plan.item_s(rates) / 3600, "bytes": stored,
        "bytes_a_node": stored / nodes, "bytes_s": stored / epoch_s,
        "shards": ceil(stored / rates.shard_bytes),
        "requests": max(ceil(stored / rates.range_bytes), ceil(stored / rates.shard_bytes)),
        "requests_by_file": int(rates.clips),
        "requests_s": stored / rates.range_bytes / epoch_s,
        "gradient_bytes": 4 * LEARNT[plan.work] * (gpus > 1),
        "enough_cores": ceil(rates.batch * plan.item_s(rates) / device_s),
    }  # fmt: skip


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    columns = ("work", "stored", "frames", "GPUs", "s a step", "bottleneck", "hours", "GPU hours",
               "TB", "GB/s", "requests", "MFU")  # fmt: skip
    table = Table(*columns, title="Ten million clips, once")
    for row in rows:
        table.add_row(
            row["work"], row["stored"], str(row["read"]), str(row["gpus"]), f"{row['step_s']:.2f}",
            row["bottleneck"], f"{row['epoch_h']:.1f}", f"{row['gpu_h']:.0f}",
            f"{row['bytes'] / 1e12:.1f}", f"{row['bytes_s'] / 1e9:.2f}", f"{row['requests']:,}",
            f"{row['mfu']:.0%}",
        )  # fmt: skip
    Console(width=120).print(table)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw what a step would take by each limit alone: a panel for each number of GPUs."""
    sizes = list(dict.fromkeys(row["gpus"] for row in rows))
    figure = Figure(figsize=(4 + 2.6 * len(sizes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)
    for panel, gpus in zip(panels[0], sizes, strict=True):
        of_size = [row for row in rows if row["gpus"] == gpus]
        places = range(len(of_size), 0, -1)
        for number, limit in enumerate(of_size[0]["limits_s"]):
            seconds = [row["limits_s"][limit] for row in of_size]
            panel.plot(seconds, places, MARKS[number], label=limit, alpha=0.9)
        named = [f"{row['work']}, {row['stored']}, {row['read']} frames" for row in of_size]
        panel.set_yticks(list(places), named)
        panel.set(xscale="log", xlabel="seconds a step", title=f"{gpus} GPUs", xlim=(2e-3, 2))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def with_set(rates: Rates, settings: Sequence[str]) -> Rates:
    """The rates with `name=number` laid over them.

    Raises:
        SystemExit: naming the rates there are, if one is none of them, or no number.
    """
    kinds = {field.name: type(getattr(rates, field.name)) for field in fields(rates)}
    found: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            found[name] = kinds[name](value)
        except (KeyError, ValueError):
            raise SystemExit(
                f"--set {setting}: give name=number, a name of {', '.join(kinds)}"
            ) from None
    return replace(rates, **found)


def main() -> None:
    """Parse the command line, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--work", nargs="+", choices=(ALIGN, ANSWER), default=[ALIGN, ANSWER])
    parser.add_argument("--set", nargs="+", default=[], metavar="RATE=NUMBER", help="other rates")
    parser.add_argument("--steps", type=int, default=200, help="simulated ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="where to draw the limits (svg, png, pdf)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    rows = []
    for plan in (plan for plan in PLANS if plan.work in options.work):
        rates = with_set(Rates(batch=32 if plan.work == ALIGN else 8), options.set)
        how = {"steps": options.steps, "seed": options.seed}
        rows += [result(plan, rates, gpus, **how) for gpus in options.gpus]
    if options.plot is not None:
        plot(rows, options.plot)
    print(json.dumps(rows)) if options.json else show(rows)


if __name__ == "__main__":
    main()
