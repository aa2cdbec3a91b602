"""LLaVA-OneVision's vision tower: SigLIP so400m/14 at 384 (arXiv 2408.03326, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import PatchGrid
from mmavlm.model.encoders.base import FrozenEncoder
from mmavlm.weights.pretrained import PretrainedFolder, as_dtype, load_strict, require_kind

KIND = "llava_onevision"  # transformers' `model_type`
PREFIX, OLDER = "vision_tower.", "vision_model."  # older files have both, one behind the other
HALF = (0.5, 0.5, 0.5)  # mean and deviation of channels that SigLIP was trained with


class SiglipEncoder(FrozenEncoder):
    """The patches of a LLaVA-OneVision's vision tower, as its projector reads them.

    They come from in front of the tower's last LayerNorm; the tower lacks SigLIP's last layer.
    `pretrained` is a folder or hub name, of which only the tower is read. Without it, `config`
    (settings of `SiglipVisionConfig`) is built with random weights.

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
                "SiglipEncoder takes either a pretrained folder or hub name, or a config; "
                f"got pretrained={pretrained!r} and config={config!r}"
            )
        weights_dtype = as_dtype(dtype, "encoder.dtype")
        folder = None if pretrained is None else PretrainedFolder(pretrained)
        vision_config: Any
        if folder is None:
            vision_config = SiglipVisionConfig(**dict(config or {}))
        else:
            require_kind(folder, KIND)
            vision_config = folder.config.vision_config
        side = vision_config.image_size // vision_config.patch_size
        super().__init__(
            image_size=vision_config.image_size,
            num_tokens=side * side,
            width=vision_config.hidden_size,
            mean=HALF,
            std=HALF,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.patch_grid = PatchGrid(0, side, side)
        with nullcontext() if folder is None else torch.device("meta"):
            tower: Any = SiglipVisionModel(vision_config)
        model = getattr(tower, "vision_model", tower)  # older versions have one in the other
        if folder is not None:
            stored = folder.state_dict(PREFIX, dtype=weights_dtype)
            state = {name.removeprefix(OLDER): tensor for name, tensor in stored.items()}
            load_strict(model, state, f"{pretrained}, vision_tower", assign=True)
            model.embeddings.position_ids = torch.arange(side * side)[None]  # in no file
        model.post_layernorm = nn.Identity()
        self.vision_model = model.to(weights_dtype)
        self.freeze()

    def tokens(self, images: Tensor) -> Tensor:
        """Images (N,3,H,W) → patches (N,P,Dv), row by row."""
        return self.vision_model(images).last_hidden_state
