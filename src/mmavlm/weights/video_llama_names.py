"""How Video-LLaMA's published code and this library name the parts of its vision branch.

Its Q-Formers are BLIP-2's: InstructBLIP's without the path for text. LAVIS's files of BLIP-2 have
the same names without the video Q-Former, and MiniGPT-4's file has the projection alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mmavlm.weights.lavis_names import (
    LEFT_OUT_OF_LAVIS,
    QFORMER,
    VIT,
    Part,
    Side,
    linear,
)

LANGUAGE_MODEL = "llama"  # what its code calls it
POSITIONS = "vision.frame_positions.weight"
_TEMPORAL = "vision.temporal."
_OURS = tuple(f"{_TEMPORAL}{part}" for part in ("image_", "time_"))
_THEIRS = ("video_", "audio_", f"{LANGUAGE_MODEL}_")
_OF_TEXT = r"(intermediate|output)\..*"  # what follows the beginning of a layer's names
_TEXT = rf"{re.escape(QFORMER.theirs)}(embeddings\.\w+_embeddings|encoder\.layer\.\d+\.{_OF_TEXT})"

_COMPUTED = "computed from the configuration"
_READS_NO_TEXT = "the Q-Former's path for text, which Video-LLaMA takes out"
_AUDIO = "of the audio branch, which reads features of ImageBind"
LEFT_OUT_OF_THEIRS = {
    rf"video_{re.escape(QFORMER.theirs)}embeddings\.position_ids": _COMPUTED,
    rf"{LANGUAGE_MODEL}_model\..*rotary_emb\.inv_freq": _COMPUTED,
    rf"(video_)?{_TEXT}(\..*)?": _READS_NO_TEXT,
    r"(video_)?Qformer\.cls\..*": "the Q-Former's head for words, which Video-LLaMA takes out",
    r"audio_.*": _AUDIO,
    r"(t5|opt)_proj\..*": "BLIP-2's projection to another language model",
    **LEFT_OUT_OF_LAVIS,
}
_NO_POSITIONS = "zeros: no positions are added to frames before the image Q-Former"


def video_llama_parts(side: Side, state: Mapping[str, Tensor]) -> list[Part]:
    """The parts of a state of this kind, [] for a state of another.

    Theirs names a video Q-Former, or parts as Video-LLaMA and MiniGPT-4 name them, or a Q-Former
    of BLIP-2, which has nothing for text.
    """
    starts = _THEIRS if side == "theirs" else _OURS
    if any(name.startswith(starts) for name in state) or _is_blip2(side, state):
        return VIDEO_LLAMA
    return []


def left_out(side: Side, state: Mapping[str, Tensor]) -> Mapping[str, str]:
    """{pattern: why it is left out} for a state of this kind, {} for a state of another."""
    if not video_llama_parts(side, state):
        return {}
    if side == "theirs":
        return LEFT_OUT_OF_THEIRS
    positions = state.get(POSITIONS)
    unused = positions is not None and not torch.any(positions)
    return {r"alignment\..*": "Video-LLaMA has no alignment"} | (
        {re.escape(POSITIONS): _NO_POSITIONS} if unused else {}
    )


def _is_blip2(side: Side, state: Mapping[str, Tensor]) -> bool:
    """Whether a state by LAVIS's names holds layers of a Q-Former, and none of a path for text."""
    layers = any(name.startswith(f"{QFORMER.theirs}encoder.") for name in state)
    return side == "theirs" and layers and not any(re.match(_TEXT, name) for name in state)


def _qformer(whose: str, theirs: str, ours: str) -> Part:
    layer = QFORMER.of_layer or {}
    return replace(
        QFORMER,
        title=f"{whose} Q-Former",
        theirs=f"{theirs}{QFORMER.theirs}",
        ours=f"{_TEMPORAL}{ours}.",
        names=linear("embeddings.LayerNorm.", "layernorm."),
        of_layer={k: v for k, v in layer.items() if not re.fullmatch(_OF_TEXT, k)},
    )


def _queries(whose: str, theirs: str, ours: str) -> Part:
    return Part(f"{whose} queries", theirs, f"{_TEMPORAL}{ours}", {"": ""})


VIDEO_LLAMA = [
    VIT,
    Part("LayerNorm behind the ViT", "ln_vision.", "vision.norm.", linear("")),
    _queries("image", "query_tokens", "image_queries"),
    _qformer("image", "", "image_qformer"),
    Part(
        "frame positions",
        "video_frame_position_embedding.",
        f"{_TEMPORAL}time_table.",
        {"weight": "weight"},
    ),
    _queries("video", "video_query_tokens", "time_queries"),
    _qformer("video", "video_", "time_qformer"),
    Part("projection", f"{LANGUAGE_MODEL}_proj.", "vision.projector.", linear("")),
    Part("language model", f"{LANGUAGE_MODEL}_model.", "llm.model."),
]
