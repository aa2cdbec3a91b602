"""How many floating-point operations a training step takes, from sizes alone.

A product of (m,k) and (k,n) counts 2·m·k·n; norms, activations and softmax are left out. Counted is
what the step needs: what is computed a second time to save memory (`activations=recomputed`) is
not, so that the share of a device's peak (MFU) is that of useful work.

Shapes: B rows, T frames, P frame tokens, Dv visual width, K query tokens, N = K + prompt tokens,
D Q-Former width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmavlm.core.footprint import FilmSizes, QFormerSizes

if TYPE_CHECKING:
    from torch import nn

# What attentions call the projection of their queries, alone or with those of keys and values.
QUERIES = re.compile(r"(?:^|\.)(?:q|q_proj|query|wq)$")
TOGETHER = re.compile(r"(?:^|\.)(?:qkv|c_attn|in_proj)$")
# Keys and values of a decoder that reads an encoder.
OF_ENCODER = re.compile(
    r"(?:EncDecAttention|encoder_attn|crossattention|cross_attn)\.(?:\w+\.)*[kv](?:_proj)?$"
)


@dataclass(frozen=True)
class Products:
    """What a module multiplies by: numbers in weights that learn and that are frozen.

    `attending` are the widths of all its attentions, added up. `of_encoder` are the weights, learnt
    ones or not, of keys and values that a decoder makes of an encoder's output.
    """

    learnt: int = 0
    frozen: int = 0
    attending: int = 0
    of_encoder: int = 0

    def forward(self, positions: int, read: int = 0) -> int:
        """Operations of a forward pass over `positions`, of an encoder's output of `read` ones."""
        return 2 * (positions * (self.learnt + self.frozen) + read * self.of_encoder)

    def backward(self, positions: int, read: int = 0) -> int:
        """Operations of the backward pass, where gradient goes on to what lies before."""
        return self.forward(positions, read) + 2 * positions * self.learnt

    def attention(self, rows: int, queries: int, keys: int) -> int:
        """Operations of the attentions' own products; the backward pass has twice as many."""
        return 4 * rows * queries * keys * self.attending


def products_of(module: nn.Module, without: nn.Module | None = None) -> Products:
    """The weights of all linear layers and convolutions of a module, but of the layer `without`.

    Weights of 8 and 4 bit count as what they stand for.
    """
    left_out = set() if without is None else set(without.modules())
    learnt = frozen = attending = of_encoder = 0
    for name, layer in module.named_modules():
        if layer in left_out or not (numbers := _numbers(layer)):
            continue
        plain = name.removesuffix(".base_layer")  # of an adapter
        if OF_ENCODER.search(plain):
            of_encoder += numbers
        elif _learns(layer):
            learnt += numbers
        else:
            frozen += numbers
        attending += _attending(plain, layer)
    return Products(learnt, frozen, attending, of_encoder)


def look_flops(
    film: FilmSizes, qformer: QFormerSizes, banked: int, *, anew: bool = True, read: bool = True
) -> int:
    """The forward pass of one look at a frame with `banked` frames in the banks.

    Keys and values are made of the frame alone, or `anew` of all that is banked. If a look is not
    `read`, only what layers bank of it is needed, and the last layer gives nothing to bank.
    """
    q, keys = qformer, banked + 1
    projected = keys if anew else 1
    queries = 4 * q.positions * q.width**2  # and what leaves the attention
    attention = 4 * q.positions * keys * q.positions * q.width
    forward = 4 * q.positions * q.width * q.hidden
    crossing = 4 * q.queries * q.width * (q.width + keys * film.tokens)
    of_layers = q.layers * (queries + attention + forward) + q.crossing * crossing
    if not read:
        of_layers -= of_layers // max(q.layers, 1)
    own_keys = 4 * projected * q.positions * q.width**2
    of_frames = 4 * projected * film.tokens * film.width * q.width
    return film.rows * (of_layers + q.layers * own_keys + q.crossing * of_frames)


def loop_flops(film: FilmSizes, qformer: QFormerSizes, learnt: int, *, cached: bool) -> int:
    """The frame loop; its last `learnt` frames count thrice, for they have a backward pass.

    Where keys are `cached`, other frames are projected once and not at every later one.
    """
    quiet = max(film.frames - learnt, 0)
    found = 0
    for t in range(film.frames):
        learns, banked = t >= quiet, min(t, qformer.slots)
        anew = learns or not cached
        look = look_flops(film, qformer, banked, anew=anew, read=learns or not cached)
        found += 3 * look if learns else look
    return found


def _numbers(layer: nn.Module) -> int:
    """How many numbers the weight of a linear layer or a convolution has, 0 for others."""
    from torch import nn  # here, since what the sizes come from is read by what needs no torch

    if isinstance(layer, nn.Linear):
        return layer.in_features * layer.out_features
    if isinstance(layer, nn.MultiheadAttention):  # its output projection is a layer of its own
        return 3 * layer.embed_dim**2
    if isinstance(layer, nn.Embedding) or any(layer.children()):
        return 0
    weight = getattr(layer, "weight", None)
    # convolutions, and GPT-2's linear layers, which are of no class of torch
    return weight.numel() if isinstance(weight, nn.Parameter) and weight.ndim >= 2 else 0


def _learns(layer: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in layer.parameters())


def _attending(name: str, layer: nn.Module) -> int:
    """The width of an attention, told by the layer that makes its queries."""
    from torch import nn

    if isinstance(layer, nn.MultiheadAttention):
        return layer.embed_dim
    width = int(getattr(layer, "out_features", getattr(layer, "nf", 0)))
    if QUERIES.search(name):
        return width
    return width // 3 if TOGETHER.search(name) else 0
