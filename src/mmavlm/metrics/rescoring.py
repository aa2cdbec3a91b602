"""The scores of predictions at hand: each task by its rule; no metric is synced, none is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mmavlm.core.hashing import string_keys
from mmavlm.metrics.answers import TOP_K, summarise, unparsed_share
from mmavlm.metrics.captions import CHOOSING, caption_scores
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.taken import KINDS, Kind, Taken, in_parts


def score_predictions(predictions: Iterable[Prediction]) -> dict[str, float]:
    """What `TaskScores` computes of the same predictions, whose tasks have one rule each.

    They are read once, and of each no more is held than `Taken` says.
    """
    taken = Taken()
    for part in in_parts(predictions):
        taken.take(part)
    return taken_scores(taken)


def taken_scores(taken: Taken) -> dict[str, float]:
    """The scores of what was taken of predictions, under the names of `named_scores`."""
    found = {
        (task, kind): scores
        for task in taken.rules
        for kind in KINDS
        if (scores := _scores(taken, task, kind))
    }
    sets = dict.fromkeys(task.partition("/")[0] for task in taken.rules if "/" in task)
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


def _scores(taken: Taken, task: str, kind: Kind) -> dict[str, float]:
    """The scores of one kind of answers; none where there are no such answers."""
    if kind == "generated" and (captions := taken.captions.get(task)) is not None:
        keys = string_keys(captions.items), string_keys(captions.videos)
        return caption_scores(*keys, captions.texts, captions.references)
    rows = taken.rows(task, kind)
    if rows is None:
        return {}
    return unparsed_share(rows[:, 0], rows[:, 1]) if kind == "said" else summarise(rows, TOP_K)
