"""Groups of items, by what is said of each: its task, its answer, its question, or more."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item

Group = tuple[str, ...]  # the values of the keys

KEYS: Mapping[str, Callable[[Item], str]] = {
    "task": lambda item: item.task,
    "answer": lambda item: item.target,
    "prompt": lambda item: item.prompt,
}


def groups_of(items: Sequence[Item], keys: Sequence[str], setting: str) -> list[Group]:
    """The group of every item: the values of `keys`, each one of `KEYS` or a key of `Item.meta`.

    Raises:
        DataError: naming the `setting` and the first item that has no such key.
    """
    return [tuple(_value(item, key, setting) for key in keys) for item in items]


def require_several(
    groups: Collection[Group], keys: Sequence[str], setting: str, *, within: Sequence[str] = ()
) -> None:
    """Refuse groups that are one, since nothing can be weighed between them.

    Raises:
        ConfigError: naming the `setting`, its keys, and the group.
    """
    if len(groups) < 2:
        [only] = groups
        alike = f" of equal {', '.join(within)}" if within else ""
        raise ConfigError(
            f"{setting} cannot weigh groups: training items{alike} have one {', '.join(keys)} "
            f"alone, such as {', '.join(only)!r}; give keys that tell them apart"
        )


def _value(item: Item, key: str, setting: str) -> str:
    if key in KEYS:
        return KEYS[key](item)
    if key not in item.meta:
        more = f", and of this item {', '.join(sorted(item.meta))}" if item.meta else ""
        raise DataError(
            f"{setting} groups items by {key!r}, which item {item.item_id!r} does not have; "
            f"there are {', '.join(KEYS)}{more}"
        )
    return str(item.meta[key])
