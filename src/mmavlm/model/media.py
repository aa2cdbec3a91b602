"""The tokens of films and of sounds as one row of views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mmavlm.core.interfaces import MediaTokens


def interleaved(
    seen: MediaTokens, heard: tuple[Tensor, Tensor | None], is_heard: Sequence[bool]
) -> MediaTokens:
    """Views of films and, where `is_heard`, of sounds: tokens (V,K,Dl) with their mask (V,K)."""
    parts = ((seen.tokens, seen.mask), heard)
    longest = max(tokens.shape[1] for tokens, _ in parts)
    tokens = heard[0].new_zeros(len(is_heard), longest, heard[0].shape[2])
    mask = tokens.new_zeros(tokens.shape[:2], dtype=torch.bool)
    rows = torch.tensor(is_heard)
    for (some, real), chosen in zip(parts, (~rows, rows), strict=True):
        at = chosen.nonzero()[:, 0].to(tokens.device)
        tokens = tokens.index_put((at,), F.pad(some, (0, 0, 0, longest - some.shape[1])))
        real = some.new_ones(some.shape[:2], dtype=torch.bool) if real is None else real
        mask[at] = F.pad(real, (0, longest - some.shape[1]))
    if (looks := seen.looks) is not None:
        films = iter(looks.frames)
        looks = replace(looks, frames=[() if sound else next(films) for sound in is_heard])
    return MediaTokens(tokens, seen.views, mask, looks)
