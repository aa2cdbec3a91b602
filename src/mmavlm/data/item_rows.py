"""Items as rows of a table, and back.

An item that asks one plain question about one film is kept in columns, what all have in common
once for the table. Of any other item the columns hold what is asked of all of them (its task, what
it asks, its answer, its film), and `rest` holds all of it as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from mmavlm.core.conversation import Conversation
from mmavlm.core.items import Item
from mmavlm.core.medium import FrameGrid
from mmavlm.core.options import Options, check_style
from mmavlm.data.items import Flag

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("video", pa.string()),  # null: as item_id
        ("source", pa.string()),  # below the root, or absolute
        ("prompt", pa.string()),  # null: that of the table
        ("target", pa.string()),
        ("task", pa.string()),  # null: that of the table
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("frames", pa.int32()),  # of the grid, sampled as the table says
        ("flags", pa.uint8()),
        ("rest", pa.string()),
    ]
)
COLUMNS = tuple(SCHEMA.names)
EMPTY: dict[str, Any] = dict.fromkeys(COLUMNS)
TUPLE = "()"


class Common(NamedTuple):
    """What the items of a table have in common where their row says nothing."""

    root: str
    prompt: str = ""
    task: str = ""
    sampling: str = "segments"


def row_of(item: Item, common: Common) -> dict[str, Any]:
    """The row of an item.

    Raises:
        TypeError: if its `meta` holds what JSON cannot say.
    """
    media = item.conversation.media
    row = EMPTY | {
        "item_id": item.item_id,
        "video": None if item.video_id == item.item_id else item.video_id,
        "prompt": None if item.prompt == common.prompt else item.prompt,
        "target": item.target,
        "task": None if item.task == common.task else item.task,
        "flags": _flags(item),
    }
    if media:
        row["source"] = _below(media[0].source, common.root)
    if _is_plain(item, common):
        [film] = media
        row["start_s"], row["end_s"] = film.start_s or None, film.end_s
        row["frames"] = None if film.grid is None else film.grid.frames
        return row
    options = item.options
    rest = {
        "talk": item.conversation.as_json(),
        "references": list(item.references),
        "label": item.label,
        "options": None if options is None else [list(options.texts), options.style],
        "meta": _told(dict(item.meta)),
    }
    return row | {"rest": json.dumps(rest, ensure_ascii=False)}


def item_of(row: Mapping[str, Any], common: Common) -> Item:
    """The item of a row."""
    item_id, task = row["item_id"], row["task"]
    task = common.task if task is None else task
    if (rest := row["rest"]) is not None:
        told = json.loads(rest)
        texts, style = told["options"] or ((), "letters")
        return Item(
            item_id=item_id,
            conversation=Conversation.from_json(told["talk"]),
            task=task,
            references=tuple(told["references"]),
            label=told["label"],
            options=Options(tuple(texts), check_style(style, "options")) if texts else None,
            meta=_value(told["meta"]),
        )
    frames, video, prompt, target = row["frames"], row["video"], row["prompt"], row["target"]
    return Item.question(
        item_id=item_id,
        video_id=item_id if video is None else video,
        source=Path(common.root, row["source"]),
        prompt=common.prompt if prompt is None else prompt,
        target=target,
        task=task,
        references=(target,),
        start_s=row["start_s"] or 0.0,
        end_s=row["end_s"],
        grid=None if frames is None else FrameGrid(frames, common.sampling),  # type: ignore[arg-type]
    )


def batch_of(items: Iterable[Item], common: Common) -> pa.RecordBatch:
    """The rows of some items; errors as of `row_of`."""
    return pa.RecordBatch.from_pylist([row_of(item, common) for item in items], schema=SCHEMA)


def _is_plain(item: Item, common: Common) -> bool:
    if len(item.conversation.media) != 1 or not item.target:
        return False
    [film] = item.conversation.media
    asked = Conversation.question(film, item.prompt, item.target)
    beside = (item.label, item.options, film.subtitles) == (None, None, None) and not item.meta
    as_kept = film.grid is None or film.grid.sampling == common.sampling
    usual = film.kind == "film" and as_kept and item.references == (item.target,)
    return beside and usual and asked == item.conversation


def _flags(item: Item) -> int:
    sounds = any(medium.is_sound for medium in item.conversation.media)
    return int(
        (Flag.SOUND if sounds else 0)
        | (Flag.OPTIONS if item.options is not None else 0)
        | (Flag.REFERENCES if len(item.references) > 1 else 0)
        | (Flag.META if item.meta else 0)
        | (Flag.LABEL if item.label is not None else 0)
    )


def _below(source: Path, root: str) -> str:
    return str(source.relative_to(root)) if source.is_relative_to(root) else str(source)


def _told(value: Any) -> Any:
    """Plain values of which `_value` makes the same again; a tuple is an object of one key."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) in (list, tuple):
        told = [_told(one) for one in value]
        return told if type(value) is list else {TUPLE: told}
    if type(value) is dict and TUPLE not in value and all(type(key) is str for key in value):
        return {key: _told(one) for key, one in value.items()}
    raise TypeError(f"a table of items cannot hold {value!r}, a {type(value).__name__}")


def _value(told: Any) -> Any:
    if isinstance(told, list):
        return [_value(one) for one in told]
    if not isinstance(told, dict):
        return told
    if TUPLE in told:
        return tuple(_value(one) for one in told[TUPLE])
    return {key: _value(one) for key, one in told.items()}
