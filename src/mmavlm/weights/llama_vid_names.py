"""How LLaMA-VID's published code and this library name the parts of its model.

Its vision tower and Q-Former are InstructBLIP's, its language model is not in a part of its own.
A BERT may stand in the Q-Former's place, and one linear layer in the projector's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mmavlm.weights.lavis_names import QFORMER, VIT, Part, Side, linear

POSITIONS = "vision.frame_positions.weight"
_READER = "model.vlm_att_"
_PROJECTOR = "model.mm_projector."
_TEMPORAL = "vision.temporal."
_CONTENT = "vision.projector.content."
_STARTS: Mapping[Side, tuple[str, ...]] = {
    "theirs": (_READER, _PROJECTOR),
    "ours": (f"{_TEMPORAL}key.", "vision.projector.context.", _CONTENT),
}
_BERT: Mapping[Side, str] = {
    "theirs": f"{_READER}bert_proj.",
    "ours": f"{_TEMPORAL}bert_projection.",
}
_FIRST_OF_TWO: Mapping[Side, str] = {"theirs": f"{_PROJECTOR}0.", "ours": f"{_CONTENT}0."}

LEFT_OUT_OF_THEIRS = {
    rf"{re.escape(_READER)}encoder\.bert\.embeddings\.position_ids": "computed from the "
    "configuration",
    r"model\.layers\..*rotary_emb\.inv_freq": "computed from the configuration",
}


def llama_vid_parts(side: Side, present: Collection[str]) -> list[Part]:
    """The parts of a state of this kind, [] for a state of another."""
    if not any(name.startswith(_STARTS[side]) for name in present):
        return []
    words = any(name.startswith(_BERT[side]) for name in present)
    two = any(name.startswith(_FIRST_OF_TWO[side]) for name in present)
    layers = linear("0.") | linear("2.") if two else linear("")
    return [
        replace(VIT, theirs="model.vision_tower.vision_tower."),
        *(_OF_BERT if words else _OF_QFORMER),
        _linear("context, queries", "projector.", f"{_TEMPORAL}query."),
        _linear("context, keys", "key_projector.", f"{_TEMPORAL}key."),
        _linear("context, values", "val_projector.", "vision.projector.context."),
        Part("projection of content", _PROJECTOR, _CONTENT, layers),
        *_LANGUAGE_MODEL,
    ]


def left_out_of_llama_vid(side: Side, state: Mapping[str, Tensor]) -> Mapping[str, str]:
    """{pattern: why it is left out} for a state of this kind, {} for a state of another."""
    if not llama_vid_parts(side, state):
        return {}
    if side == "theirs":
        return LEFT_OUT_OF_THEIRS
    positions = state.get(POSITIONS)
    unused = positions is not None and not torch.any(positions)
    reasons = {r"alignment\..*": "LLaMA-VID has no alignment"}
    if unused:
        reasons[re.escape(POSITIONS)] = "zeros: no positions are added to frames"
    return reasons


def _linear(title: str, theirs: str, ours: str) -> Part:
    return Part(title, f"{_READER}{theirs}", ours, linear(""))


def _attention(name: str) -> dict[str, str]:
    inside = ("self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")
    return {k: v for part in inside for k, v in linear(f"{name}.{part}.").items()}


_ENCODER = f"{_READER}encoder.bert."
_OF_QFORMER = [
    _linear("LayerNorm before the Q-Former", "ln.", f"{_TEMPORAL}norm."),
    Part("query tokens", f"{_READER}query", f"{_TEMPORAL}query_tokens", {"": ""}),
    replace(QFORMER, theirs=_ENCODER),
]
_OF_BERT = [
    _linear("projection to BERT", "bert_proj.", _BERT["ours"]),
    Part(
        "BERT",
        _ENCODER,
        f"{_TEMPORAL}bert.",
        {
            f"embeddings.{table}_embeddings.weight": f"embeddings.{table}_embeddings.weight"
            for table in ("word", "position", "token_type")
        }
        | linear("embeddings.LayerNorm."),
        QFORMER.layers,
        _attention("attention")
        | _attention("crossattention")
        | linear("intermediate.dense.")
        | linear("output.dense.")
        | linear("output.LayerNorm."),
    ),
]
_LANGUAGE_MODEL = [
    Part(f"language model, {title}", name, f"llm.model.{name}")
    for title, name in (
        ("embeddings", "model.embed_tokens."),
        ("layers", "model.layers."),
        ("last norm", "model.norm."),
        ("head", "lm_head."),
    )
]
