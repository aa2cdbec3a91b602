"""LLaVA-OneVision's projector, taken into a model built for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmavlm.core.errors import ConfigError
from mmavlm.model.temporal import EveryFrame
from mmavlm.weights.pretrained import PretrainedFolder, load_strict

if TYPE_CHECKING:
    from mmavlm.model.backbone import VideoLanguageModel

LAYERS = {"linear_1": "0", "linear_2": "2"}  # around the GELU


def take_llava_onevision(model: VideoLanguageModel, folder: PretrainedFolder) -> None:
    """Take the projector; encoder and LLM read their own parts of the folder.

    Raises:
        CheckpointError: naming the keys that do not fit.
        ConfigError: if the model does not project patches of single frames.
    """
    temporal, projector = model.vision.temporal, model.vision.projector
    if not isinstance(temporal, EveryFrame):
        raise ConfigError(
            "pretrained names a LLaVA-OneVision, whose projector reads patches, and "
            f"{type(temporal).__name__} gives it others; choose temporal=every_frame"
        )
    if projector is None:
        return
    stored = folder.state_dict("multi_modal_projector.")
    state = {
        f"{LAYERS.get(layer, layer)}.{kind}": tensor
        for (layer, _, kind), tensor in ((name.partition("."), t) for name, t in stored.items())
    }
    load_strict(projector, state, f"{folder.name}, multi_modal_projector")
