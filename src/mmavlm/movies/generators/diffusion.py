"""Pictures from a text-to-image pipeline of diffusers in a local folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmavlm.core.errors import ConfigError
from mmavlm.core.extras import needs_extra
from mmavlm.movies.frames import FrameSpec, Picture
from mmavlm.movies.vocabulary import Style

NEGATIVE = "text, watermark, collage, extra limbs, blurred"


@dataclass(frozen=True)
class StylePrompt:
    """The words in front of every prompt of a film."""

    words: str


class DiffusionImages:
    """Any pipeline that diffusers' AutoPipelineForText2Image loads from `folder`.

    The style is held by its words, and by `embedding`, a textual inversion (safetensors) whose
    `token` then stands before each prompt, as MovieLLM does it. Each frame has its own seed; frames
    are drawn `batch` at a time.

    Raises:
        ConfigError: if diffusers is not installed, the folder holds no pipeline, or a number
            cannot be used.
    """

    def __init__(
        self,
        folder: str,
        *,
        size: int = 512,
        steps: int = 30,
        guidance: float = 5.0,
        batch: int = 4,
        embedding: str | None = None,
        token: str = "<style>",
        device: str = "cpu",
    ) -> None:
        if find_spec("diffusers") is None:
            raise ConfigError(
                needs_extra("image=diffusers", "diffusers", "diffusers")
                + "; image=procedural draws without it"
            )
        if not (Path(folder) / "model_index.json").is_file():
            raise ConfigError(f"image_model={folder} holds no model_index.json of a pipeline")
        if size % 2 or steps < 1 or batch < 1:
            raise ConfigError(f"size={size} must be even, steps={steps} and batch={batch} positive")
        from diffusers import AutoPipelineForText2Image

        self.pipeline = AutoPipelineForText2Image.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        ).to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        if embedding is not None:
            self.pipeline.load_textual_inversion(embedding, token=token, local_files_only=True)
        self.size, self.steps, self.guidance, self.batch = size, steps, guidance, batch
        self.token = token if embedding is not None else None
        index = (Path(folder) / "model_index.json").read_bytes()
        held = Path(embedding).read_bytes() if embedding is not None else b""
        self._digest = hashlib.sha256(folder.encode() + index + held).hexdigest()[:16]

    @property
    def fingerprint(self) -> str:
        """Pipeline, embedding and settings."""
        settings = f"{self.size}, {self.steps} steps, guidance {self.guidance}"
        return f"diffusers, {self._digest}, {settings}"

    def prepare_style(self, style: Style, seed: int) -> StylePrompt:
        """The words of the style, the learned token first if there is one."""
        words = [*([self.token] if self.token else []), f"{style.keyword} style", *style.tone]
        return StylePrompt(", ".join(words))

    def render(
        self, frames: Sequence[FrameSpec], style: StylePrompt, seeds: Sequence[int]
    ) -> Iterator[Picture]:
        """The pictures of the frames' texts, each from noise of its own seed."""
        for start in range(0, len(frames), self.batch):
            some = slice(start, start + self.batch)
            noise = [torch.Generator().manual_seed(seed) for seed in seeds[some]]
            pictures: Any = self.pipeline(
                prompt=[f"{style.words}. {frame.text}" for frame in frames[some]],
                negative_prompt=[NEGATIVE] * len(noise),
                height=self.size,
                width=self.size,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                generator=noise,
            ).images
            yield from (np.asarray(picture.convert("RGB")) for picture in pictures)
