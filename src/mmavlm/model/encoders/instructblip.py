"""InstructBLIP's and BLIP-2's vision model: EVA-CLIP ViT-g/14 at 224 (InstructBLIP, 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import InstructBlipVisionConfig, InstructBlipVisionModel

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.interfaces import PatchGrid
from mmavlm.model.encoders.base import FrozenEncoder
from mmavlm.weights.pretrained import PretrainedFolder, as_dtype, load_strict, require_kind

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PREFIX = "vision_model."


class InstructBlipEncoder(FrozenEncoder):
    """The vision model alone, without the LayerNorm behind it, which learns and is the caller's.

    `pretrained` is a folder or hub name of either, of which only the vision model is read.
    Without it, `config` (settings of `InstructBlipVisionConfig`) is built with random weights.

    Raises:
        ConfigError: if neither or both of `pretrained` and `config` are given, or on an unknown
            `dtype`.
        CheckpointError: if the weights are missing, damaged, or do not fit.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        dtype: str = "float16",
        chunk_size: int = 32,
        compile_backend: str | None = None,
    ) -> None:
        if (pretrained is None) == (config is None):
            raise ConfigError(
                "InstructBlipEncoder takes either a pretrained folder or hub name, or a config; "
                f"got pretrained={pretrained!r} and config={config!r}"
            )
        weights_dtype = as_dtype(dtype, "encoder.dtype")
        folder = None if pretrained is None else PretrainedFolder(pretrained)
        vision_config: Any
        if folder is None:
            vision_config = InstructBlipVisionConfig(**dict(config or {}))
        else:
            require_kind(folder, "instructblip", "blip-2")
            vision_config = folder.config.vision_config
        side = vision_config.image_size // vision_config.patch_size
        super().__init__(
            image_size=vision_config.image_size,
            num_tokens=side * side + 1,
            width=vision_config.hidden_size,
            mean=CLIP_MEAN,
            std=CLIP_STD,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.patch_grid = PatchGrid(1, side, side)
        self._folder = folder
        with nullcontext() if folder is None else torch.device("meta"):
            model: Any = InstructBlipVisionModel(vision_config)
        if folder is not None:
            state = folder.state_dict(PREFIX, dtype=weights_dtype)
            load_strict(model, state, f"{pretrained}, vision_model", assign=True)
        model.post_layernorm = nn.Identity()
        self.vision_model = model.to(weights_dtype)
        self.freeze()

    def tokens(self, images: Tensor) -> Tensor:
        """Images (N,3,H,W) → tokens (N,P,Dv), the class token first, before any last LayerNorm."""
        return self.vision_model(images).last_hidden_state

    def norm_state(self) -> dict[str, Tensor]:
        """`weight` and `bias` (Dv,) of the LayerNorm that belongs behind these tokens.

        Raises:
            CheckpointError: if the weights are random.
        """
        if self._folder is None:
            raise CheckpointError(
                "this encoder has random weights and no LayerNorm; give encoder.pretrained"
            )
        return self._folder.state_dict(f"{PREFIX}post_layernorm.")
