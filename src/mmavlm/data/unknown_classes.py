"""Truths of held-out items that are of no class of the training split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from mmavlm.core.items import Item
from mmavlm.data.items import Flag, flagged
from mmavlm.metrics import normalise_answer

log = logging.getLogger(__name__)


def tell_unknown(
    items: Sequence[Item], split: str, classes: Callable[[], Mapping[str, Sequence[str]]]
) -> None:
    """Warn of truths that training has no class of, since no ranked answer is right there.

    `classes` is asked only if there are items without a label.
    """
    labelled = {n for n, item in flagged(items, Flag.LABEL) if item.label is not None}
    found = classes() if len(labelled) < len(items) else {}
    known = {task: {*map(normalise_answer, names)} for task, names in found.items()}
    others = [item for n, item in enumerate(items) if n not in labelled] if known else []
    for task, names in known.items():
        truths = [item.target for item in others if item.task == task]
        unknown = [truth for truth in truths if normalise_answer(truth) not in names]
        if unknown:
            log.warning(
                "%d %s items of task %s are of classes that the training split does not have, "
                "such as %r: ranked answers are wrong there",
                len(unknown),
                split,
                task,
                min(unknown),
            )
