"""Where the parts that stored settings name are today: files of earlier versions still load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmavlm.weights.seal import is_own, sealed

# Modules as earlier versions named them → as they are named today; a package with all below it.
MOVED = {
    "alignment": "model.alignment",
    "backbone": "model.backbone",
    "encoders": "model.encoders",
    "fusion": "model.fusion",
    "llm": "model.llm",
    "memory": "model.memory",
    "qformer": "model.qformer",
    "temporal": "model.temporal",
    "text": "model.text",
}
_OLD = re.compile(rf"\bmmavlm\.({'|'.join(MOVED)})(?=\.)")


def up_to_date(run: Any) -> Any:
    """The settings of a run (`config` and `overrides`) with the names that parts have today.

    A seal that was good for the settings as stored is made again for those returned.
    """
    if not isinstance(run, Mapping):
        return run
    renamed = {key: _renamed(value) for key, value in run.items()}
    if renamed == run:
        return run
    return sealed(renamed) if is_own(run) else renamed


def _renamed(value: Any) -> Any:
    """A stored value with every name in it brought up to date."""
    if isinstance(value, str):
        return _OLD.sub(lambda found: f"mmavlm.{MOVED[found[1]]}", value)
    if isinstance(value, Mapping):
        return {key: _renamed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(inner) for inner in value]
    return value
