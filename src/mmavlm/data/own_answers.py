"""A model's own wrong answers as texts that are not true of what is shown (`false_texts`).

The idea is SANTA's (arXiv 2512.04356), whose negatives are what the model itself would hallucinate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mmavlm.core.batch import FalseTexts
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.settings import whole_at_least
from mmavlm.data.false_texts import FalseTextsOf
from mmavlm.metrics import normalise_answer
from mmavlm.metrics.prediction_files import predictions_path, read_predictions
from mmavlm.metrics.predictions import Prediction


class OwnAnswers:
    """What a model answered wrongly to the very items: a run's predictions of training items.

    `predictions` is a run's folder or its predictions.jsonl, which only training needs; `at_most`
    says how many wrong answers are taken of an item: those before the first right one, generated
    ones first, then ranked ones.

    Raises:
        ConfigError: if `at_most` is below 1.
    """

    def __init__(self, predictions: str | Path | None, at_most: int = 4) -> None:
        whole_at_least("data.false_texts", 1, at_most=at_most)
        self.predictions = predictions
        self.at_most = at_most

    def from_training(self, items: Sequence[Item]) -> FalseTextsOf:
        """The wrong answers of each item; the file is read now.

        Raises:
            ConfigError: if there is no file.
            DataError: if it cannot be used, or is of other items.
        """
        if self.predictions is None:
            raise ConfigError(
                "data.false_texts.predictions is not given; give the folder of a run whose model "
                "answered the items of training, or its predictions.jsonl"
            )
        path = predictions_path(self.predictions)
        rows = {row.item_id: row for row in read_predictions(path)}
        prompts = {item.item_id: item.prompt for item in items}
        if rows.keys().isdisjoint(prompts):
            raise DataError(
                f"{path} has no answer to any of the {len(items)} items of training, such as "
                f"{next(iter(prompts), None)!r}; it is of {next(iter(rows))!r} and others. Let the "
                "model answer training items (mmavlm.evaluate with data.reader.test=train.jsonl)"
            )
        other = [name for name, row in rows.items() if prompts.get(name, row.prompt) != row.prompt]
        if other:
            raise DataError(
                f"{path}: item {other[0]!r} was asked {rows[other[0]].prompt!r}, but in training "
                f"it is {prompts[other[0]]!r}; the predictions are of another set"
            )
        wrong = {name: tuple(islice(_wrong(row), self.at_most)) for name, row in rows.items()}
        if not any(wrong[name] for name in prompts if name in wrong):
            raise DataError(
                f"{path} has no wrong answer to an item of training; nothing false can be learned "
                "from it, so choose another file, or data.false_texts=null"
            )
        return _OfItems(wrong)


@dataclass(frozen=True)
class _OfItems:
    """False answers by item, for the views that the item's answer replies to."""

    wrong: Mapping[str, Sequence[str]]

    def __call__(self, item: Item) -> tuple[FalseTexts, ...]:
        answers = self.wrong.get(item.item_id, ())
        return tuple(
            tuple((view.guide, answer) for answer in answers if view.reply == item.target)
            for view in item.conversation.views
        )


def _wrong(row: Prediction) -> Iterator[str]:
    """The wrong answers that a model preferred to the right one, each once."""
    right = {*map(normalise_answer, [row.truth, *row.references])}
    known = {*right, ""}
    for answers in (row.answers, row.ranking):
        for answer in answers:
            if (said := normalise_answer(answer.text)) in right:
                break
            if said not in known:
                known.add(said)
                yield answer.text
