"""metrics.json: flat names → numbers."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path

from mmavlm.core.errors import DataError

log = logging.getLogger(__name__)


def write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Write metrics sorted by name, atomically; what is not finite becomes null and is named."""
    plain = finite(metrics)
    if broken := [name for name, value in plain.items() if value is None]:
        log.warning("not finite, written as null in %s: %s", path, ", ".join(broken))
    write_text(path, json.dumps(plain, indent=2) + "\n")


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics sorted by name, None in place of what JSON has no number for."""
    return {name: v if math.isfinite(v) else None for name, v in sorted(metrics.items())}


def read_metrics(path: Path) -> dict[str, float]:
    """The metrics of a run, NaN where null; {} if it left none.

    Raises:
        DataError: if the file is broken or holds something else.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: math.nan if v is None else float(v) for name, v in content.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path} is no object of names and numbers ({error}); remove it, or run the test again"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
