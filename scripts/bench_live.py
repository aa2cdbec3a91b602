"""An hour of film, watched live: what a frame costs at its end, and what is held meanwhile.

    python scripts/bench_live.py [--minutes 60] [--window 512] [--threads 1] [--plot docs/a.svg]

Frames come at 2 a second and are seen, scored and, once a minute, replied to, by the model of
`experiment=duet_movies` (every frame stays in a window over what the language model reads) and of
`experiment=duet_movies_memory` (a memory bank), with random weights. Beside them the first minutes
are watched with all that was read kept. Each way has a process of its own. A frame's time is that
of the processor, since others may use it, too. Before that, the scores of a film are compared with
those of the film read in one go.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from machine import machine
from mmavlm.core.batch import Batch
from mmavlm.core.config_files import config_dir
from mmavlm.core.conversation import Conversation
from mmavlm.core.files import write_whole
from mmavlm.core.generation import Generation
from mmavlm.core.medium import Medium
from mmavlm.core.speaking import SpeakingRule
from mmavlm.core.turns import Shown, Turn
from mmavlm.data.live import LiveFrame
from mmavlm.metrics.duet.watched import Said
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.report.drawing import NO_METADATA, style
from mmavlm.run.build import build_backbone
from mmavlm.run.live_duet import Habits, LiveDuet, Scored

FPS = 2
QUERY = "Tell me when there is a close-up of something red."
WAYS = {  # name → experiment, whether there is a window, the share of the time that is watched
    "every frame, window": ("duet_movies", True, 1.0),
    "memory bank, window": ("duet_movies_memory", True, 1.0),
    "every frame, all kept": ("duet_movies", False, 0.2),
}
REPLY = Generation(num_beams=1, num_answers=1, min_new_tokens=8, max_new_tokens=8)


def built(experiment: str) -> VideoLanguageModel:
    """The model of an experiment, at random values."""
    torch.manual_seed(0)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [f"experiment={experiment}", "data.root=."])
    return build_backbone(config).eval()


def pictures(model: VideoLanguageModel, count: int) -> Tensor:
    """Frames (count,3,S,S) of noise; what is to be seen does not matter for what it costs."""
    size = model.vision.encoder.image_size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def difference(model: VideoLanguageModel, frames: int = 40) -> float:
    """How far scores of a film as it runs are from those of the film in one go."""
    seen = pictures(model, frames)
    film = Medium(medium_id="film", source=Path("film.mp4"))
    talk = Conversation((Turn("user", (QUERY,)), Turn("stream", (Shown(0, (0, frames)),))), (film,))
    batch = Batch(
        conversations=[talk],
        media_rows=[(0,)],
        frames=seen[None],
        frame_mask=torch.ones(1, frames, dtype=torch.bool),
        timestamps_s=torch.arange(frames)[None] / FPS,
        item_id=["film"],
        task=["watch"],
    )
    with torch.no_grad():
        read = model.read_streams(batch)
        expected = model.require_heads().scores(read.hidden)
    order = sorted(range(frames), key=lambda n: read.frames[n].frame)
    duet = LiveDuet(model, Habits(SpeakingRule(9.0), REPLY))
    coming = (LiveFrame(n / FPS, frame) for n, frame in enumerate(seen))
    events = duet.watch(coming, [Said(0.0, QUERY)])
    scores = [[*event.scores.values()] for event in events if isinstance(event, Scored)]
    return float((torch.tensor(scores) - expected[order].cpu()).abs().max())


def resident_mib() -> float:
    """How much memory the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def watched(way: str, minutes: int, window: int, threads: int) -> dict[str, Any]:
    """Milliseconds a frame, memory and remembered tokens of each minute."""
    torch.set_num_threads(threads)
    experiment, bounded, share = WAYS[way]
    model = built(experiment)
    seen, minutes = pictures(model, 64), max(1, round(minutes * share))
    habits = Habits(SpeakingRule(-1.0, 60.0), REPLY, window if bounded else None, repeat=True)
    duet, a_minute = LiveDuet(model, habits), 60 * FPS
    coming = (LiveFrame(n / FPS, seen[n % 64]) for n in range(minutes * a_minute))
    rows: list[dict[str, float]] = []
    took: list[float] = []
    start = time.process_time()
    for event in duet.watch(coming, [Said(0.0, QUERY)]):
        if isinstance(event, Scored):
            took.append(1000 * (time.process_time() - start))
            if len(took) == a_minute:
                held = {"mib": resident_mib(), "tokens": duet.num_tokens}
                rows.append({"ms": mean(took), "median_ms": median(took), **held})
                took = []
        start = time.process_time()
    return {"minutes": rows, "difference": difference(model)}


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """What each way gives, in a process of its own, one after the other."""
    spawn = multiprocessing.get_context("spawn")
    found = {}
    for way in WAYS:
        with spawn.Pool(1) as pool:
            given = (way, options.minutes, options.window, options.threads)
            found[way] = pool.apply(watched, given)
    return {"ways": found, "settings": {**vars(options), "plot": None}, **machine()}


def third_and_last(rows: list[dict[str, float]]) -> Iterator[dict[str, float]]:
    """The third minute and the last."""
    yield rows[min(2, len(rows) - 1)]
    yield rows[-1]


def plot(ways: dict[str, Any], path: Path) -> None:
    """Time a frame and memory over the minutes, each way a line."""
    with style(path.stem):
        figure = Figure(figsize=(9, 3), layout="constrained")
        for axes, key, label in zip(
            figure.subplots(1, 2), ("ms", "mib"), ("ms a frame", "MiB held"), strict=True
        ):
            for way, colour in zip(ways, ("#3b82c4", "#e07b39", "#b3372f"), strict=True):
                values = [row[key] for row in ways[way]["minutes"]]
                axes.plot(range(1, len(values) + 1), values, label=way, color=colour)
            axes.set_xlabel("minute of the film")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", alpha=0.2)
        figure.axes[0].legend(frameon=False, fontsize=8)
        figure.savefig(path, metadata=NO_METADATA, facecolor="white")
    lines = (line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    write_whole(path, ("\n".join(lines) + "\n").encode())


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--window", type=int, default=512, help="tokens that are remembered")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--plot", type=Path, help="an svg file")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    result = bench(options)
    if options.plot is not None:
        plot(result["ways"], options.plot)
    if options.json:
        print(json.dumps(result))
        return
    columns = ("way", "minutes", "ms: third", "last", "MiB: third", "last", "tokens", "apart")
    table = Table(*columns, title="films watched live")
    for way, found in result["ways"].items():
        third, last = third_and_last(found["minutes"])
        table.add_row(
            way,
            str(len(found["minutes"])),
            *(f"{row['ms']:.1f}" for row in (third, last)),
            *(f"{row['mib']:.0f}" for row in (third, last)),
            str(last["tokens"]),
            f"{found['difference']:.0e}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
