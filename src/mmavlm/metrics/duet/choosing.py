"""Settings that are chosen on validation, and carried to the test with where they were chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from mmavlm.core.errors import ConfigError, DataError

Setting = TypeVar("Setting")
GIVEN = "given"  # in place of a split: somebody chose it, and we do not know on what


@dataclass(frozen=True)
class Chosen(Generic[Setting]):
    """A setting, the split that chose it, and the number by which it was the best there.

    `by` names that number and `value` is its value over `questions`; nothing of them is known of a
    setting that was given.
    """

    setting: Setting
    split: str = GIVEN
    by: str | None = None
    value: float | None = None
    questions: int | None = None


def best_of(
    settings: Sequence[Setting], values: Tensor, *, by: str, split: str, questions: int
) -> Chosen[Setting]:
    """The first of the settings with the largest of values (G), one each.

    Raises:
        ConfigError: if `split` is the test split, on which nothing may be chosen.
        ValueError: if there is not one value a setting.
    """
    if split == "test":
        raise ConfigError(
            "settings are chosen on validation films, never on those of the test; give val_… files"
        )
    if values.shape != (len(settings),) or not len(settings):
        raise ValueError(
            f"best_of: one value a setting is expected, got {tuple(values.shape)} for "
            f"{len(settings)} settings"
        )
    best = int(values.nan_to_num(float("-inf")).argmax())
    return Chosen(settings[best], split, by, float(values[best]), questions)


def check_apart(chosen_on: Iterable[str], tested_on: Iterable[str]) -> None:
    """Refuse a choice on films that are tested afterwards.

    Raises:
        DataError: naming some of the films.
    """
    if both := sorted({*chosen_on} & {*tested_on}):
        raise DataError(
            f"{len(both)} films are in val_truth and in truth, such as {', '.join(both[:3])}; "
            "settings must be chosen on other films than those that are tested"
        )
