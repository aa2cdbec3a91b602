"""Weights by LAVIS's names (InstructBLIP, MA-LMM, MMA-MFF, Video-LLaMA, LLaMA-VID) and by ours.

Most are the same tensor under another name. The ViT's query and value biases stand alone there,
without a key bias, and are one vector (query ∥ 0 ∥ value) here. MMA-MFF's projections are
transposed there, its scalars have no axis, and some of its tensors are there more than once. And
some are left out, each for a reason that the report gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmavlm.core.errors import CheckpointError
from mmavlm.weights.lavis_names import (
    BIASES,
    LEFT_OUT_BY_US,
    LEFT_OUT_OF_LAVIS,
    POSITION_IDS,
    QUERY_BIAS,
    WORD_POSITIONS,
    Form,
    Part,
    Side,
    parts,
)
from mmavlm.weights.llama_vid_names import left_out_of_llama_vid, llama_vid_parts
from mmavlm.weights.mma_names import NO_FUSION, copies, is_mmas, mma_parts
from mmavlm.weights.pretrained import raise_if_different
from mmavlm.weights.video_llama_names import VIDEO_LLAMA, left_out, video_llama_parts


@dataclass
class KeyReport:
    """What became of every name: {from: to}, or {name: why it was left out}; parts not there.

    `copied` is {copy: original} of what LAVIS's side holds more than once.
    """

    mapped: dict[str, str] = field(default_factory=dict)
    fused: dict[str, tuple[str, str]] = field(default_factory=dict)
    split: dict[str, tuple[str, str]] = field(default_factory=dict)
    copied: dict[str, str] = field(default_factory=dict)
    computed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        told: dict[str, Mapping[str, object]] = {
            "mapped": self.mapped,
            "fused from query and value bias": self.fused,
            "split into query and value bias": self.split,
            "more copies of another": self.copied,
            "computed": self.computed,
            "left out": self.left_out,
        }
        lines = [f"{len(names)} {kind}" for kind, names in told.items() if names]
        lines += [f"  {name}: {why}" for name, why in self.left_out.items()]
        lines += [f"not there: {title} ({names})" for title, names in self.absent.items()]
        return "\n".join(lines)


def to_ours(
    state: Mapping[str, Tensor], where: str, *, partial: bool = False
) -> tuple[dict[str, Tensor], KeyReport]:
    """A state dict by LAVIS's names → one by the names of `VideoLanguageModel`, and the report.

    Tensors keep their dtype, and their storage unless they are fused or transposed. With `partial`
    whole parts may be absent, such as the frozen ones of a fine-tuned checkpoint; a part that is
    there is complete. A fusion that is not there is reported where an alignment is.

    Raises:
        CheckpointError: naming what is missing, unexpected, or of a shape that cannot be.
    """
    report = KeyReport()
    rest = _leave_out(state, _reasons("theirs", state) or LEFT_OUT_OF_LAVIS, report)
    _drop_copies(rest, report, where)
    ours: dict[str, Tensor] = {}
    for query in [name for name in rest if re.fullmatch(QUERY_BIAS, name)]:
        stem = query.removesuffix(BIASES[0])
        value, fused = stem + BIASES[1], f"{stem}qkv.bias"
        if value not in rest:
            raise CheckpointError(f"{where} holds {query} but not {value}: the file is damaged")
        rest[fused] = _fused(rest.pop(query), rest.pop(value), stem, where)
        report.fused[fused] = (query, value)
    of_mma = mma_parts("theirs", rest)
    found = _parts_of_others("theirs", rest) or [*parts("theirs", rest), *of_mma]
    pairs = _pairs(rest, found, "theirs", report, where, partial=partial)
    forms = _forms(found)
    for theirs, tensor in rest.items():
        ours[pairs[theirs]] = _our_form(tensor, forms.get(theirs), theirs, where)
        if theirs in report.fused:
            report.fused[pairs[theirs]] = report.fused.pop(theirs)
        else:
            report.mapped[theirs] = pairs[theirs]
    wider = _check_projection(ours, where)
    if len(of_mma) == 1 and not wider:  # an alignment alone, as of MMA and of stage 1
        report.absent["fusion"] = NO_FUSION
    return ours, report


def to_lavis(
    state: Mapping[str, Tensor], where: str, *, partial: bool = False, language_model: str = "llm"
) -> tuple[dict[str, Tensor], KeyReport]:
    """The way back from `to_ours`; `language_model` (llm or t5) is how LAVIS's class calls it.

    Raises:
        CheckpointError: naming what is missing, unexpected, or has no place in LAVIS.
    """
    report = KeyReport()
    reasons = _reasons("ours", state) or ({} if is_mmas(state) else LEFT_OUT_BY_US)
    rest = _leave_out(state, reasons, report)
    _check_projection(rest, where)
    of_lavis = [*parts("ours", rest, language_model), *mma_parts("ours", rest)]
    found = _parts_of_others("ours", rest) or of_lavis
    pairs = _pairs(rest, found, "ours", report, where, partial=partial)
    forms = _forms(found)
    theirs: dict[str, Tensor] = {}
    for ours, tensor in rest.items():
        name = pairs[ours]
        if not name.endswith(".qkv.bias"):
            theirs[name] = _their_form(tensor, forms.get(name), ours, where)
            report.mapped[ours] = name
            continue
        stem = name.removesuffix("qkv.bias")
        names = (stem + BIASES[0], stem + BIASES[1])
        theirs.update(zip(names, _split(tensor, ours, where), strict=True))
        report.split[ours] = names
    if WORD_POSITIONS in theirs:
        theirs[POSITION_IDS] = torch.arange(len(theirs[WORD_POSITIONS]))[None]
        report.computed[POSITION_IDS] = "0, 1, 2, … up to the table's length"
    report.copied = copies(theirs)
    theirs |= {copy: theirs[original] for copy, original in report.copied.items()}
    return theirs, report


def _reasons(side: Side, state: Mapping[str, Tensor]) -> Mapping[str, str]:
    """What is left out of a state of LLaMA-VID or Video-LLaMA, and why; {} for another."""
    return left_out_of_llama_vid(side, state) or left_out(side, state)


def _parts_of_others(side: Side, state: Mapping[str, Tensor]) -> list[Part]:
    """The parts of a state of LLaMA-VID or Video-LLaMA, [] for another."""
    return llama_vid_parts(side, state) or video_llama_parts(side, state)


def _pairs(
    state: Mapping[str, Tensor],
    found: Iterable[Part],
    side: Side,
    report: KeyReport,
    where: str,
    *,
    partial: bool,
) -> dict[str, str]:
    """Every name of `side` in the state → its name on the other, or an error that says why not."""
    pairs: dict[str, str] = {}
    for part in found:
        there = part.pairs(side, state)
        if not there:
            report.absent[part.title] = f"{part.start(side)}…"
        pairs |= there
    whose = "Video-LLaMA's" if VIDEO_LLAMA[-1] in found else "LAVIS's"
    if llama_vid_parts(side, state):
        whose = "LLaMA-VID's"
    raise_if_different(
        f"{whose} names" if side == "theirs" else f"{whose} model",
        where,
        missing=[_as_stored(name, side) for name in pairs if name not in state],
        unexpected=[name for name in state if name not in pairs],
    )
    if not pairs:
        raise CheckpointError(
            f"{where} holds no weights that are known; expected names such as "
            f"{', '.join(part.start(side) for part in found)}"
        )
    if report.absent and not partial:
        absent = ", ".join(f"{title} ({names})" for title, names in report.absent.items())
        raise CheckpointError(
            f"{where} holds only some parts of the model; not there: {absent}. If that is meant, "
            "as with a fine-tuned checkpoint, say partial=true"
        )
    return pairs


def _as_stored(name: str, side: Side) -> str:
    """A missing name as the file would spell it: the fused bias is two in LAVIS."""
    if side == "theirs" and name.endswith(".qkv.bias"):
        stem = name.removesuffix("qkv.bias")
        return f"{stem}{BIASES[0]} and {BIASES[1]}"
    return name


def _leave_out(
    state: Mapping[str, Tensor], reasons: Mapping[str, str], report: KeyReport
) -> dict[str, Tensor]:
    """The state without the names that match a pattern of `reasons`, which are reported."""
    kept = {}
    for name, tensor in state.items():
        why = next((why for pattern, why in reasons.items() if re.fullmatch(pattern, name)), None)
        if why is None:
            kept[name] = tensor
        else:
            report.left_out[name] = why
    return kept


def _fused(query: Tensor, value: Tensor, stem: str, where: str) -> Tensor:
    if query.shape != value.shape or query.ndim != 1:
        raise CheckpointError(
            f"{where}: {stem}{BIASES[0]} has shape {tuple(query.shape)} and {BIASES[1]} "
            f"{tuple(value.shape)}; expected two vectors of one length: the file is damaged"
        )
    return torch.cat([query, torch.zeros_like(value), value])


def _split(bias: Tensor, name: str, where: str) -> tuple[Tensor, Tensor]:
    if bias.ndim != 1 or len(bias) % 3:
        raise CheckpointError(
            f"{where}: {name} has shape {tuple(bias.shape)}; expected a vector of queries', keys' "
            "and values' biases"
        )
    query, key, value = bias.chunk(3)
    if key.any():
        raise CheckpointError(
            f"{where}: {name} holds biases of keys, up to {key.abs().max().item():.3g}, for which "
            "LAVIS's ViT has no place; only a ViT as InstructBLIP has it can be converted"
        )
    return query.clone(), value.clone()


def _drop_copies(state: dict[str, Tensor], report: KeyReport, where: str) -> None:
    """Take from a state by LAVIS's names what it holds a second time, if it is the same."""
    report.copied = copies(state)
    raise_if_different(
        "LAVIS's names", where, missing=[name for name in report.copied if name not in state]
    )
    for copy, original in report.copied.items():
        one, other = state.pop(copy), state[original]
        if one.dtype != other.dtype or not torch.equal(one, other):
            raise CheckpointError(
                f"{where}: {copy} and {original} differ, but are one tensor in MMA's model: the "
                "file is damaged, or of another model"
            )


def _forms(found: Iterable[Part]) -> dict[str, Form]:
    return {part.theirs + name: form for part in found for name, form in part.forms.items()}


def _our_form(tensor: Tensor, form: Form | None, name: str, where: str) -> Tensor:
    if form is None:
        return tensor
    _check_axes(tensor, 2 if form == "transposed" else 0, name, where)
    return tensor.T.contiguous() if form == "transposed" else tensor.reshape(1)


def _their_form(tensor: Tensor, form: Form | None, name: str, where: str) -> Tensor:
    if form is None:
        return tensor
    _check_axes(tensor, 2 if form == "transposed" else 1, name, where)
    return tensor.T.contiguous() if form == "transposed" else tensor.reshape(())


def _check_axes(tensor: Tensor, axes: int, name: str, where: str) -> None:
    expected = "a matrix" if axes == 2 else "one number"
    if tensor.ndim != axes or (axes < 2 and tensor.numel() != 1):
        raise CheckpointError(
            f"{where}: {name} has shape {tuple(tensor.shape)}; expected {expected}: the file is "
            "damaged, or of another model"
        )


def _check_projection(state: Mapping[str, Tensor], where: str) -> bool:
    """Whether a state by our names projects the aligned feature, too (feature-channel fusion).

    Raises:
        CheckpointError: if its projection is as wide as neither alternative.
    """
    projection, queries = (
        state.get("vision.projector.weight"),
        state.get("vision.temporal.query_tokens"),
    )
    if projection is None or queries is None or projection.ndim != 2:
        return False
    width, narrow = projection.shape[1], queries.shape[-1]
    widths = {narrow}
    if (aligned := state.get("alignment.video_projections.high.weight")) is not None:
        widths.add(narrow + aligned.shape[0])
    if width not in widths:
        raise CheckpointError(
            f"{where}: the projection to the language model reads {width} channels; expected "
            f"{' or '.join(map(str, sorted(widths)))}: queries alone, or, with MMA's alignment, "
            "the aligned feature beside them. A projection that reads a feature of an alignment "
            "of ours has no place in LAVIS"
        )
    return width != narrow
