"""What a run came to, as a value that its report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from mmavlm.model.explain import Explanation
from mmavlm.report import ContactSheet, PlayedFilm
from mmavlm.stages.predictions import PredictionLog


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One stage of one experiment, trained or tested.

    `stage` is its title, `command` the line that made it, `overrides` the settings in that line.
    `duration_s` counts from the start of this process's run; `resumed`: earlier ones trained too.
    `classes` are the class names of each task. `predictions` is None if the stage answers nothing.
    `notes` are what the stage says of its test in words. `films` are item → the film that plays.
    """

    stage: str
    folder: Path
    config: DictConfig
    overrides: Sequence[str]
    command: Sequence[str]
    duration_s: float
    resumed: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    predictions: PredictionLog | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    explanations: Sequence[Explanation] = ()
    sheets: Sequence[ContactSheet] = ()
    films: Mapping[str, PlayedFilm] = field(default_factory=dict)
