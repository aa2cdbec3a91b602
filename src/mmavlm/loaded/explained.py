"""What an answer rests on, as an object."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.loaded.answers import FilmAnswer, about, question
from mmavlm.loaded.given import as_path
from mmavlm.model.explain import Explanation
from mmavlm.report.findings import findings
from mmavlm.run.ask import Ready, explained_name, explanation_of, write_explanation
from mmavlm.run.questions import read_group


@dataclass(frozen=True)
class Explained:
    """What one answer rests on: `explanation` in numbers, `sentences` in words.

    The numbers are memory slots, attention, the film with stretches hidden, and what is said
    without the film (see `Explanation`).
    """

    film: Path
    explanation: Explanation = field(repr=False)

    @property
    def answer(self) -> str:
        """The answer that is explained."""
        return self.explanation.answer

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, in words."""
        return tuple(findings(self.explanation))

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write the picture (png) and the numbers (json) to a folder; gives both paths.

        Raises:
            ConfigError: if it is no path, or a file is called so.
            OSError: if the folder cannot be written.
        """
        path = as_path("folder", folder)
        if path.exists() and not path.is_dir():
            raise ConfigError(f"folder={path} is a file; give a folder, there or not")
        return write_explanation(self.explanation, path / explained_name(self.film))

    def __repr__(self) -> str:
        return f"<{self.answer!r} explained: {' '.join(self.sentences)}>"


@torch.inference_mode()
def explained(
    model: Ready, answer: FilmAnswer, text: str | None, stretches: int | None
) -> Explained:
    """What an answer rests on, or another `text` in its place.

    Raises:
        ConfigError: if the model has no memory to look into, the text is empty, or the film cannot
            be cut into so many stretches.
        VideoError: if the film cannot be decoded any more.
    """
    config = deepcopy(answer.request)
    config.stream_fps = config.every_s = None  # it is of the film as a whole
    about(config, answer.film, answer.prompt)
    config.explain_stretches = stretches
    size = model.backbone.vision.encoder.image_size
    read = read_group([question(answer.film, answer.prompt)], config.data, size)
    for reason in read.broken.values():
        raise VideoError(f"{answer.film} cannot be used: {reason}")
    said = answer.text if text is None else text
    batch = read.batch.to(model.device)
    return Explained(answer.film, explanation_of(config, model, batch, said))
