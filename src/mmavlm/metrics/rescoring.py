"""The scores of predictions at hand: each task by its rule; no metric is synced, none is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.answers import answer_accuracy, unparsed_share
from mmavlm.metrics.captions import CHOOSING, caption_scores
from mmavlm.metrics.predictions import Prediction

Kind = Literal["generated", "ranked", "said"]
KINDS: tuple[Kind, ...] = ("generated", "ranked", "said")  # in the order they are told


def score_predictions(predictions: Sequence[Prediction]) -> dict[str, float]:
    """What `TaskScores` computes of the same predictions, whose tasks have one rule each."""
    by_task: dict[str, list[Prediction]] = {}
    for row in predictions:
        by_task.setdefault(row.task, []).append(row)
    found = {
        (task, kind): _scores(given, kind)
        for task, rows in by_task.items()
        for kind in KINDS
        if (given := [row for row in rows if _given(row, kind)])
    }
    sets = dict.fromkeys(task.partition("/")[0] for task in by_task if "/" in task)
    return named_scores(found, list(sets))


def named_scores(
    found: Mapping[tuple[str, Kind], dict[str, float]], sets: Sequence[str]
) -> dict[str, float]:
    """The scores of each task and kind of answers under one name each.

    `<task>/<score>` of generated answers, `<task>/rank_<score>` of ranked classes,
    `<task>/unparsed` of answers to questions with options; over the tasks of a set, and over all,
    the mean `accuracy` (top-1, generated where there is both) and of captions `cider_plain`.
    """
    values: dict[str, float] = {}
    over_tasks: dict[str, dict[str, float]] = {"accuracy": {}, CHOOSING: {}}
    for (task, kind), of_task in found.items():
        if not of_task.get("count" if kind != "said" else "parsed_of"):
            continue
        prefix = "rank_" if kind == "ranked" else ""
        values |= {f"{task}/{prefix}{name}": value for name, value in of_task.items()}
        for name, score in (("accuracy", "top1"), (CHOOSING, CHOOSING)):
            if score in of_task:
                over_tasks[name].setdefault(task, of_task[score])  # generated comes first
    for name, by_task in over_tasks.items():
        for of_set in ("", *sets):  # every task is of ""
            prefix = f"{of_set}/" if of_set else ""
            each = [value for task, value in by_task.items() if task.startswith(prefix)]
            if each:
                values[f"{prefix}{name}"] = sum(each) / len(each)
    return values


def _given(row: Prediction, kind: Kind) -> bool:
    return bool({"generated": row.answers, "ranked": row.ranking, "said": row.said}[kind])


def _scores(rows: Sequence[Prediction], kind: Kind) -> dict[str, float]:
    items, videos = [row.item_id for row in rows], [row.video_id for row in rows]
    references = [row.references for row in rows]
    if kind == "said":
        unparsed = torch.tensor([not row.answers[0].text for row in rows], dtype=torch.int64)
        return unparsed_share(string_keys(items), unparsed)
    answers = [row.ranking if kind == "ranked" else row.answers for row in rows]
    texts = [[answer.text for answer in of_row] for of_row in answers]
    rule = rows[-1].compare if kind == "generated" else "whole"
    if rule == "caption":
        best = [of_row[0] for of_row in texts]
        return caption_scores(string_keys(items), string_keys(videos), best, references)
    return answer_accuracy(
        items,
        videos,
        texts,
        [row.truth for row in rows],
        compare=rule,
        references=references,
        prompts=[row.prompt for row in rows],
    )
