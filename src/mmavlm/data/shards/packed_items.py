"""Items as shards of ours hold them: rows (`item_rows`), films by where they lie in the shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.data.item_rows import COLUMNS, EMPTY, SCHEMA, Common
from mmavlm.data.item_rows import item_of as item_of_row
from mmavlm.data.item_rows import row_of as row_of_item
from mmavlm.data.item_writer import PlainRows
from mmavlm.data.shards.members import check_name

NOTHING = Common(root="")
# What a column of plain rows may hold.
TYPES: Mapping[str, tuple[type, ...]] = {
    field.name: (str,) if field.type == pa.string() else (int, float) for field in SCHEMA
}


def plain_item(item: Item, names: Mapping[Path, str]) -> dict[str, Any]:
    """Plain values of an item, from which `item_of` makes it again.

    `names` says where a film, or what is said in one, lies in the shard.

    Raises:
        DataError: if its `meta` holds what JSON cannot say.
    """

    def named(medium: Medium) -> Medium:
        said = None if medium.subtitles is None else Path(names[medium.subtitles])
        return replace(medium, source=Path(names[medium.source]), subtitles=said)

    talk = item.conversation
    talk = replace(talk, media=tuple(map(named, talk.media)))
    try:
        row = row_of_item(replace(item, conversation=talk), NOTHING)
    except TypeError as error:
        raise DataError(f"item {item.item_id!r} cannot be packed: {error}") from None
    return {name: value for name, value in row.items() if value is not None}


def item_of(values: Mapping[str, Any], folder: Path) -> Item:
    """The item of such values, whose films lie below a folder.

    Raises:
        DataError: if they are not of this form, or name what lies elsewhere.
    """
    try:
        item = item_of_row({**EMPTY, **values}, NOTHING)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"it holds no item as mmavlm packs them: {error!r}") from error
    talk = item.conversation
    media = tuple(_placed(medium, folder) for medium in talk.media)
    return replace(item, conversation=replace(talk, media=media))


def asked_by(values: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt and the task of such values."""
    return str(values.get("prompt", "")), str(values.get("task", ""))


def plain_rows(
    values: Sequence[Mapping[str, Any]], folders: Sequence[str], common: Common
) -> PlainRows:
    """Such values by columns, films in the `folders` of their shards; see `Reading.plain`."""
    good = np.fromiter(map(_is_plain, values), bool, len(values))
    rows = [
        _beside(row, common) if fine else {}
        for row, fine in zip(values, good.tolist(), strict=True)
    ]
    columns = {
        name: pa.array([row.get(name) for row in rows], SCHEMA.field(name).type)
        for name in COLUMNS
        if name not in ("source", "rest")
    }
    placed = [f"{folder}/{row.get('source')}" for folder, row in zip(folders, rows, strict=True)]
    return PlainRows({**columns, "source": pa.array(placed, pa.string())}, good)


def _beside(values: Mapping[str, Any], common: Common) -> dict[str, Any]:
    """Values in a table that says in common what most items are asked."""
    prompt, task = asked_by(values)
    usual = {
        "prompt": None if prompt == common.prompt else prompt,
        "task": None if task == common.task else task,
    }
    return {**values, **usual}


def no_plain_rows(count: int) -> PlainRows:
    """So many rows of which none is plain."""
    nothing: NDArray[np.bool_] = np.zeros(count, bool)
    return PlainRows({}, nothing)


def _is_plain(values: Mapping[str, Any]) -> bool:
    """Whether values make one plain question about one film, and nothing is wrong with them."""
    if "rest" in values or not {"item_id", "source", "target"} <= values.keys():
        return False
    for name, value in values.items():
        if type(value) not in TYPES.get(name, ()):
            return False
    try:
        check_name(values["source"])
    except DataError:
        return False
    return type(values.get("flags", 0)) is int and type(values.get("frames", 1)) is int


def _placed(medium: Medium, folder: Path) -> Medium:
    for name in (medium.source, medium.subtitles):
        if name is not None:
            check_name(str(name))
    said = None if medium.subtitles is None else folder / medium.subtitles
    return replace(medium, source=folder / medium.source, subtitles=said)
