"""The arms of an experiment over several seeds, out of a sweep's folder: tables and a figure.

A Hydra callback, beside the table that every sweep ends in.
"""

from __future__ import annotations

import atexit
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from mmavlm.callbacks.decodings import FOLDER, PLAIN
from mmavlm.core.metrics_file import write_text
from mmavlm.metrics import read_predictions
from mmavlm.metrics.arms import ArmDifference, ArmRun, Mean, Runs, compare_arms, holm, over_seeds
from mmavlm.metrics.planted_bias import SCORES, bias_scores
from mmavlm.metrics.prediction_files import FILE
from mmavlm.movies.bias import pair_of
from mmavlm.report import draw_arms, write_report
from mmavlm.run.arms_page import Comparisons, Means, arms_tables, describe_arms
from mmavlm.run.sweep import markdown, read_jobs

log = logging.getLogger(__name__)

OVER = " + "  # between the name of an arm and what is laid over it
NO_REMEDY = "none"
NAME = "arms"  # of the files: arms.json, arms.md, arms.svg, arms.html


class ArmsTable(Callback):
    """Collect a sweep over `arm` and `seed` into arms.json, .md, .svg and .html in its folder.

    `compare` says which arms are compared with which one: reference → arms. A sweep over remedies,
    too, has an arm for each of both, `one_level + group_dro`, and for each decoding that a run was
    tested with (see `callbacks.Decodings`); without `compare` they are compared with the arm alone.
    """

    def __init__(self, compare: Mapping[str, Sequence[str]] | None = None) -> None:
        self.compare = {reference: list(arms) for reference, arms in (compare or {}).items()}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Promise the tables: Hydra tells of a sweep's end only if no job failed."""
        atexit.register(write_arms, Path(config.hydra.sweep.dir), self.compare)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write and print the tables of the sweep that ends."""
        atexit.unregister(write_arms)
        write_arms(Path(config.hydra.sweep.dir), self.compare)


def write_arms(folder: Path, compare: Mapping[str, Sequence[str]]) -> None:
    """Write and print what the finished runs of a sweep's folder say; name those that are not."""
    arms, missing = read_arms(folder)
    if missing:
        log.warning("not in the tables, since not finished: %s", ", ".join(missing))
    if not arms:
        return
    compare = compare or laid_over(arms)
    named = [name for reference, others in compare.items() for name in (reference, *others)]
    arms = {name: arms[name] for name in dict.fromkeys((*named, *arms)) if name in arms}
    means = {arm: {s: over_seeds(runs, s) for s in SCORES} for arm, runs in arms.items()}
    against = compare_all(arms, compare)
    told = {
        "missing": missing,
        "scores": SCORES,
        "means": _plain(means),
        "against": _plain(against),
    }
    write_text(folder / f"{NAME}.json", json.dumps(told, indent=1) + "\n")
    tables = "\n".join(_as_markdown(means, against, missing))
    write_text(folder / f"{NAME}.md", tables)
    groups = _groups(arms, compare)
    write_text(folder / f"{NAME}.svg", draw_arms(means, groups))
    write_report(folder / f"{NAME}.html", describe_arms(folder, means, against, missing, groups))
    Console(soft_wrap=True).print(tables, markup=False, highlight=False)


def read_arms(folder: Path) -> tuple[dict[str, Runs], list[str]]:
    """Arm → seed → finished run, and the names of unfinished runs.

    What was to be run is each arm that was started with each seed that was.
    """
    arms: dict[str, dict[int, ArmRun]] = {}
    seeds: set[int] = set()
    for job in read_jobs(folder):
        if not {"arm", "seed"} <= job.settings.keys():
            continue
        arm, seed = arm_of(job.settings), int(job.settings["seed"])
        runs = arms.setdefault(arm, {})
        seeds.add(seed)
        path = folder / job.number / FILE
        if not (job.metrics and not job.error and path.is_file()):
            continue
        runs[seed] = _scored(path)
        for other in sorted((folder / job.number / FOLDER).glob("*.jsonl")):
            if other.stem != PLAIN:
                arms.setdefault(f"{arm}{OVER}{other.stem}", {})[seed] = _scored(other)
    missing = [f"{a} with seed {s}" for a, s in product(arms, sorted(seeds)) if s not in arms[a]]
    return {arm: runs for arm, runs in arms.items() if runs}, missing


def arm_of(settings: Mapping[str, str]) -> str:
    """The name of a run's arm, with what is laid over it."""
    remedy = settings.get("remedy", NO_REMEDY)
    return settings["arm"] + ("" if remedy == NO_REMEDY else f"{OVER}{remedy}")


def laid_over(arms: Iterable[str]) -> dict[str, list[str]]:
    """Arm → the arms that something is laid over, for those of which there is both."""
    found: dict[str, list[str]] = {}
    names = list(arms)
    for name in names:
        below = name.partition(OVER)[0]
        if below != name and below in names:
            found.setdefault(below, []).append(name)
    return found


def _groups(arms: Iterable[str], compare: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Each arm with what is laid over it: arm → what its row is called."""
    groups: dict[str, dict[str, str]] = {}
    for name in arms:
        below, over, laid = name.partition(OVER)
        is_laid = over and name in compare.get(below, ())
        groups.setdefault(below if is_laid else name, {})[name] = f"+ {laid}" if is_laid else name
    alone = all(len(group) == 1 for group in groups.values())
    return [] if alone else list(groups.values())


def _scored(path: Path) -> ArmRun:
    rows = read_predictions(path)
    return ArmRun.of(rows, bias_scores(rows, pair_of))


def compare_all(arms: Mapping[str, Runs], compare: Mapping[str, Sequence[str]]) -> Comparisons:
    """Each reference's arms against it, those that have a seed of its, with p for all at once."""
    found: Comparisons = {}
    for reference, names in compare.items():
        seeds = arms.get(reference, {}).keys()
        there = [name for name in names if seeds & arms.get(name, {}).keys()]
        of_arm = {n: {s: compare_arms(arms[n], arms[reference], s) for s in SCORES} for n in there}
        for score in SCORES:
            adjusted = holm([of_arm[name][score].p_seeds for name in there])
            for name, p in zip(there, adjusted, strict=True):
                of_arm[name][score] = replace(of_arm[name][score], p_holm=p)
        found[reference] = of_arm
    return found


def _as_markdown(means: Means, against: Comparisons, missing: Sequence[str]) -> Iterator[str]:
    for table in arms_tables(means, against):
        yield f"{table.note}\n"
        yield markdown([table.columns, ["-"] * len(table.columns), *table.rows])
    if missing:
        yield f"Not finished: {', '.join(missing)}.\n"


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, and null for what is not a number."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Mean | ArmDifference):
        return _plain(asdict(value))
    return None if value != value else value
