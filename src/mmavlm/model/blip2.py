"""What a pretrained folder has between its vision model and its LLM, taken by its kind.

InstructBLIP's goes to a Q-Former that reads a guide, BLIP-2's to an image Q-Former,
LLaVA-OneVision's is a projector of patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.model.instructblip import take_instructblip
from mmavlm.model.llava_onevision import take_llava_onevision
from mmavlm.model.temporal import VideoQFormer
from mmavlm.weights.pretrained import PretrainedFolder, instructblip_parts, load_strict

if TYPE_CHECKING:
    from mmavlm.model.backbone import VideoLanguageModel

BLIP2, LLAVA_ONEVISION = "blip-2", "llava_onevision"  # transformers' `model_type`


def take_pretrained(model: VideoLanguageModel, folder: PretrainedFolder) -> None:
    """Take the parts of an InstructBLIP, a BLIP-2 or a LLaVA-OneVision into a model built for them.

    Raises:
        CheckpointError: if the folder holds none of these, or naming the keys that do not fit.
        ConfigError: if the model has no Q-Former or projector of this kind.
    """
    if folder.config.model_type == BLIP2:
        take_blip2(model, folder)
    elif folder.config.model_type == LLAVA_ONEVISION:
        take_llava_onevision(model, folder)
    else:
        take_instructblip(model, instructblip_parts(folder))


def take_blip2(model: VideoLanguageModel, folder: PretrainedFolder) -> None:
    """Take Q-Former, query tokens and LayerNorm of a BLIP-2; nothing else of it is read.

    Its projection leads to its own LLM and stays there.

    Raises:
        CheckpointError: naming the keys that do not fit.
        ConfigError: if the model has no image Q-Former.
    """
    vision, temporal = model.vision, model.vision.temporal
    if not isinstance(temporal, VideoQFormer):
        raise ConfigError(
            "pretrained names a BLIP-2, whose Q-Former reads no prompt, and "
            f"{type(temporal).__name__} has no such Q-Former; choose temporal=video_qformer"
        )
    queries = folder.state_dict("query_tokens")[""]
    if queries.shape != temporal.image_queries.shape:
        raise CheckpointError(
            f"BLIP-2's query_tokens have shape {tuple(queries.shape)}, here "
            f"{tuple(temporal.image_queries.shape)}; set qformer_queries={queries.shape[1]}"
        )
    load_strict(temporal.image_qformer, folder.state_dict("qformer."), "BLIP-2's Q-Former")
    norm = folder.state_dict("vision_model.post_layernorm.")
    load_strict(vision.norm, norm, "BLIP-2's LayerNorm behind the ViT")
    with torch.no_grad():
        temporal.image_queries.copy_(queries)
