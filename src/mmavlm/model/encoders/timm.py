"""Any Vision Transformer of timm, by name."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.models import load_state_dict
from torch import Tensor, nn

from mmavlm.core.errors import CheckpointError, ConfigError, first_line
from mmavlm.core.interfaces import PatchGrid
from mmavlm.core.settings import true_or_false
from mmavlm.model.encoders.base import FrozenEncoder
from mmavlm.weights.pretrained import as_dtype, load_strict


class TimmEncoder(FrozenEncoder):
    """All tokens of a timm ViT, normalised as its weights were trained.

    `name` may carry a tag, as in `vit_base_patch16_clip_224.openai`. Weights come from
    `checkpoint_path` (a file that timm reads) if given, from the hub if `pretrained`, and are
    random otherwise. Another `image_size` than the model's own resamples its position table.

    Raises:
        ConfigError: if timm has no such model or tag, it takes no other image size, its features
            are no tokens, or `pretrained` is neither true nor false.
        CheckpointError: if the weights are missing, damaged, or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = True,
        checkpoint_path: str | None = None,
        image_size: int | None = None,
        dtype: str = "float32",
        chunk_size: int = 64,
        compile_backend: str | None = None,
    ) -> None:
        _require_known(name)
        true_or_false("encoder", pretrained=pretrained)
        weights_dtype = as_dtype(dtype, "encoder.dtype")
        model = _create(name, pretrained and checkpoint_path is None, image_size)
        if checkpoint_path is not None:
            _load(model, Path(checkpoint_path))
        transform = resolve_model_data_config(model)
        size = image_size or transform["input_size"][-1]
        shape = _shape_of_tokens(name, model, size)
        super().__init__(
            image_size=size,
            num_tokens=shape[1],
            width=shape[2],
            mean=transform["mean"],
            std=transform["std"],
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.patch_grid = _grid(model, shape[1])
        self.model = model.to(weights_dtype)
        self.freeze()

    def tokens(self, images: Tensor) -> Tensor:
        """Images (N,3,H,W) → tokens (N,P,Dv), class and register tokens included."""
        return self.model.forward_features(images)  # type: ignore[operator]


def _require_known(name: str) -> None:
    if ":" in name:  # hf-hub:… and local-dir:… name a place, not an architecture
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=5)
        raise ConfigError(
            f"encoder.name is {name!r}, which timm {timm.__version__} does not have; "
            + (f"near it are {', '.join(near)}" if near else "timm.list_models() lists all names")
        )
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        raise ConfigError(
            f"encoder.name is {name!r}, but timm has no weights tagged {tag!r} for {architecture}; "
            f"choose one of {', '.join(tagged) or 'no tag, with encoder.pretrained=false'}"
        )


def _create(name: str, pretrained: bool, image_size: int | None) -> nn.Module:
    """The model without its classifier.

    The classifier goes after loading: timm loads strictly only if it is there to be loaded.
    """
    size: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
    try:
        model = timm.create_model(name, pretrained=pretrained, **size)
    except TypeError as error:
        raise ConfigError(
            f"timm's {name} takes no encoder.image_size={image_size} ({error}); leave it null"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"timm could not load {name} ({first_line(error)}); check the connection, or give "
            "the weights as encoder.checkpoint_path"
        ) from error
    model.reset_classifier(0)
    return model


def _load(model: nn.Module, path: Path) -> None:
    """Weights from a file, with or without a classifier, in any layout timm converts."""
    if not path.is_file():
        raise CheckpointError(
            f"encoder.checkpoint_path {path} does not exist; give a .safetensors or .pth file"
        )
    try:
        state = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # torch raises many kinds; all mean the file cannot be trusted
        raise CheckpointError(
            f"encoder.checkpoint_path {path} cannot be read ({first_line(error)}); it is damaged "
            "or holds more than tensors"
        ) from error
    convert = getattr(importlib.import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if convert is not None:
        state = convert(state, model)
    classifier = model.pretrained_cfg.get("classifier") or ()  # type: ignore[operator,union-attr]
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    kept = {k: v for k, v in state.items() if not k.startswith(tuple(f"{h}." for h in heads))}
    load_strict(model, kept, str(path))


@torch.no_grad()
def _shape_of_tokens(name: str, model: nn.Module, size: int) -> tuple[int, ...]:
    tokens = model.eval().forward_features(torch.zeros(1, 3, size, size))  # type: ignore[operator]
    if tokens.ndim != 3:
        raise ConfigError(
            f"timm's {name} gives features of shape {tuple(tokens.shape)}, not tokens (N,P,Dv); "
            "choose a Vision Transformer, such as vit_base_patch16_clip_224.openai"
        )
    return tuple(tokens.shape)


def _grid(model: nn.Module, num_tokens: int) -> PatchGrid | None:
    """Where the patches stand behind class and register tokens, if timm says so and it fits."""
    first = getattr(model, "num_prefix_tokens", 0)
    size = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if not isinstance(first, int) or not isinstance(size, tuple):
        return None
    grid = PatchGrid(first, *size)
    return grid if grid.stop == num_tokens else None
