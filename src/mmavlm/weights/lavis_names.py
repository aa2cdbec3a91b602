"""How LAVIS and this library name the parts of an InstructBLIP with MA-LMM's frame positions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Side = Literal["theirs", "ours"]
Form = Literal["transposed", "scalar"]  # how theirs is stored; a scalar is one entry long here

LINEAR = ("weight", "bias")
BIASES = ("q_bias", "v_bias")  # of the ViT's queries and values, fused here
QUERY_BIAS = r"(visual_encoder|model\.vision_tower\.vision_tower)\.blocks\.\d+\.attn\.q_bias"
ADAPTER = "lora_"  # in the names of what peft adds, which LAVIS does not know
WORD_POSITIONS = "Qformer.bert.embeddings.position_embeddings.weight"
POSITION_IDS = "Qformer.bert.embeddings.position_ids"

_COMPUTED = "computed from the configuration"
_OF_BLIP2 = "of BLIP-2's first stage, which answering does not use"
LEFT_OUT_OF_LAVIS = {
    r"(Qformer\.bert\.embeddings|clip_text_embedding)\.position_ids": _COMPUTED,
    r"(llm|t5)_model\..*rotary_emb\.inv_freq": _COMPUTED,
    r"Qformer\.cls\..*": "the Q-Former's head for words, which InstructBLIP does not use",
    r"temp|(itm_head|vision_proj|text_proj)\..*": _OF_BLIP2,
}
LEFT_OUT_BY_US = {
    r"alignment\..*": "no alignment of MMA's code with its Q-Former; it takes no part in answering",
}


@dataclass(frozen=True)
class Part:
    """A part of the model: how its names begin on both sides, {theirs: ours} of what follows.

    `layers` holds the beginnings of a layer's names, with `{n}` for its number, `of_layer` what
    follows in every layer, and `of_some` what a layer has all or nothing of. Of a part without
    any of these every name is taken as it is. `forms` is {theirs: form} of those in `names` that
    are stored in another one.
    """

    title: str
    theirs: str
    ours: str
    names: Mapping[str, str] | None = None
    layers: Mapping[Side, str] | None = None
    of_layer: Mapping[str, str] | None = None
    of_some: Mapping[str, str] | None = None
    forms: Mapping[str, Form] = field(default_factory=dict)

    def start(self, side: Side) -> str:
        """How its names begin on one side."""
        return self.theirs if side == "theirs" else self.ours

    def all_names(self, side: Side) -> set[str]:
        """Those of its names that do not depend on how many layers there are."""
        return {self.start(side) + name for name in turned(self.names or {}, side)}

    def pairs(self, side: Side, present: Iterable[str]) -> dict[str, str]:
        """{name on `side`: name on the other} of all it must hold, or nothing if it is absent.

        How many layers there are is told by the names that are `present`.
        """
        start = self.start(side)
        mine = {name.removeprefix(start) for name in present if name.startswith(start)}
        if not mine:
            return {}
        other = self.start("ours" if side == "theirs" else "theirs")
        return {start + name: other + new for name, new in self._inside(side, mine).items()}

    def _inside(self, side: Side, mine: set[str]) -> dict[str, str]:
        if self.names is None:
            return {name: name for name in mine if ADAPTER not in name}
        pairs = turned(self.names, side)
        if self.layers is None or self.of_layer is None:
            return pairs
        here = self.layers[side]
        there = self.layers["ours" if side == "theirs" else "theirs"]
        number = re.compile(re.escape(here).replace(r"\{n\}", r"(\d+)"))
        count = 1 + max((int(m[1]) for m in map(number.match, mine) if m), default=0)
        some = turned(self.of_some or {}, side)
        for n in range(count):
            of_layer = turned(self.of_layer, side)
            if any(here.format(n=n) + name in mine for name in some):
                of_layer |= some
            pairs |= {here.format(n=n) + k: there.format(n=n) + v for k, v in of_layer.items()}
        return pairs


def parts(side: Side, present: Iterable[str], language_model: str = "llm") -> list[Part]:
    """The parts of the model, the language model called as in a state by LAVIS's names.

    Where it is not there to be asked (`ours`), it is `language_model`.
    """
    if side == "theirs":
        language_model = "t5" if any(name.startswith("t5_") for name in present) else "llm"
    return [
        VIT,
        Part("LayerNorm behind the ViT", "ln_vision.", "vision.norm.", linear("")),
        Part("frame positions", "image_pe.", "vision.frame_positions.", {"weight": "weight"}),
        Part("query tokens", "query_tokens", "vision.temporal.query_tokens", {"": ""}),
        QFORMER,
        Part("projection", f"{language_model}_proj.", "vision.projector.", linear("")),
        Part("language model", f"{language_model}_model.", "llm.model."),
    ]


def linear(theirs: str, ours: str | None = None) -> dict[str, str]:
    """{theirs: ours} of a layer with weight and bias."""
    return {theirs + end: (theirs if ours is None else ours) + end for end in LINEAR}


def _attention(name: str) -> dict[str, str]:
    pairs = linear(f"{name}.output.dense.") | linear(f"{name}.output.LayerNorm.")
    for projection in ("query", "key", "value"):
        pairs |= linear(f"{name}.self.{projection}.", f"{name}.attention.{projection}.")
    return pairs


def _feed_forward(end: str) -> dict[str, str]:
    return (
        linear(f"intermediate{end}.dense.")
        | linear(f"output{end}.dense.")
        | linear(f"output{end}.LayerNorm.")
    )


def turned(pairs: Mapping[str, str], side: Side) -> dict[str, str]:
    """Pairs {theirs: ours} as {name on `side`: name on the other}."""
    return dict(pairs) if side == "theirs" else {ours: theirs for theirs, ours in pairs.items()}


VIT = Part(
    "ViT",
    "visual_encoder.",
    "vision.encoder.vision_model.",
    {
        "cls_token": "embeddings.class_embedding",
        "pos_embed": "embeddings.position_embedding",
        **linear("patch_embed.proj.", "embeddings.patch_embedding."),
    },
    {"theirs": "blocks.{n}.", "ours": "encoder.layers.{n}."},
    {
        **linear("norm1.", "layer_norm1."),
        **linear("attn.qkv.", "self_attn.qkv."),
        **linear("attn.proj.", "self_attn.projection."),
        **linear("norm2.", "layer_norm2."),
        **linear("mlp.fc1."),
        **linear("mlp.fc2."),
    },
)
QFORMER = Part(
    "Q-Former",
    "Qformer.bert.",
    "vision.temporal.qformer.",
    {
        "embeddings.word_embeddings.weight": "embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight": "embeddings.position_embeddings.weight",
        **linear("embeddings.LayerNorm.", "embeddings.layernorm."),
    },
    {"theirs": "encoder.layer.{n}.", "ours": "encoder.layer.{n}."},
    _attention("attention") | _feed_forward("") | _feed_forward("_query"),
    _attention("crossattention"),
)
