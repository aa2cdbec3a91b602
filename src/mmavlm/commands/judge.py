"""Predictions judged by a text generator: the answers of one run, or of two against each other."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.files import write_whole
from mmavlm.core.nearest import nearest
from mmavlm.core.settings import whole_at_least
from mmavlm.metrics import (
    JudgedPair,
    JudgedScore,
    PairedItem,
    Prediction,
    ScoredItem,
    judged_pairs,
    judged_scores,
)
from mmavlm.metrics.comparison import film_of
from mmavlm.metrics.judged import Mean
from mmavlm.movies.generators.text import TextGenerator
from mmavlm.movies.judge import Failed, judge_answers, judge_pairs
from mmavlm.movies.overlap import OverlapJudge
from mmavlm.movies.verdicts import (
    Answered,
    AnsweredTwice,
    Aspect,
    Case,
    ShortVerdict,
    check_aspect,
)

log = logging.getLogger(__name__)

TOLD_EVERY = 100  # verdicts


@dataclass(frozen=True)
class Judged:
    """What a judge found: its numbers as plain values, and as a table."""

    told: dict[str, Any]
    table: Table


def judge_one(
    judge: TextGenerator, rows: Sequence[Prediction], config: DictConfig, folder: Path
) -> Judged:
    """The scores of one run's best answers, `aspects` of them; leave them in `folder`.

    judged.json has the numbers, verdicts.jsonl a row for each verdict or failure.

    Raises:
        ConfigError: if a setting is none that there is.
        DataError: if there is nothing to judge, or the judge cannot be reached.
    """
    aspects = _aspects(config.aspects, {row.task for row in rows})
    scores: list[JudgedScore] = []
    verdicts: list[dict[str, Any]] = []
    for aspect, tasks in aspects.items():
        units = _units([row for row in rows if row.task in tasks], aspect)
        found = judge_answers(judge, [a for _, a in units], aspect, **how_judged(judge, config))  # type: ignore[arg-type]  # all are of one kind
        items = []
        for (row, _), verdict in zip(units, found, strict=True):
            failed = isinstance(verdict, Failed)
            right = verdict.correct if isinstance(verdict, ShortVerdict) else None
            score = None if isinstance(verdict, Failed) else verdict.score
            items.append(ScoredItem(row.task, row.video_id, score, right))
            said = {"error": verdict.error} if isinstance(verdict, Failed) else verdict.model_dump()
            verdicts.append({"item_id": row.item_id, "task": row.task, "aspect": aspect, **said})
            if failed:
                log.warning("item %s has no verdict on %s", row.item_id, aspect)
        scores += judged_scores(items, aspect, samples=config.samples, seed=config.seed)
    told = _told(judge, config) | {"scores": [asdict(score) for score in scores]}
    _leave(folder, told, verdicts)
    return Judged(told, _score_table(judge, scores))


def judge_two(
    judge: TextGenerator,
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    config: DictConfig,
    folder: Path,
) -> Judged:
    """The best answers of two runs to the items of both against each other; see `judge_one`.

    Raises:
        ConfigError: if a setting is none that there is.
        DataError: if the judge cannot be reached.
    """
    of_a = {row.item_id: row for row in a}
    both = [(of_a[row.item_id], row) for row in b if row.item_id in of_a]
    cases = [Case(two.prompt, two.truth, _best(two), _best(one)) for one, two in both]
    found = judge_pairs(judge, cases, **how_judged(judge, config))
    items, verdicts = [], []
    for (one, row), outcome in zip(both, found, strict=True):
        video = film_of((one, row))
        said: dict[str, Any]
        if isinstance(outcome, Failed):
            log.warning("item %s has no verdict", row.item_id)
            items.append(PairedItem(row.task, video, None))
            said = {"error": outcome.error}
        else:
            items.append(PairedItem(row.task, video, outcome.sign, outcome.other, outcome.ours))
            said = {"b": ("lost", "tied", "won")[outcome.sign + 1]}
            said |= {"score_a": outcome.other, "score_b": outcome.ours}
        verdicts.append({"item_id": row.item_id, "task": row.task, **said})
    pairs = judged_pairs(items, samples=config.samples, seed=config.seed)
    told = _told(judge, config) | {"pairs": [asdict(pair) for pair in pairs]}
    _leave(folder, told, verdicts)
    return Judged(told, _pair_table(judge, pairs))


def _aspects(given: ListConfig | DictConfig | str, tasks: set[str]) -> dict[Aspect, set[str]]:
    """Which tasks are judged by each aspect.

    Raises:
        ConfigError: if an aspect or a task is none that there is, or nothing is named.
    """
    plain = given if isinstance(given, str) else OmegaConf.to_container(given)
    by_task: Mapping[Any, Any] = plain if isinstance(plain, dict) else dict.fromkeys(tasks, plain)
    if unknown := sorted(map(str, by_task.keys() - tasks)):
        near = ", ".join(nearest(unknown[0], sorted(tasks))) or ", ".join(sorted(tasks))
        raise ConfigError(f"aspects names the task {unknown[0]}, of which there is none: {near}?")
    found: dict[Aspect, set[str]] = {}
    for task, names in by_task.items():
        for name in [names] if isinstance(names, str) else names or ():
            found.setdefault(check_aspect(str(name)), set()).add(task)
    if not found:
        raise ConfigError("aspects names nothing to be judged; give one, such as aspects=short")
    return found


def single_aspect(given: ListConfig | DictConfig | str) -> Aspect:
    """The one aspect that single answers are judged by.

    Raises:
        ConfigError: if there are several, or it is of two answers.
    """
    one = given[0] if isinstance(given, ListConfig) and len(given) == 1 else given
    if not isinstance(one, str) or (aspect := check_aspect(one)) == "consistency":
        raise ConfigError(f"aspects={given}: give one that single answers have, such as short")
    return aspect


def _units(
    rows: Sequence[Prediction], aspect: Aspect
) -> list[tuple[Prediction, Answered | AnsweredTwice]]:
    """What is judged, each with the row that it is told of."""
    if aspect != "consistency":
        return [(row, Answered(row.prompt, row.truth, _best(row))) for row in rows]
    return list(_twice(rows))


def _twice(rows: Sequence[Prediction]) -> Iterator[tuple[Prediction, AnsweredTwice]]:
    """Two questions about one film with one reference each.

    Raises:
        DataError: if there are none.
    """
    alike: dict[tuple[str, str, str], list[Prediction]] = {}
    for row in rows:
        alike.setdefault((row.task, row.video_id, row.truth), []).append(row)
    twos = [same for same in alike.values() if len(same) == 2]
    if left := len(rows) - 2 * len(twos):
        log.warning("consistency takes two questions with one reference: %d rows are not so", left)
    if not twos:
        raise DataError(
            "aspects=[consistency] finds no film with two questions that have one and the same "
            "reference; ask each question in two ways, with one answer"
        )
    for one, two in twos:
        questions, answers = (one.prompt, two.prompt), (_best(one), _best(two))
        yield one, AnsweredTwice(questions, one.truth, answers)


def _best(row: Prediction) -> str:
    return (row.answers or row.ranking)[0].text


def how_judged(judge: TextGenerator, config: DictConfig) -> dict[str, Any]:
    """Where verdicts are kept, how many requests are under way, and who is told."""
    whole_at_least("", 1, workers=config.workers, samples=config.samples)

    def progress(done: int, total: int) -> None:
        if done % TOLD_EVERY == 0 or done == total:
            log.info("%d of %d verdicts", done, total)

    # counting words costs less than reading what it came to
    keep = None if isinstance(judge, OverlapJudge) else Path(config.verdicts)
    return {"keep": keep, "workers": config.workers, "progress": progress}


def _told(judge: TextGenerator, config: DictConfig) -> dict[str, Any]:
    return {"judge": judge.fingerprint, "samples": config.samples, "seed": config.seed}


def _leave(folder: Path, told: Mapping[str, Any], verdicts: Sequence[Any]) -> None:
    write_whole(folder / "judged.json", f"{json.dumps(told, indent=2)}\n".encode())
    lines = "".join(f"{json.dumps(verdict)}\n" for verdict in verdicts)
    write_whole(folder / "verdicts.jsonl", lines.encode())


def _table(judge: TextGenerator, columns: Sequence[str], failed: int) -> Table:
    without = f" {failed} verdicts could not be had: verdicts.jsonl says why." if failed else ""
    return Table(
        *columns,
        title=f"judge: {escape(judge.fingerprint)}",
        caption=f"Intervals: 95 %, whole films drawn.{without}",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def _score_table(judge: TextGenerator, scores: Sequence[JudgedScore]) -> Table:
    columns = ("", "", "score, 0 to 5", "right, %", "judged")
    table = _table(judge, columns, sum(score.failed for score in scores if score.task != "all"))
    for row in scores:
        right = _shown(row.accuracy, 100)
        table.add_row(escape(row.task), row.aspect, _shown(row.score), right, str(row.count))
    return table


def _pair_table(judge: TextGenerator, pairs: Sequence[JudgedPair]) -> Table:
    columns = ("", "B won, %", "tied", "lost", "score A", "B", "B − A", "p", "judged")
    table = _table(judge, columns, sum(pair.failed for pair in pairs if pair.task != "all"))
    for row in pairs:
        table.add_row(
            escape(row.task),
            _shown(row.won, 100),
            f"{100 * row.tied.value:.1f}",
            f"{100 * row.lost.value:.1f}",
            f"{row.a:.2f}",
            f"{row.b:.2f}",
            f"{row.low:+.2f}, {row.high:+.2f}",
            f"{row.p_value:.2g}",
            str(row.count),
        )
    return table


def _shown(mean: Mean | None, scale: float = 1.0) -> str:
    if mean is None:
        return ""
    digits = 1 if scale > 1 else 2
    value, low, high = (
        f"{scale * bound:.{digits}f}" for bound in (mean.value, mean.low, mean.high)
    )
    return f"{value} ({low} to {high})"
