"""The sets that a `data` config holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def parts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configs of the sets of a `data` config, by name; "" for one that is a set itself."""
    return dict(config["sets"]) if "sets" in config else {"": config}
