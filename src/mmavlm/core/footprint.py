"""How many bytes of activations a training step holds at once, from sizes alone.

Each part of a step is a `Phase`; `peak` puts them one after another, up to the point where the
backward pass begins. Counted is what autograd keeps and what lies beside it for a moment; what
kernels and the allocator need on top is not.

Shapes: B rows, T frames, P frame tokens, Dv visual width, K query tokens, N = K + prompt tokens,
D Q-Former width, S slots of a memory bank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

SINGLE = 4  # bytes of a number in single precision


@dataclass(frozen=True)
class Phase:
    """Bytes that a part of a step keeps until the backward pass, and needs for a moment on top."""

    kept: int
    moment: int = 0


@dataclass(frozen=True)
class FilmSizes:
    """A batch of films as the model sees it: B, T, P, Dv."""

    rows: int
    frames: int
    tokens: int
    width: int

    @property
    def numbers(self) -> int:
        """How many numbers the frame tokens are."""
        return self.rows * self.frames * self.tokens * self.width


@dataclass(frozen=True)
class QFormerSizes:
    """A Q-Former over banks: N positions, K queries among them, D, its feed-forward's width.

    `crossing` of its `layers` look at the frames. `slots` bound both banks. Layers that are
    `recomputed` keep their inputs alone.
    """

    positions: int
    queries: int
    width: int
    hidden: int
    layers: int
    crossing: int
    slots: int
    recomputed: bool = False


def peak(phases: Iterable[Phase]) -> int:
    """The most bytes held at once when the phases come one after another."""
    held = highest = 0
    for phase in phases:
        highest = max(highest, held + phase.kept + phase.moment)
        held += phase.kept
    return highest


def encoder_phase(film: FilmSizes, chunk: int, itemsize: int) -> Phase:
    """A frozen Vision Transformer, `chunk` frames at a time, and the LayerNorm behind it.

    For a moment there are the output of all chunks twice, as they are joined, and within a chunk
    the residual stream, queries, keys and values, and both sides of a feed-forward four times as
    wide. The LayerNorm keeps its input in single precision, and the fused tokens stay.
    """
    inside = min(chunk, film.rows * film.frames) * film.tokens * film.width * (1 + 3 + 8)
    return Phase(
        kept=2 * film.numbers * SINGLE,
        moment=itemsize * (film.numbers + inside),
    )


def encoded_phase(film: FilmSizes, chunk: int, itemsize: int) -> Phase:
    """The encoder alone, whose outputs are kept as they are for what reads them part by part."""
    whole = encoder_phase(film, chunk, itemsize)
    return Phase(kept=film.numbers * itemsize, moment=whole.moment)


def fusion_phase(film: FilmSizes) -> Phase:
    """Frame tokens that attend to the prompt: queries, what is read (laid out twice), the sum."""
    return Phase(kept=4 * film.numbers * SINGLE)


def step_bytes(film: FilmSizes, qformer: QFormerSizes, banked: int) -> int:
    """What one look at a frame keeps if it carries gradient, with `banked` frames in the banks.

    Of each position eight vectors (query, what is read and its copy, sums and norms) and both
    sides of the feed-forward; of each query of a layer with cross-attention five more; of each
    key the token, its key and its value. Layers that are computed again keep of positions their
    input, and one of them is there in full for a moment, which is left out.
    """
    q, keys = qformer, banked + 1
    inside = q.width if q.recomputed else 8 * q.width + 2 * q.hidden
    of_positions = q.layers * q.positions * (inside + 3 * keys * q.width)
    of_queries = 0 if q.recomputed else q.crossing * q.queries * 5 * q.width
    of_frames = keys * film.tokens * (film.width + q.crossing * 2 * q.width)
    return film.rows * SINGLE * (of_positions + of_queries + of_frames)


def memory_phase(film: FilmSizes, qformer: QFormerSizes, with_gradient: int) -> Phase:
    """The frame loop, of which the last `with_gradient` frames carry gradient.

    Both banks are there with their keys and values, and once more as they are compressed.
    """
    q, slots = qformer, min(qformer.slots, film.frames)
    of_frame = film.tokens * (film.width + q.crossing * 2 * q.width)
    of_queries = q.layers * q.positions * 3 * q.width
    banks = film.rows * (slots + 1) * (of_frame + of_queries) * SINGLE
    last = range(max(film.frames - with_gradient, 0), film.frames)
    return Phase(kept=sum(step_bytes(film, q, min(t, q.slots)) for t in last) + banks, moment=banks)


def patches_phase(film: FilmSizes, queries: int) -> Phase:
    """Rows that attend to the patches of each frame: keys, a norm's output, rows and weights."""
    of_frame = 2 * film.tokens * film.width + queries * (film.width + 2 * film.tokens)
    return Phase(kept=film.rows * film.frames * of_frame * SINGLE)


def pooled_phase(film: FilmSizes, patches: int, hidden: int, *, pool: str) -> Phase:
    """Patches of each frame through a layer and a GELU, of which fields are pooled (`every_frame`).

    The layer's output stays. Means over an `area` keep what they are taken of, too.
    """
    bytes_ = film.rows * film.frames * patches * hidden * SINGLE
    return Phase(kept=bytes_ * (2 if pool == "area" else 1), moment=bytes_)


def trace_phase(film: FilmSizes, qformer: QFormerSizes) -> Phase:
    """The aligned frames, all with gradient, from an empty memory."""
    return Phase(sum(step_bytes(film, qformer, min(t, qformer.slots)) for t in range(film.frames)))


def look_phase(film: FilmSizes, qformer: QFormerSizes, frame: int) -> Phase:
    """One look at a `frame` further on in a film, with gradient, and the banks set aside for it."""
    q = qformer
    banked = min(frame, q.slots)
    of_frame = film.tokens * film.width + q.layers * q.positions * q.width
    banks = film.rows * banked * of_frame * SINGLE
    return Phase(kept=step_bytes(film, q, banked) + banks)


def layers_phase(
    module: nn.Module, positions: int, itemsize: int = SINGLE, without: nn.Module | None = None
) -> Phase:
    """Any Transformer over `positions` tokens: inputs and outputs of its linear layers stay.

    That is about what attention, norms and activations between them keep. Adapters are linear
    layers too, and so are those of 8 and 4 bit. The layer `without` is left out.
    """
    layers = (layer for layer in module.modules() if layer is not without)
    return Phase(positions * itemsize * sum(map(_features, layers)))


def scores_bytes(rows: int, positions: int, layers: int, heads: int, itemsize: int) -> int:
    """What attention that lays out its scores keeps: softmax in single precision, and as read."""
    numbers = rows * positions**2 * layers * heads
    return numbers * (SINGLE if itemsize >= SINGLE else SINGLE + itemsize)


def recomputed(phase: Phase, layers: int, inputs: int) -> Phase:
    """The phase of equal `layers` that keep their `inputs` (bytes) and compute the rest again.

    For a moment one layer is there in full, with gradients beside it.
    """
    return Phase(kept=layers * inputs, moment=2 * phase.kept // layers + phase.moment)


def logits_phase(rows: int, positions: int, vocabulary: int, itemsize: int) -> Phase:
    """Logits in the model's precision and in single; their log-softmax and its gradient."""
    numbers = rows * positions * vocabulary
    return Phase(kept=numbers * (itemsize + SINGLE), moment=2 * numbers * SINGLE)


def _features(module: nn.Module) -> int:
    """Inputs plus outputs of a linear layer, 0 for others."""
    from torch import nn  # here, since `interfaces` is read by what needs no torch

    if isinstance(module, nn.Linear):
        return module.in_features + module.out_features
    if any(module.children()):  # peft's layers show the weight of the layer they wrap as theirs
        return 0
    weight = None if isinstance(module, nn.Embedding) else getattr(module, "weight", None)
    # GPT-2's linear layers are of no class of torch.
    return sum(weight.shape) if isinstance(weight, nn.Parameter) and weight.ndim == 2 else 0
