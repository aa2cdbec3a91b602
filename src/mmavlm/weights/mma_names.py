"""How MMA-MFF's published code and this library name what it adds to MA-LMM.

Its files hold some tensors more than once: the alignment behind cross-attention is one module under
every layer of the Q-Former, and the text side reads copies of the Q-Former's own embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from mmavlm.weights.lavis_names import QFORMER, Form, Part, Side, linear

WORDS, COPIED_WORDS = "Qformer.bert.embeddings.", "clip_text_embedding."
LAYER, CROSS = "Qformer.bert.encoder.layer.{n}.", "clip4qformer."
FIRST_CROSS = LAYER.format(n=0) + CROSS
NO_FUSION = "attention_fusion.…, align_gate.…, or a wider projection"


def mma_parts(side: Side, present: Collection[str]) -> list[Part]:
    """The alignment if it is there, and then the fusion with weights of its own if that is.

    A fusion reads the alignment, so without it there is none.
    """
    if not any(name in present for name in ALIGNMENT.all_names(side)):
        return []

    def holds(start: str) -> bool:
        return any(name.startswith(start) for name in present)

    if not holds(_ALIGN_PROJECTION[side]):
        return [ALIGNMENT]
    return [ALIGNMENT, SEQUENCE_DIMENSION if holds(_GATE[side]) else CROSS_ATTENTION]


def is_mmas(state: Collection[str]) -> bool:
    """Whether a state by our names holds an alignment as MMA's code has it, and a Q-Former for it.

    Copies of the alignment lie in the Q-Former's layers there.
    """
    held = {name for name in state if name.startswith(ALIGNMENT.ours)}
    has_layers = any(name.startswith(QFORMER.ours) for name in state)
    return has_layers and held == ALIGNMENT.all_names("ours")


def copies(theirs: Collection[str]) -> dict[str, str]:
    """{copy: original} of what files of MMA hold more than once; {} without an alignment."""
    if not any(name in theirs for name in ALIGNMENT.all_names("theirs")):
        return {}
    layer = re.compile(re.escape(LAYER).replace(r"\{n\}", r"(\d+)"))
    numbers = sorted({int(found[1]) for found in map(layer.match, theirs) if found} - {0})
    ends = [name.removeprefix(FIRST_CROSS) for name in theirs if name.startswith(FIRST_CROSS)]
    of_words = [name.removeprefix(WORDS) for name in theirs if name.startswith(WORDS)]
    pairs = {f"{LAYER.format(n=n)}{CROSS}{end}": FIRST_CROSS + end for n in numbers for end in ends}
    return pairs | {COPIED_WORDS + end: WORDS + end for end in of_words}


_ENDS = {
    "text_projection": "text_projections.{level}.weight",
    "qformer_projection": "video_projections.{level}.weight",
    "logit_scale": "temperatures.{level}.log_scale",
}
_FORMS: dict[str, Form] = {
    "text_projection": "transposed",
    "qformer_projection": "transposed",
    "logit_scale": "scalar",
}
_STARTS = {"T1.": "high", FIRST_CROSS: "cross"}
_ALIGN_PROJECTION: dict[Side, str] = {
    "theirs": "align_proj.",
    "ours": "vision.fusion.align_projection.",
}
_GATE: dict[Side, str] = {"theirs": "align_gate.", "ours": "vision.fusion.gate."}

ALIGNMENT = Part(
    "alignment",
    "",
    "alignment.",
    {
        s + end: ours.format(level=level)
        for s, level in _STARTS.items()
        for end, ours in _ENDS.items()
    },
    forms={start + end: form for start in _STARTS for end, form in _FORMS.items()},
)
CROSS_ATTENTION = Part(
    "fusion",
    "",
    "vision.fusion.",
    {
        "attention_fusion.in_proj_weight": "attention.in_proj_weight",
        "attention_fusion.in_proj_bias": "attention.in_proj_bias",
        **linear("attention_fusion.out_proj.", "attention.out_proj."),
        **linear("align_proj.", "align_projection."),
        "fusion_weight": "mix",
        **linear("fusion_norm.", "norm."),
    },
    forms={"fusion_weight": "scalar"},
)
SEQUENCE_DIMENSION = Part(
    "fusion",
    "",
    "vision.fusion.",
    {
        **linear("align_proj.", "align_projection."),
        **linear("align_gate.0.", "gate.0."),
        **linear("align_gate.2.", "gate.2."),
        **linear("residual_proj.", "residual_projection."),
        "fusion_weight": "mix",
    },
    forms={"fusion_weight": "scalar"},
)
