"""metrics.json: flat names → numbers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path


def write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Write metrics sorted by name, atomically; what is not finite becomes null."""
    plain = {
        name: value if math.isfinite(value) else None for name, value in sorted(metrics.items())
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_metrics(path: Path) -> dict[str, float]:
    """The metrics of a run; {} if it left none."""
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: math.nan if value is None else float(value) for name, value in content.items()}
