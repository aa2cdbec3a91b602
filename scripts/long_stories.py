"""Long stories: rows that show a film once for all its questions, and runs on them side by side.

    python scripts/long_stories.py rows data/long_stories
    python scripts/long_stories.py table outputs/long/words outputs/long/memory [--plot docs/a.svg]

`rows` writes, below a set of `python -m mmavlm.movies kind=stories`, `talks/` for
`data=conversations`, and `words/`, the same without films. In training a row is a stretch of film
with all its questions in random order; in validation and test it is one question about an entire
film.

`table` reads what tested runs answered: right answers by category with 95 % intervals, for which
films are drawn, and differences to the first run. What they cost is measured with each run's
weights in a process of its own, by turns: video tokens a question, seconds of a training step on
entire films and of a question, the peak memory of the process. The fastest of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from machine import machine
from mmavlm.core.batch import Batch
from mmavlm.core.files import write_whole
from mmavlm.core.hashing import string_keys
from mmavlm.data.collate import collate
from mmavlm.metrics import Prediction, read_predictions
from mmavlm.metrics.comparison import compare_predictions
from mmavlm.metrics.intervals import bootstrap_interval, wilson_interval
from mmavlm.metrics.prediction_files import predictions_path
from mmavlm.metrics.resampling import group_sums, mean, with_count
from mmavlm.movies.stories.questions import CATEGORIES
from mmavlm.report.drawing import NO_METADATA, style
from mmavlm.run.build import build_stage
from mmavlm.stages import FineTune
from mmavlm.weights.checkpoint import load_trainable, read_checkpoint

Row = Mapping[str, Any]
ALL = "all"  # the categories together
SPLITS = ("train", "val", "test")
SHOWN = {"talks": True, "words": False}  # folder → whether its rows show their films


class Share(NamedTuple):
    """Right answers in percent, and the 95 % interval when films are drawn."""

    value: float
    low: float
    high: float


class Cost(NamedTuple):
    """Video tokens and seconds a question, seconds of a step, peak memory of the process."""

    tokens: float
    step_s: float
    question_s: float
    peak_mib: float


def write_talks(root: Path, seed: int = 0) -> dict[str, int]:
    """Write `talks/` and `words/` below a set of stories; how many rows each file has."""
    counts = {}
    for split in SPLITS:
        lines = (root / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        for folder, shows in SHOWN.items():
            talks = list(_training(rows, shows, seed) if split == "train" else _single(rows, shows))
            text = "".join(json.dumps(talk) + "\n" for talk in talks)
            write_whole(root / folder / f"{split}.jsonl", text.encode())
            counts[f"{folder}/{split}"] = len(talks)
    return counts


def _training(rows: Sequence[Row], shows: bool, seed: int) -> Iterator[dict[str, Any]]:
    """All questions about a stretch of film in a random order, a row each stretch."""
    rng = random.Random(seed)
    for _, group in groupby(rows, key=lambda row: (row["video"], *_bounds(row).values())):
        asked = list(group)
        rng.shuffle(asked)
        yield {"id": asked[0]["id"], **_talk(asked, shows)}


def _single(rows: Sequence[Row], shows: bool) -> Iterator[dict[str, Any]]:
    """The questions about entire films, each alone."""
    for row in rows:
        if not _bounds(row):
            yield {"id": row["id"], "task": row["task"], **_talk([row], shows)}


def _bounds(row: Row) -> dict[str, float]:
    return {key: row[key] for key in ("start_s", "end_s") if key in row}


def _talk(asked: Sequence[Row], shows: bool) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for row in asked:
        film = [{"medium": 0}] if shows and not turns else []
        turns.append({"role": "user", "parts": [*film, row["prompt"]]})
        turns.append({"role": "assistant", "parts": [row["answer"]]})
    media = [{"source": asked[0]["video"], **_bounds(asked[0])}]
    return {"media": media, "turns": turns} if shows else {"turns": turns}


def right_answers(predictions: Sequence[Prediction]) -> dict[str, Share]:
    """Category, and all of them → the share that was answered right."""
    groups = {ALL: list(predictions)}
    for row in predictions:
        groups.setdefault(row.task, []).append(row)
    return {name: _share(rows) for name, rows in groups.items()}


def _share(rows: Sequence[Prediction]) -> Share:
    right = torch.tensor([bool(row.right) for row in rows])
    films = group_sums(with_count(right), string_keys([row.video_id for row in rows]))
    value = float(right.double().mean())
    if 0 < value < 1:
        low, high = bootstrap_interval(films, mean)
    else:  # however films are drawn, it is the same: so many films, and nothing else in any
        low, high = wilson_interval(value * len(films), len(films))
    return Share(100 * value, 100 * low, 100 * high)


def measured(run: Path, questions: int = 32) -> Cost:
    """What a run's model costs on entire films; to be called in a process of its own."""
    torch.set_num_threads(1)
    config = OmegaConf.load(run / "config.yaml")
    assert isinstance(config, DictConfig)
    data = instantiate(config.data)
    stage = build_stage(config, data, [], ["train", "test"])
    assert isinstance(stage, FineTune)
    checkpoint = run / "checkpoints" / "last.ckpt"
    load_trainable(stage, read_checkpoint(checkpoint)["state_dict"], f"checkpoint {checkpoint}")
    step_s = _step_s(stage, config, data.dataset("train"))
    asked = data.dataset("test")
    batch = collate([asked[n] for n in range(min(questions, len(asked)))])
    stage.eval()
    with torch.no_grad():
        media = stage.backbone.media_tokens(batch)
        start = time.perf_counter()
        stage.backbone.generate(batch, stage.generation)
        question_s = (time.perf_counter() - start) / len(batch)
    read = media.tokens.shape[1] * len(media.tokens) if media.mask is None else media.mask.sum()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(float(read) / len(batch), step_s, question_s, peak)


def _step_s(stage: FineTune, config: DictConfig, dataset: Any) -> float:
    """Seconds of a training step on the stretches with most questions, which are entire films."""
    turns = [len(item.conversation.turns) for item in dataset.items]
    longest = sorted(range(len(turns)), key=lambda n: -turns[n])[: config.data.batch_size]
    batch: Batch = collate([dataset[n] for n in longest])
    optimizer, _ = instantiate(config.optimizer).build(
        stage.backbone.named_parameters(), total_steps=10, epoch_steps=10
    )
    stage.train()
    seconds = []
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        stage.losses(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds[-1]


def costs(runs: Sequence[Path], rounds: int) -> list[Cost]:
    """What each run costs: the fastest and the largest peak of rounds, in which runs take turns."""
    found: list[list[Cost]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, own in zip(runs, found, strict=True):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                own.append(pool.apply(measured, (run,)))
    return [
        Cost(
            own[0].tokens,
            min(cost.step_s for cost in own),
            min(cost.question_s for cost in own),
            max(cost.peak_mib for cost in own),
        )
        for own in found
    ]


def table(runs: Sequence[Path], rounds: int, plot: Path | None) -> dict[str, Any]:
    """What runs answered, how they differ from the first, and what they cost; drawn to `plot`."""
    answered = [read_predictions(predictions_path(run)) for run in runs]
    shares = {run.name: right_answers(rows) for run, rows in zip(runs, answered, strict=True)}
    cost = dict(zip(shares, costs(runs, rounds), strict=True))
    if plot is not None:
        draw(shares, cost, plot)
    differences = {
        run.name: [
            {"task": d.task, "difference": d.difference, "low": d.low, "high": d.high,
             "p_value": d.p_value}
            for d in compare_predictions(answered[0], rows).differences if d.score == "top1"
        ]
        for run, rows in zip(runs[1:], answered[1:], strict=True)
    }  # fmt: skip
    return {
        "right": {name: {k: s._asdict() for k, s in of.items()} for name, of in shares.items()},
        "differences": differences,
        "cost": {name: of._asdict() for name, of in cost.items()},
        "questions": len(answered[0]),
        **machine(),
    }


def draw(shares: Mapping[str, Mapping[str, Share]], cost: Mapping[str, Cost], path: Path) -> None:
    """Draw right answers against video tokens a question: all of them, and by category."""
    runs = sorted(shares, key=lambda run: cost[run].tokens)
    tokens = [cost[run].tokens for run in runs]
    with style("long_stories"):
        figure = Figure(figsize=(7.6, 3.4), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2)
        for run, x in zip(runs, tokens, strict=True):
            value, low, high = shares[run][ALL]
            left.errorbar([x], [value], [[value - low], [high - value]], fmt="o", capsize=3,
                          label=run.replace("_", " "))  # fmt: skip
        left.legend(frameon=False, fontsize=8, loc="lower left")
        for category in CATEGORIES:
            values = [shares[run][category].value for run in runs if category in shares[run]]
            right.plot(tokens[: len(values)], values, "o-", markersize=3, label=category)
        right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        for axes, title in ((left, "all questions"), (right, "by category")):
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xticks(tokens, [f"{number:.0f}" for number in tokens])
            axes.set_xticks([], minor=True)
            axes.set(title=title, xlabel="video tokens a question", ylabel="right answers (%)")
            axes.set_ylim(bottom=0)
            axes.margins(x=0.2)
            axes.grid(alpha=0.2)
        figure.savefig(path, metadata=NO_METADATA)


def show(result: Mapping[str, Any]) -> None:
    """Print right answers, costs and differences as tables in Markdown."""
    names = [ALL, *CATEGORIES]
    print(f"{result['questions']} questions about entire films\n")
    print(_line(["run", "tokens", *names, "step", "question", "peak"]))
    print("|" + "-|" * (len(names) + 5))
    for run, right in result["right"].items():
        cost = Cost(**result["cost"][run])
        cells = [_cell(**right[name]) if name in right else "" for name in names]
        took = (f"{cost.step_s:.2f} s", f"{cost.question_s:.3f} s", f"{cost.peak_mib:.0f} MiB")
        print(_line([run, f"{cost.tokens:.0f}", *cells, *took]))
    for run, differences in result["differences"].items():
        print(f"\n{run} − {next(iter(result['right']))}, in points")
        for found in differences:
            points = _cell(*(100 * found[key] for key in ("difference", "low", "high")))
            print(f"  {found['task']}: {points}, p {found['p_value']:.2g}")


def _cell(value: float, low: float, high: float) -> str:
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Parse the command line, write rows or print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    rows = commands.add_parser("rows", help="write talks/ and words/ below a set of stories")
    rows.add_argument("root", type=Path)
    rows.add_argument("--seed", type=int, default=0, help="of the order of questions")
    tables = commands.add_parser("table", help="runs side by side; the first is compared with")
    tables.add_argument("runs", type=Path, nargs="+", help="folders of tested runs")
    tables.add_argument("--rounds", type=int, default=2, help="how often costs are measured")
    tables.add_argument("--plot", type=Path, help="where to draw accuracy against tokens")
    tables.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    options = parser.parse_args()
    if options.command == "rows":
        for name, count in write_talks(options.root, options.seed).items():
            print(f"{options.root / name}.jsonl: {count} rows")
        return
    result = table(options.runs, options.rounds, options.plot)
    print(json.dumps(result)) if options.json else show(result)


if __name__ == "__main__":
    main()
