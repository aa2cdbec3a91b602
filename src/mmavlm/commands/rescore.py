"""What `mmavlm.evaluate` does without a model: scores, two runs compared, answers judged."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.core.metrics_file import finite, read_metrics, write_metrics
from mmavlm.core.settings import at_least, seed_given
from mmavlm.metrics import (
    PredictionFile,
    check_rule,
    missing_rows,
    predictions_path,
)
from mmavlm.metrics.guesses import Guesses
from mmavlm.metrics.headline import headline
from mmavlm.metrics.table import score_table

if TYPE_CHECKING:  # torch, and what the metrics need, are imported when predictions have been read
    from mmavlm.metrics import Comparison, Difference, Prediction
    from mmavlm.metrics.rules import Rule
    from mmavlm.movies.generators import TextGenerator

Scored = tuple[dict[str, Any], list[Table]]  # plain values, and how they are printed

log = logging.getLogger(__name__)


def score(config: DictConfig, folder: Path, judge: TextGenerator | None = None) -> None:
    """Do what `config` asks for (conf/score.yaml), leaving its numbers in `folder`.

    With a judge, the answers are judged beside.

    Raises:
        ConfigError: if it asks for both or neither, or a setting is not one of those admitted.
        DataError: if predictions are missing or broken, two runs cannot be compared, or the judge
            cannot be reached.
    """
    if config.task is not None:
        # Imported here, since only films that were watched need it.
        from mmavlm.commands.duet import score_watched as do
    elif config.truth is not None:
        raise ConfigError("truth=… is read with a task, such as task=grounding; see --help")
    elif (config.predictions is None) == (config.compare is None):
        raise ConfigError("give either predictions=… or compare=[…,…]")
    else:
        _check_abstaining(config, judge)
        do = rescore if config.compare is None else compare
    values, tables = do(config, folder, judge)
    if config.format == "json":
        print(json.dumps(values))
    for table in tables if config.format != "json" else ():
        Console().print(table)


def _check_abstaining(config: DictConfig, judge: TextGenerator | None) -> None:
    """Refuse settings that say when to abstain where nothing does, or beside what knows of none."""
    if config.val_predictions is None:
        if config.target is not None:
            raise ConfigError(
                f"target={config.target} needs val_predictions=…, on which it is to be reached"
            )
        return
    at_least("", 0, target=config.target)
    if config.compare is not None or judge is not None:
        other = "judge=…" if config.compare is None else "compare=…"
        raise ConfigError(
            f"val_predictions=… says when predictions=… abstain, and {other} reads none; run one "
            "after the other"
        )


def rescore(config: DictConfig, folder: Path, judge: TextGenerator | None) -> Scored:
    """Score predictions as their evaluation did, and leave metrics.json."""
    path = predictions_path(config.predictions)
    predictions = _file(path, config)
    if config.val_predictions is not None:
        # Imported here, since scores alone choose no threshold.
        from mmavlm.commands.abstain import TARGET, abstain

        chosen_on = _read(_file(predictions_path(config.val_predictions), config))
        target = TARGET if config.target is None else config.target
        return abstain(_read(predictions), chosen_on, target, folder)
    log.info("scoring the predictions of %s …", path)
    from mmavlm.metrics.rescoring import taken_scores
    from mmavlm.metrics.taken import Taken, in_parts

    taken, guesses = Taken(), Guesses()
    for part in in_parts(predictions):
        taken.take(part)
        guesses.take(part)
    _tell_missing(path, taken.items)
    _tell_left_out(taken.rules)
    values = {f"test/{name}": value for name, value in taken_scores(taken).items()}
    write_metrics(folder / "metrics.json", values)
    told: dict[str, Any] = finite(values)
    tables = [score_table(str(path), headline(values, guesses))]
    if judge is not None:
        from mmavlm.commands.judge import judge_one

        judged = judge_one(judge, list(predictions), config, folder)
        return told | {"judged": judged.told}, [*tables, judged.table]
    return told, tables


def compare(config: DictConfig, folder: Path, judge: TextGenerator | None) -> Scored:
    """Compare two runs item by item, and leave comparison.json."""
    runs = config.compare
    if isinstance(runs, str) or len(runs) != 2:
        raise ConfigError(f"compare takes two runs, such as compare=[runA,runB], got {runs}")
    if config.samples < 1:
        raise ConfigError(f"samples must be 1 or more, got {config.samples}")
    seed_given("", config.seed)
    a, b = (_file(predictions_path(run), config) for run in runs)
    log.info("comparing %s and %s …", *runs)
    from mmavlm.metrics.both_runs import Run
    from mmavlm.metrics.comparison import compare_runs

    of_a, of_b = Run(a), Run(b)
    for file, run in ((a, of_a), (b, of_b)):
        _tell_missing(file.path, run.taken.items)
    _tell_left_out(of_a.taken.rules)
    found = compare_runs(of_a, of_b, samples=config.samples, seed=config.seed)
    named = {"a": str(runs[0]), "b": str(runs[1]), "samples": config.samples, "seed": config.seed}
    told: dict[str, Any] = named | asdict(found)
    write_whole(folder / "comparison.json", f"{json.dumps(told, indent=2)}\n".encode())
    tables = [comparison_table(found, *map(str, runs))]
    if judge is not None:
        from mmavlm.commands.judge import judge_two

        judged = judge_two(judge, list(a), list(b), config, folder)
        return told | {"judged": judged.told}, [*tables, judged.table]
    return told, tables


def comparison_table(found: Comparison, a: str, b: str) -> Table:
    """Each difference with its interval and test, narrow enough for 80 columns."""
    table = Table(
        *("", "A", "B", "B − A", "95 % interval", "p", "only A, B", "items"),
        title=f"A: {escape(a)}\nB: {escape(b)}",
        caption=f"{found.common} items in both runs, {found.only_in_a} in A alone, "
        f"{found.only_in_b} in B alone. {found.changed} of {found.common} answers changed. "
        "Intervals: whole videos drawn. p: exact McNemar test of accuracies, with the items right "
        "in one run only; permutation test of captions.",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for task in dict.fromkeys(row.task for row in found.differences):
        table.add_row(f"[bold]{escape(task)}[/bold]")
        for row in found.differences:
            if row.task == task:
                table.add_row(*_cells(row))
    return table


def _cells(row: Difference) -> list[str]:
    return [
        f" {row.score}",
        f"{row.a:.3f}",
        f"{row.b:.3f}",
        f"{row.difference:+.3f}",
        f"{row.low:+.3f}, {row.high:+.3f}",
        f"{row.p_value:.2g}",
        "" if row.only_a is None else f"{row.only_a}, {row.only_b}",
        str(row.items),
    ]


def _file(path: Path, config: DictConfig) -> PredictionFile:
    """The rows of a file, by the rule that is given."""
    rule = None if config.rule is None else check_rule(config.rule, "rule")
    return PredictionFile(path, rule)


def _read(file: PredictionFile) -> list[Prediction]:
    """All rows of a file; it is told if rows are missing."""
    rows = list(file)
    _tell_missing(file.path, Counter(row.task for row in rows))
    return rows


def _tell_missing(path: Path, rows: Mapping[str, int]) -> None:
    """Tell of tasks of which a file has fewer rows than its run counted."""
    for message in missing_rows(rows, read_metrics(path.with_name("metrics.json"))):
        log.warning("%s has %s", path, message)


def _tell_left_out(rules: Mapping[str, Rule]) -> None:
    if "caption" in rules.values():
        from mmavlm.metrics import left_out

        if problem := left_out():
            log.warning("%s", problem)
