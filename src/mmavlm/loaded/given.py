"""What a user hands over from Python, checked before it is used: texts, paths, lists of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmavlm.core.errors import ConfigError

LONGEST_NAME = 255  # bytes of a part of a path, in the file systems there are


def as_path(name: str, given: Any) -> Path:
    """A path that a user gives, `~` spelled out where it is somebody's home.

    Raises:
        ConfigError: if it is no text and no path, or no file can be called so.
    """
    if not isinstance(given, str | Path):
        raise ConfigError(f"{name} is {_shown(given)}; give a path")
    if not str(given).strip():
        raise ConfigError(f"{name} is empty; give a path")
    path = Path(os.path.expanduser(given))
    if any(len(part.encode(errors="replace")) > LONGEST_NAME for part in path.parts):
        raise ConfigError(f"{name} is {_shown(str(given))}; no file can have so long a name")
    return path


def texts(name: str, given: Any, kinds: type | tuple[type, ...] = str) -> list[Any]:
    """One text, or several in a list or from anything that gives them one by one.

    Raises:
        ConfigError: if it is neither.
    """
    if isinstance(given, kinds):
        return [given]
    if isinstance(given, Iterable) and not isinstance(given, bytes | str | Mapping):
        found = list(given)
        if not (wrong := [one for one in found if not isinstance(one, kinds)]):
            return found
        given = wrong[0]
    raise ConfigError(f"{name} is {_shown(given)}; give a text, or a list of texts")


def _shown(given: Any) -> str:
    told = repr(given)
    return told if len(told) <= 80 else f"{told[:77]}…"
