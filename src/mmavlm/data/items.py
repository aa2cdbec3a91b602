"""Items of a split, as evaluation asks them."""

from __future__ import annotations

import logging

from mmavlm.core.interfaces import VideoItem

log = logging.getLogger(__name__)


def asked_once(items: list[VideoItem]) -> list[VideoItem]:
    """The items without those that ask again what may be answered by the same references.

    Captions come one a row, up to eighty of one video: with the same stretch, prompt and list of
    references they are one question, and their scores would be one and the same.
    """
    questions: dict[object, VideoItem] = {}
    for number, item in enumerate(items):
        several = len(item.references) > 1
        asked = (item.video_id, item.start_s, item.end_s, item.prompt, item.references)
        questions.setdefault(asked if several else number, item)
    if len(questions) < len(items):
        log.info("%d items ask %d questions, each asked once", len(items), len(questions))
    return list(questions.values())
