"""How often an epoch visits which items, where groups of them are to come equally often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.errors import ConfigError
from mmavlm.core.groups import KEYS, Group, groups_of, require_several
from mmavlm.core.items import Item
from mmavlm.core.settings import names
from mmavlm.data.items import Coded, ColumnItems, Indices
from mmavlm.data.order import Draw

SETTING = "data.sampling"
Part = tuple[Indices | Sequence[int], float]  # those of items, and their share of an epoch


class Balance:
    """Groups of items that come equally often: those that differ in the keys `equal`.

    With `within`, those of items that are alike in these keys: `equal=answer, within=prompt` asks
    every question as often as before, and each answer to it is right equally often. A key is one
    of `core.groups.KEYS` or of an item's `meta`.

    Raises:
        ConfigError: if no key is given.
    """

    def __init__(self, equal: str | Sequence[str], within: str | Sequence[str] = ()) -> None:
        self.equal, self.within = names(equal), names(within)
        if not self.equal:
            raise ConfigError(f"{SETTING}.equal is empty; give keys, such as [task]")

    @classmethod
    def given(cls, setting: Any) -> Balance | None:
        """What the setting `data.sampling` says, None if it is not made.

        Raises:
            ConfigError: if it says something else.
        """
        if setting is None:
            return None
        if not isinstance(setting, Mapping) or not {"equal"} <= {*setting} <= {"equal", "within"}:
            raise ConfigError(
                f"{SETTING}={setting!r}: give keys of groups that are to come equally often, such "
                "as {equal: [task]} or {equal: [answer], within: [prompt]}"
            )
        return cls(**{str(key): value for key, value in setting.items()})

    def parts(self, items: Sequence[Item], indices: Indices) -> list[Part]:
        """The groups among the items at `indices`; shares add up to how many these are.

        Raises:
            ConfigError: if there is one group alone.
            DataError: if an item lacks a key.
        """
        around, _ = _numbered(items, indices, self.within)
        group, groups = _numbered(items, indices, self.equal)
        pairs = around.astype(np.int64) * len(groups) + group
        kinds, first, member = np.unique(pairs, return_index=True, return_inverse=True)
        outer = kinds // len(groups)
        several, sizes = np.bincount(outer), np.bincount(around)
        most = outer == several.argmax()  # the first of those with the most groups
        inner = [groups[code] for code in kinds[most] % len(groups)]
        require_several(inner, self.equal, SETTING, within=self.within)
        by_kind = np.split(
            indices[np.argsort(member, kind="stable")], np.cumsum(np.bincount(member))[:-1]
        )
        in_order = np.lexsort((first, outer))
        return [(by_kind[k], sizes[outer[k]] / several[outer[k]]) for k in in_order]


def _numbered(
    items: Sequence[Item], indices: Indices, keys: Sequence[str]
) -> tuple[NDArray[np.int32], list[Group]]:
    """The number of the group of each item at `indices`, as groups first come, and the groups."""
    codes = np.zeros(len(indices), np.int32)
    groups: list[Group] = [()]
    for key in keys:
        texts, own = _values(items, indices, key)
        both = codes.astype(np.int64) * len(texts) + own
        kinds, first, member = np.unique(both, return_index=True, return_inverse=True)
        in_order = np.argsort(first)
        groups = [(*groups[k // len(texts)], texts[k % len(texts)]) for k in kinds[in_order]]
        codes = np.argsort(in_order).astype(np.int32)[member]
    return codes, groups


def _values(items: Sequence[Item], indices: Indices, key: str) -> Coded:
    """What stands under a key of the items at `indices`."""
    if isinstance(items, ColumnItems) and key in KEYS:
        texts, codes = items.coded(key)  # type: ignore[arg-type]  # one of KEYS
        return Coded(texts, codes[indices])
    chosen = [items[index] for index in indices.tolist()]
    found: dict[str, int] = {}
    values = (value for (value,) in groups_of(chosen, (key,), SETTING))
    numbers = [found.setdefault(value, len(found)) for value in values]
    return Coded(list(found), np.array(numbers, np.int32))


def drawn(parts: Sequence[Part], visits: int) -> list[Draw]:
    """An epoch of so many visits, shared out to the parts; none is left out.

    Each gets its share to within one visit, and those of equal shares the remainders by lot.

    Raises:
        ConfigError: if there are more parts than visits.
    """
    if visits < len(parts):
        raise ConfigError(
            f"an epoch of {visits} items cannot show {len(parts)} groups; set data.epoch_items "
            "to more, or group by fewer keys"
        )
    weights = np.array([share for _, share in parts], dtype=np.float64)
    exact = weights * (visits / weights.sum())
    counts = np.maximum(np.floor(exact + 1e-9).astype(int), 1)
    lot = np.random.default_rng(len(parts)).permutation(len(parts))
    while (missing := visits - int(counts.sum())) != 0:
        by_need = lot[np.argsort((counts - exact)[lot], kind="stable")]
        if missing > 0:
            counts[by_need[:missing]] += 1
        else:  # what the least parts have more than their share
            counts[[at for at in by_need[::-1] if counts[at] > 1][:-missing]] -= 1
    return [Draw(indices, int(count)) for (indices, _), count in zip(parts, counts, strict=True)]
