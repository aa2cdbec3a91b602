"""How much of each slot every frame is, whatever the strategy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmavlm.core.interfaces import Memory, MemoryState
from mmavlm.model.memory.slots import SlotRule
from mmavlm.model.memory.spans import slot_spans


def frame_shares(
    memory: Memory, bank: MemoryState, frame_tokens: Tensor, frame_mask: Tensor
) -> Tensor:
    """Shares (B,S,N,T) of T frames in a bank (B,S,N,D) as it is after each row's last one.

    `frame_tokens` (B,T,N,D) and `frame_mask` (B,T) are what `memory` saw, shorter rows shifted to
    the end as the frame loop shifts them. A slot is a weighted mean of the frames it holds, and
    these are the weights: they add up to 1 over the frames, and are 0 in empty slots.
    """
    if isinstance(memory, SlotRule):
        return shares_of_runs(bank, frame_mask)
    return shares_by_derivative(memory, bank, frame_tokens, frame_mask)


def shares_of_runs(bank: MemoryState, frame_mask: Tensor) -> Tensor:
    """The same where slots hold runs of frames, read off the counts: (B,S,N,T)."""
    first, stop = (edge[..., None] for edge in slot_spans(bank))
    number = frame_mask.cumsum(dim=1)[:, None, None] - 1  # of each frame among those seen
    held = (first <= number) & (number < stop) & frame_mask[:, None, None]
    return held / bank.counts.clamp(min=1)[..., None]


def shares_by_derivative(
    memory: Memory, bank: MemoryState, frame_tokens: Tensor, frame_mask: Tensor
) -> Tensor:
    """The same of any memory whose slots are weighted means, by watching the film again.

    The derivative of a mean by what it is of is the weight. Each frame is moved in a direction of
    its own, so one pass tells D frames apart.
    """

    def watch(tokens: Tensor) -> Tensor:
        state = memory.init(tokens[:, 0])
        for at in order.unbind(1):
            state = memory.append(memory.compress(state), tokens[rows, at], frame_mask[rows, at])
        return state.tokens

    frames, width = frame_tokens.shape[1], frame_tokens.shape[-1]
    shares = []
    with torch.inference_mode(False), torch.no_grad():  # inference tensors have no derivative
        frame_tokens, frame_mask = frame_tokens.clone(), frame_mask.clone()
        rows = torch.arange(len(frame_mask), device=frame_mask.device)
        order = frame_mask.int().argsort(dim=1, stable=True)
        for start in range(0, frames, width):
            number = min(width, frames - start)
            direction = torch.eye(frames, device=frame_tokens.device)[:, start : start + number]
            direction = F.pad(direction, (0, width - number))
            moved = direction[None, :, None].expand_as(frame_tokens).to(frame_tokens.dtype)
            moved_slots = torch.func.jvp(watch, (frame_tokens,), (moved,))[1]
            shares.append(moved_slots[..., :number].float())
    return torch.cat(shares, dim=-1).masked_fill(bank.counts[..., None] == 0, 0)
