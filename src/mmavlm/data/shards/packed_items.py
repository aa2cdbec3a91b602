"""Items as plain values, in which films are named by where they lie in their shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.options import Options
from mmavlm.data.shards.members import check_name


def plain_item(item: Item, names: Mapping[Path, str]) -> dict[str, Any]:
    """Plain values of an item, from which `item_of` makes it again.

    `names` says where a film, or what is said in one, lies in the shard.
    """

    def named(medium: Medium) -> Medium:
        said = None if medium.subtitles is None else Path(names[medium.subtitles])
        return replace(medium, source=Path(names[medium.source]), subtitles=said)

    talk = item.conversation
    talk = replace(talk, media=tuple(map(named, talk.media)))
    return {
        "id": item.item_id,
        "task": item.task,
        "references": list(item.references),
        "label": item.label,
        "options": None if item.options is None else asdict(item.options),
        "meta": dict(item.meta),
        "conversation": talk.as_json(),
    }


def item_of(values: Mapping[str, Any], folder: Path) -> Item:
    """The item of such values, whose films lie below a folder.

    Raises:
        DataError: if they are not of this form, or name what lies elsewhere.
    """
    try:
        options = values["options"]
        item = Item(
            item_id=str(values["id"]),
            conversation=Conversation.from_json(values["conversation"]),
            task=str(values["task"]),
            references=tuple(map(str, values["references"])),
            label=None if values["label"] is None else int(values["label"]),
            options=None if options is None else Options(tuple(options["texts"]), options["style"]),
            meta=dict(values["meta"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"it holds no item as mmavlm packs them: {error!r}") from error
    talk = item.conversation
    media = tuple(_placed(medium, folder) for medium in talk.media)
    return replace(item, conversation=replace(talk, media=media))


def _placed(medium: Medium, folder: Path) -> Medium:
    for name in (medium.source, medium.subtitles):
        if name is not None:
            check_name(str(name))
    said = None if medium.subtitles is None else folder / medium.subtitles
    return replace(medium, source=folder / medium.source, subtitles=said)
