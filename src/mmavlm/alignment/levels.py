"""Multi-level multimodal alignment (MMA, section 3.2): L_multi = Σ_l L_l."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmavlm.alignment.frames import AlignedFrames, FirstK
from mmavlm.alignment.gather import RankRows
from mmavlm.alignment.losses import info_nce
from mmavlm.alignment.temperature import Temperature
from mmavlm.errors import ConfigError
from mmavlm.hashing import string_keys

LOW, HIGH = "low", "high"


class TextEncoder(Protocol):
    """A module that turns B texts into features (B,width)."""

    width: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Features of the texts, (B,width)."""


class MultiLevelAlignment(nn.Module):
    """A contrastive loss between film and text at each level, with a pair of projections a level.

    Level `low` looks at the frame tokens as they enter cross-attention (`visual_width`), level
    `high` at the Q-Former's query outputs (`query_width`). `text_encoder` reads prompt and
    target as one text. `loss` takes logits (N,N) and the equality of texts (N,N). `frames` says
    which frames are aligned; the caller gives those alone. With `gather`, negatives come from all
    ranks while training; in evaluation each rank compares its own batch, so that ranks need not
    hold equally many batches.

    Raises:
        ConfigError: if `levels` is empty, names a level twice, or one other than low and high.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        visual_width: int,
        query_width: int,
        *,
        levels: Sequence[str] = (LOW, HIGH),
        embed_dim: int = 256,
        loss: Callable[[Tensor, Tensor], Tensor] = info_nce,
        temperature: Temperature | None = None,
        frames: AlignedFrames | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        widths = {LOW: visual_width, HIGH: query_width}
        self.levels = _checked(levels, known=tuple(widths))
        self.text_encoder = text_encoder
        self.video_projections = nn.ModuleDict(
            {level: nn.Linear(widths[level], embed_dim) for level in self.levels}
        )
        self.text_projections = nn.ModuleDict(
            {level: nn.Linear(text_encoder.width, embed_dim) for level in self.levels}
        )
        self.loss = loss
        self.temperature = Temperature() if temperature is None else temperature
        self.frames: AlignedFrames = FirstK() if frames is None else frames
        self.gather = gather

    def forward(
        self, frame_tokens: Tensor, query_outputs: Tensor, frame_mask: Tensor, texts: Sequence[str]
    ) -> dict[str, Tensor]:
        """The loss of each level, a scalar.

        Takes the aligned frames' tokens (B,F,P,Dv), query outputs (B,F,K,D) and mask (B,F), and
        the B texts.
        """
        return self.compare(self.features(frame_tokens, query_outputs, frame_mask, texts), texts)

    def compare(
        self, features: Mapping[str, tuple[Tensor, Tensor]], texts: Sequence[str]
    ) -> dict[str, Tensor]:
        """The loss of each level from what `features` gives for B films and their texts."""
        pairs = torch.stack([torch.stack(pair) for pair in features.values()])  # (levels,2,B,E)
        keys = string_keys(texts, pairs.device)
        if self.gather and self.training:
            rows = RankRows.exchange(len(texts), pairs.device)
            pairs = rows.gather(pairs.movedim(2, 0)).movedim(0, 2)
            keys = rows.gather(keys)
        video, text = pairs.unbind(dim=1)
        equal = keys[:, None] == keys
        # Autocast would round similarities, and with them their order, to 8 bits.
        with torch.autocast(pairs.device.type, enabled=False):
            logits = video @ text.mT * self.temperature()  # (levels,N,N)
            return {level: self.loss(logits[i], equal) for i, level in enumerate(self.levels)}

    def features(
        self, frame_tokens: Tensor, query_outputs: Tensor, frame_mask: Tensor, texts: Sequence[str]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Level → features of the films and of the texts, both (B,E) of unit norm.

        Takes what `forward` takes; a film's feature is the projected mean over the tokens of its
        aligned real frames.
        """
        sources = {LOW: frame_tokens, HIGH: query_outputs}
        sentence = self.text_encoder(texts)
        return {
            level: (
                _unit(self.video_projections[level](pool(sources[level], frame_mask))),
                _unit(self.text_projections[level](sentence)),
            )
            for level in self.levels
        }


def pool(tokens: Tensor, frame_mask: Tensor) -> Tensor:
    """The mean of tokens (B,F,N,D) over all tokens of the frames where (B,F) is True: (B,D)."""
    frames = tokens.mean(dim=2, dtype=torch.promote_types(tokens.dtype, torch.float32))
    frames = frames.masked_fill(~frame_mask[:, :, None], 0)  # padding may hold anything, even nan
    count = frame_mask.sum(dim=1, keepdim=True).clamp(min=1)
    return frames.sum(dim=1) / count


def _unit(features: Tensor) -> Tensor:
    """Features divided by their L2 norm, in single precision or better."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def _checked(levels: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(levels)
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ConfigError(
            f"alignment.levels is {list(names)}; name one or more of {list(known)}, each once"
        )
    return names
