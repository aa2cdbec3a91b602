"""Settings that must be numbers, by group (`data`; "" for none); None is one that is not made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmavlm.core.errors import ConfigError

SEEDS = 2**32  # numpy takes no larger one


def at_least(group: str, least: float, **settings: Any) -> None:
    """Refuse settings that are no numbers, or below `least`.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in settings.items():
        if value is not None and _number(_full(group, name), value) < least:
            raise ConfigError(f"{_full(group, name)} must be at least {least}, got {value}")


def whole_at_least(group: str, least: int, **settings: Any) -> None:
    """Refuse settings that are no whole numbers, or below `least`.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in settings.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{_full(group, name)} must be a whole number, got {value!r}")
    at_least(group, least, **settings)


def true_or_false(group: str, **settings: Any) -> None:
    """Refuse settings that are neither true nor false; any other text would count as true.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in settings.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{_full(group, name)} must be true or false, got {value!r}")


def seed_given(group: str, seed: Any) -> None:
    """Refuse a seed that draws cannot be repeated with: none, no whole number, too large.

    Raises:
        ConfigError: naming the setting.
    """
    if seed is None:
        raise ConfigError(f"{_full(group, 'seed')} is null; give a whole number, such as 42")
    whole_at_least(group, 0, seed=seed)
    if seed >= SEEDS:
        raise ConfigError(f"{_full(group, 'seed')} must be below {SEEDS}, got {seed}")


def above_zero(group: str, **settings: Any) -> None:
    """Refuse settings that are no numbers, or zero or less.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in settings.items():
        if value is not None and _number(_full(group, name), value) <= 0:
            raise ConfigError(f"{_full(group, name)} must be above 0, got {value}")


def shares(group: str, name: str, values: Any) -> dict[str, float]:
    """The numbers of the setting `<group>.<name>` by what they are of, {} if it is not made.

    Raises:
        ConfigError: naming what is no number, or zero or less.
    """
    if not isinstance(values or {}, Mapping):
        raise ConfigError(f"{group}.{name}={values!r}: give a number for each, {name}={{…: 2}}")
    found = dict(values or {})
    for key, value in found.items():
        if _number(f"{group}.{name}.{key}", value) <= 0:
            raise ConfigError(
                f"{group}.{name}.{key} must be above 0, got {value}; "
                "leave out what is not to be shown"
            )
    return found


def names(value: Any) -> list[str]:
    """The names that a setting gives: one, several, or none."""
    if value is None:
        return []
    several = isinstance(value, Sequence) and not isinstance(value, str)
    return list(map(str, value)) if several else [str(value)]


def require_positions(frames: int, rows: int) -> None:
    """Refuse more frames than the table of frame positions has rows.

    Raises:
        ConfigError: naming both settings.
    """
    if frames > rows:
        raise ConfigError(
            f"{frames} frames were given but the frame-position table has {rows} rows; "
            f"set vision.max_num_frames={frames} or more, or lower data.num_frames"
        )


def _full(group: str, name: str) -> str:
    return f"{group}.{name}" if group else name


def _number(name: str, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ConfigError(f"{name} must be a number, got {value!r}")
    return float(value)
