"""Items of a split: what they show, and which of them evaluation asks."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item

log = logging.getLogger(__name__)


def sources_of(items: Iterable[Item]) -> dict[str, Path]:
    """Where each film or picture that items show lies, by its name."""
    return {medium.medium_id: medium.source for item in items for medium in item.conversation.media}


def refuse_sounds(items: Iterable[Item]) -> None:
    """Refuse what nothing loads yet.

    Raises:
        DataError: naming an item that lets a sound be heard.
    """
    for item in items:
        for medium in item.conversation.media:
            if medium.kind == "sound":
                raise DataError(
                    f"item {item.item_id!r} lets the sound {medium.source} be heard, and sounds "
                    "cannot be loaded yet; take the item out"
                )


def asked_once(items: list[Item]) -> list[Item]:
    """The items without those that ask again what may be answered by the same references.

    Captions come one a row, up to eighty of one video: with the same stretch, prompt and list of
    references they are one question, and their scores would be one and the same.
    """
    questions: dict[object, Item] = {}
    for number, item in enumerate(items):
        several = len(item.references) > 1
        questions.setdefault(_asked(item) if several else number, item)
    if len(questions) < len(items):
        log.info("%d items ask %d questions, each asked once", len(items), len(questions))
    return list(questions.values())


def _asked(item: Item) -> object:
    """What makes two items one question."""
    asked = item.conversation.asked
    shown = tuple((medium.medium_id, medium.start_s, medium.end_s) for medium in asked.media)
    return shown, asked.turns, item.references
