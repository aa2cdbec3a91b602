"""How Video-LLaMA's published code and this library name the parts of both its branches.

Its Q-Formers are BLIP-2's: InstructBLIP's without the path for text. LAVIS's files of BLIP-2 have
the same names without the video Q-Former, and MiniGPT-4's file has the projection alone. The audio
branch is there or not: a model without it is complete.
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
_SOUND_POSITIONS = "sound.frame_positions.weight"
_SEEN, _HEARD = "vision.temporal.", "sound.temporal."
_OURS = (*(f"{_SEEN}{part}" for part in ("image_", "time_")), f"{_HEARD}time_")
_THEIRS = ("video_", "audio_", f"{LANGUAGE_MODEL}_")
_OF_TEXT = r"(intermediate|output)\..*"  # what follows the beginning of a layer's names
_TEXT = rf"{re.escape(QFORMER.theirs)}(embeddings\.\w+_embeddings|encoder\.layer\.\d+\.{_OF_TEXT})"

_COMPUTED = "computed from the configuration"
_READS_NO_TEXT = "the Q-Former's path for text, which Video-LLaMA takes out"
_SAYS_NO_WORDS = "the Q-Former's head for words, which Video-LLaMA takes out"
_IMAGEBIND = "ImageBind's, of which sound_encoder=imagebind reads the audio tower from its own file"
LEFT_OUT_OF_THEIRS = {
    rf"(video|audio)_{re.escape(QFORMER.theirs)}embeddings\.position_ids": _COMPUTED,
    rf"{LANGUAGE_MODEL}_model\..*rotary_emb\.inv_freq": _COMPUTED,
    rf"((video|audio)_)?{_TEXT}(\..*)?": _READS_NO_TEXT,
    r"((video|audio)_)?Qformer\.cls\..*": _SAYS_NO_WORDS,
    r"audio_encoder\..*": _IMAGEBIND,
    r"(t5|opt)_proj\..*": "BLIP-2's projection to another language model",
    **LEFT_OUT_OF_LAVIS,
}
_NO_POSITIONS = "zeros: no positions are added to frames or clips before the Q-Former"


def video_llama_parts(side: Side, state: Mapping[str, Tensor]) -> list[Part]:
    """The parts of a state of this kind, [] for a state of another.

    Theirs names a video Q-Former, or parts as Video-LLaMA and MiniGPT-4 name them, or a Q-Former
    of BLIP-2, which has nothing for text.
    """
    starts = _THEIRS if side == "theirs" else _OURS
    if not any(name.startswith(starts) for name in state) and not _is_blip2(side, state):
        return []
    audio = "audio_" if side == "theirs" else "sound."
    return VIDEO_LLAMA + (AUDIO_BRANCH if any(name.startswith(audio) for name in state) else [])


def left_out(side: Side, state: Mapping[str, Tensor]) -> Mapping[str, str]:
    """{pattern: why it is left out} for a state of this kind, {} for a state of another."""
    if not video_llama_parts(side, state):
        return {}
    if side == "theirs":
        return LEFT_OUT_OF_THEIRS
    unused = [
        name
        for name in (POSITIONS, _SOUND_POSITIONS)
        if name in state and not torch.any(state[name])
    ]
    return {
        r"alignment\..*": "Video-LLaMA has no alignment",
        r"sound\.encoder\..*": "frozen, and read from a file of its own",
    } | {re.escape(name): _NO_POSITIONS for name in unused}


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
        ours=f"{ours}.",
        names=linear("embeddings.LayerNorm.", "layernorm."),
        of_layer={k: v for k, v in layer.items() if not re.fullmatch(_OF_TEXT, k)},
    )


def _queries(whose: str, theirs: str, ours: str) -> Part:
    return Part(f"{whose} queries", theirs, ours, {"": ""})


def _times(what: str, theirs: str, temporal: str) -> Part:
    return Part(f"{what} positions", theirs, f"{temporal}time_table.", {"weight": "weight"})


VIDEO_LLAMA = [
    VIT,
    Part("LayerNorm behind the ViT", "ln_vision.", "vision.norm.", linear("")),
    _queries("image", "query_tokens", f"{_SEEN}image_queries"),
    _qformer("image", "", f"{_SEEN}image_qformer"),
    _times("frame", "video_frame_position_embedding.", _SEEN),
    _queries("video", "video_query_tokens", f"{_SEEN}time_queries"),
    _qformer("video", "video_", f"{_SEEN}time_qformer"),
    Part("projection", f"{LANGUAGE_MODEL}_proj.", "vision.projector.", linear("")),
    Part("language model", f"{LANGUAGE_MODEL}_model.", "llm.model."),
]
AUDIO_BRANCH = [
    _times("clip", "audio_position_embedding.", _HEARD),
    _queries("audio", "audio_query_tokens", f"{_HEARD}time_queries"),
    _qformer("audio", "audio_", f"{_HEARD}time_qformer"),
    Part("audio projection", f"audio_{LANGUAGE_MODEL}_proj.", "sound.projector.", linear("")),
]
