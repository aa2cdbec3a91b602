"""False answers beside the true ones of training, for pairs of which one is preferred."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.metrics import normalise_answer, read_predictions
from mmavlm.metrics.prediction_files import predictions_path

REJECTED = "rejected"  # where an item's `meta` has the false answer that its annotation gives
# Task and question → true answers, and of how many items.
Usual = Mapping[tuple[str, str], Sequence[tuple[str, int]]]
OPPOSITE = {"yes": "no", "no": "yes"}


def false_answers(
    items: Sequence[Item],
    classes: Mapping[str, Sequence[str]] | None = None,
    own: str | Path | None = None,
) -> dict[str, str]:
    """A false answer to each item that has one, by the item's name.

    It is the one that the annotation gives (`meta["rejected"]`); else the opposite of yes or no;
    else, of the options, or the `classes` of the task, or the answers to the same question, the one
    that is most often true of this question in training, and of more than one item. Options and
    classes that never are get drawn by the item's name. With `own`, predictions of a run, it is
    what was answered wrong there, and nothing else.

    Raises:
        ConfigError: if there is no such file.
        DataError: if a row of it is broken, or an annotation gives no text.
    """
    if own is not None:
        wrong = _answered_wrong(own)
        found = {item.item_id: wrong.get(item.item_id, "") for item in items}
    else:
        usual = _answers_by_question(items)
        found = {item.item_id: _false_answer(item, classes or {}, usual) for item in items}
    return {name: answer for name, answer in found.items() if answer}


def _answered_wrong(run: str | Path) -> dict[str, str]:
    """What each item was answered that was answered wrong."""
    try:
        path = predictions_path(run)
    except DataError as error:
        raise ConfigError(f"stage.false_answers: {error}") from None
    return {
        row.item_id: (row.said or [answer.text for answer in row.answers or row.ranking])[0]
        for row in read_predictions(path)
        if row.right is False
    }


def _answers_by_question(items: Iterable[Item]) -> Usual:
    """The true answers to each question of a task and how often, the most frequent first."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for item in items:
        if item.target:
            counts[item.task, item.prompt][item.target] += 1
    return {asked: found.most_common() for asked, found in counts.items()}


def _false_answer(
    item: Item,
    classes: Mapping[str, Sequence[str]],
    usual: Usual,
) -> str:
    """A false answer to an item, "" where none is known."""
    if (given := item.meta.get(REJECTED)) is not None:
        if not isinstance(given, str):
            raise DataError(f"item {item.item_id!r} has {REJECTED}={given!r}; expected a text")
        return given
    if opposite := _opposite(item.target):
        return opposite
    right = {normalise_answer(text) for text in (item.target, *item.references)}
    known = item.options.answers if item.options else classes.get(item.task, ())
    false = [text for text in known if normalise_answer(text) not in right]
    for text, times in usual.get((item.task, item.prompt), ()):
        # What is true of one item alone is a caption, which may be true of others as well.
        is_answer = not known and times > 1 and normalise_answer(text) not in right
        if text in false or is_answer:
            return text
    return random.Random(item.item_id).choice(false) if item.target and false else ""


def _opposite(answer: str) -> str:
    """No for yes and yes for no, written alike; "" for another answer."""
    word = answer.strip().rstrip(".")
    other = OPPOSITE.get(word.lower(), "")
    return (
        answer.replace(word, other.capitalize() if word[:1].isupper() else other) if other else ""
    )
