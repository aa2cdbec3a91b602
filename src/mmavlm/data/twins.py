"""Twins of training films, which differ from them in one object: counterfactual.jsonl."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.settings import above_zero, true_or_false
from mmavlm.data.names import Names
from mmavlm.data.readers.own import TWIN_OF, OwnReader

FILE = "counterfactual.jsonl"


def read_twins(root: Path, task: str | Sequence[str] | None, films: Names) -> Sequence[Item]:
    """What is asked of the twins below a root, in rows of one's own videos (`OwnReader`).

    Raises:
        DataError: if there is no such file, a row does not say of which film it shows a twin, or
            that is none of the `films` of training.
    """
    if not (root / FILE).is_file():
        raise DataError(
            f"data.counterfactual=true, but there is no {root / FILE}; it has rows of "
            "data=own_videos with `counterfactual_of`, the video that each shows a twin of "
            "(prepare.settings.counterfactual=true makes one for the films of experiment=ablation)"
        )
    items = OwnReader(train=FILE)(root, "train", task)
    for item in items:
        if not is_twin(item):
            raise DataError(
                f"{root / FILE}: row {item.item_id!r} has no {TWIN_OF!r}, the video of which it "
                "shows a twin"
            )
        if item.meta[TWIN_OF] not in films:
            raise DataError(
                f"{root / FILE}: row {item.item_id!r} shows a twin of {item.meta[TWIN_OF]!r}, "
                "which is no film of training; the file is of another set, so remove it, or write "
                "it anew"
            )
    return items


def twins_share(counterfactual: bool | None, share: float | None) -> float:
    """The share of an epoch that is asked of twins, half of it unless one is given.

    Raises:
        ConfigError: if the settings are no truth value and no number between 0 and 1.
    """
    if counterfactual is not None:
        true_or_false("data", counterfactual=counterfactual)
    above_zero("data", counterfactual_share=share)
    if share is not None and share >= 1:
        raise ConfigError(
            f"data.counterfactual_share must be below 1, got {share}: the films themselves are "
            "shown, too"
        )
    return 0.5 if share is None else share


def bring_twins(twin_films: bool | None, counterfactual: bool | None) -> bool:
    """Whether items bring the films of their twins along.

    Raises:
        ConfigError: if the setting is no truth value, or there are no twins to bring.
    """
    if twin_films is None:
        return False
    true_or_false("data", twin_films=twin_films)
    if twin_films and not counterfactual:
        raise ConfigError(
            "data.twin_films=true brings films of twins along, and data.counterfactual=false reads "
            "none; set data.counterfactual=true"
        )
    return twin_films


def films_of_twins(items: Sequence[Item]) -> dict[int, Medium]:
    """Index of an item → the film of its twin, of which the same question has another answer.

    Of a twin it is the film that it is a twin of; of several the first. Items that show anything
    but one film have none.
    """
    asked: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        films = item.conversation.media
        if len(films) == 1 and not films[0].is_sound:
            asked[item.meta.get(TWIN_OF, films[0].medium_id), item.prompt].append(index)
    found: dict[int, Medium] = {}
    for together in asked.values():
        for index in together:
            item = items[index]
            others = (items[n] for n in together if is_twin(items[n]) != is_twin(item))
            differ = (o for o in others if o.target.casefold() != item.target.casefold())
            if (other := next(differ, None)) is not None:
                found[index] = other.conversation.media[0]
    return found


def is_twin(item: Item) -> bool:
    """Whether an item shows a twin of another film."""
    return TWIN_OF in item.meta
