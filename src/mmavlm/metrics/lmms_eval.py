"""Benchmarks as tasks of lmms-eval: rows of a jsonl, and the functions a task's yaml names.

A row holds what a model is shown and asked (`video`, `prompt`), the truth (`answer`), and what the
metrics need beside it (`item_id`, `task`, `meta`). lmms-eval gathers the rows with their answers
and calls one aggregation a metric; all rows go through the benchmark's own metrics, so that the
scores are those of `mmavlm.evaluate`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmavlm.core.items import Item
from mmavlm.metrics.benchmarks import Benchmark

Score = Callable[[Sequence[Mapping[str, Any]]], float]

# Task → the rows last seen of it, and all that was computed of them.
_COMPUTED: dict[str, tuple[Sequence[Mapping[str, Any]], Mapping[str, float]]] = {}


def row_of(item: Item) -> dict[str, Any]:
    """A question as a row. `meta` is one JSON text, since a table's columns have one type each.

    Raises:
        DataError: if the item is not about one film.
    """
    return {
        "item_id": item.item_id,
        "task": item.task,
        "video": str(item.film.source.absolute()),
        "prompt": item.prompt,
        "answer": item.target,
        "start_s": item.film.start_s,
        "end_s": item.film.end_s,
        "meta": json.dumps(dict(item.meta), ensure_ascii=False),
    }


def item_of(row: Mapping[str, Any]) -> Item:
    """The question of a row."""
    return Item.question(
        item_id=row["item_id"],
        video_id=row["video"],
        source=Path(row["video"]),
        prompt=row["prompt"],
        target=row["answer"],
        task=row["task"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        meta=json.loads(row["meta"]),
    )


def video_of(row: Mapping[str, Any]) -> list[str]:
    """What a model is shown: the path of the film."""
    return [row["video"]]


def prompt_of(row: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> str:
    """What a model is asked, between the texts that lmms-eval's settings put around it."""
    around = settings or {}
    return f"{around.get('pre_prompt', '')}{row['prompt']}{around.get('post_prompt', '')}"


def answered(
    row: Mapping[str, Any], results: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """The row with its answer, under the name of each metric."""
    given = {**row, "response": results[0]}
    return dict.fromkeys(names, given)


def aggregations(benchmark: Benchmark, values: Mapping[str, str], task: str) -> dict[str, Score]:
    """The aggregation of each of a benchmark's `values`, by its name in the yaml of `task`.

    All of them are computed at once, and again only for other rows: captions take seconds, and
    lmms-eval reads the functions of a task from a copy of its module each.
    """

    def computed(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        known = _COMPUTED.get(task)
        if known is None or known[0] != rows:
            benchmark.reset()
            benchmark.update([item_of(row) for row in rows], [str(row["response"]) for row in rows])
            known = _COMPUTED[task] = list(rows), benchmark.compute()
        return known[1]

    def aggregation(value: str) -> Score:
        key = f"{benchmark.name}/{value}"
        return lambda rows: computed(rows).get(key, float("nan"))

    return {name: aggregation(value) for name, value in values.items()}
