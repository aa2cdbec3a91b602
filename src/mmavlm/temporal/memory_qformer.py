"""The frame loop: a Q-Former that reads a film frame by frame with long-term memory (MA-LMM, 3.2).

At frame t every layer attends to what it banked of the past and to the frame at hand:

    keys of self-attention  = query bank of the layer ∥ the layer's input at t
    keys of cross-attention = visual bank             ∥ frame tokens at t

and both are banked afterwards. The banks are compressed before the next frame is added rather
than after the last one, so the loop never needs to know which frame is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mmavlm.errors import ConfigError
from mmavlm.interfaces import Memory, MemoryState, TextTokens
from mmavlm.qformer import QFormer


@dataclass(frozen=True)
class MemoryQFormerState:
    """All that is carried from frame to frame.

    `hidden` (B,N,D) and `mask` (B,N) are the embedded query tokens and prompt, `video_tokens`
    (B,K,D) the query outputs after the latest frame. The query bank holds the self-attention
    inputs of all layers side by side, as positions of one bank: (B,S,layers·N,D).
    """

    hidden: Tensor
    mask: Tensor
    visual_bank: MemoryState
    query_bank: MemoryState
    video_tokens: Tensor


class MemoryQFormer(nn.Module):
    """Query tokens that gather a whole film into K video tokens.

    `backprop_frames` last frames carry gradient. With 1, the published method, gradients equal
    those of the full loop, whose banks are detached; with more, the banked entries of those last
    frames carry gradient too.

    Raises:
        ConfigError: if `backprop_frames` or `num_query_tokens` is below 1.
    """

    def __init__(
        self,
        *,
        qformer: Callable[..., QFormer],
        visual_memory: Memory,
        query_memory: Memory,
        visual_width: int,
        vocab_size: int,
        num_query_tokens: int = 32,
        backprop_frames: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (
            ("num_query_tokens", num_query_tokens),
            ("backprop_frames", backprop_frames),
        ):
            if value < 1:
                raise ConfigError(f"temporal.{name} must be at least 1, got {value}")
        self.qformer = qformer(visual_width=visual_width, vocab_size=vocab_size)
        self.query_tokens = nn.Parameter(torch.empty(1, num_query_tokens, self.qformer.width))
        nn.init.normal_(self.query_tokens, std=0.02)
        self.visual_memory = visual_memory
        self.query_memory = query_memory
        self.backprop_frames = backprop_frames

    @property
    def width(self) -> int:
        """D, the width of the video tokens."""
        return self.qformer.width

    def embed_prompt(self, prompt: TextTokens) -> Tensor:
        """The prompt through the Q-Former's own embedding layer, (B,L,D)."""
        hidden, _ = self.qformer.embeddings(None, prompt)
        return self.qformer.embeddings.dropout(hidden)

    def start(self, prompt: TextTokens, frame_tokens: Tensor) -> MemoryQFormerState:
        """The state before the first frame, for frames like `frame_tokens` (B,P,Dv)."""
        queries = self.query_tokens.expand(len(frame_tokens), -1, -1)
        hidden, mask = self.qformer.embeddings(queries, prompt)
        layer_inputs = hidden.detach().repeat(1, len(self.qformer.layers), 1)
        return MemoryQFormerState(
            hidden=hidden,
            mask=mask,
            visual_bank=self.visual_memory.init(frame_tokens),
            query_bank=self.query_memory.init(layer_inputs),
            video_tokens=torch.zeros_like(queries),
        )

    def step(
        self, state: MemoryQFormerState, frame_tokens: Tensor, mask: Tensor
    ) -> MemoryQFormerState:
        """Attend to bank and frame (B,P,Dv), then bank it; rows with `mask` False skip it."""
        visual_bank = self.visual_memory.compress(state.visual_bank)
        query_bank = self.query_memory.compress(state.query_bank)

        visual_keys, visual_mask = _with_current(self.visual_memory.read(visual_bank), frame_tokens)
        output, layer_inputs = self._attend(state, query_bank, visual_keys, visual_mask)

        if self.backprop_frames == 1:
            frame_tokens, layer_inputs = frame_tokens.detach(), layer_inputs.detach()
        return replace(
            state,
            visual_bank=self.visual_memory.append(visual_bank, frame_tokens, mask),
            query_bank=self.query_memory.append(query_bank, layer_inputs, mask),
            video_tokens=torch.where(mask[:, None, None], output, state.video_tokens),
        )

    def read(self, state: MemoryQFormerState) -> Tensor:
        """The video tokens of the film so far, (B,K,D)."""
        return state.video_tokens

    def forward(
        self, frame_tokens: Tensor, prompt: TextTokens, frame_mask: Tensor
    ) -> MemoryQFormerState:
        """The state after a film (B,T,P,Dv); only its last `backprop_frames` carry gradient."""
        # Rows are shifted so that all of them end at the last step: one step with gradient serves
        # films of different length. A stable sort of the mask keeps their frames in order.
        order = frame_mask.int().argsort(dim=1, stable=True)
        grad_from = frame_tokens.shape[1] - self.backprop_frames
        *_, state = self._loop(frame_tokens, prompt, frame_mask, order, grad_from)
        return state

    def trace(self, frame_tokens: Tensor, prompt: TextTokens, frame_mask: Tensor) -> Tensor:
        """The query outputs after every frame, all with gradient: (B,T,P,Dv) → (B,T,K,D)."""
        order = torch.arange(frame_mask.shape[1], device=frame_mask.device).expand_as(frame_mask)
        states = self._loop(frame_tokens, prompt, frame_mask, order, grad_from=0)
        return torch.stack([state.video_tokens for state in states], dim=1)

    def _loop(
        self,
        frame_tokens: Tensor,
        prompt: TextTokens,
        frame_mask: Tensor,
        order: Tensor,
        grad_from: int,
    ) -> Iterator[MemoryQFormerState]:
        """Step through the frames in `order` (B,T), with gradient from step `grad_from` on."""
        rows = torch.arange(len(order), device=order.device)
        state = self.start(prompt, frame_tokens[:, 0])
        for t in range(order.shape[1]):
            with torch.set_grad_enabled(torch.is_grad_enabled() and t >= grad_from):
                at = order[:, t]
                state = self.step(state, frame_tokens[rows, at], frame_mask[rows, at])
            yield state

    def _attend(
        self,
        state: MemoryQFormerState,
        query_bank: MemoryState,
        visual_keys: Tensor,
        visual_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Through all layers: query outputs (B,K,D) and the layers' inputs (B,layers·N,D)."""
        num_queries, positions = self.query_tokens.shape[1], state.hidden.shape[1]
        past, past_mask = self.query_memory.read(query_bank)
        key_mask = (past_mask[:, :, None] & state.mask[:, None, :]).flatten(1)
        key_mask = torch.cat([key_mask, state.mask], dim=1)

        hidden, inputs = self.qformer.embeddings.dropout(state.hidden), []
        for i, layer in enumerate(self.qformer.layers):
            inputs.append(hidden)
            banked = past[:, :, i * positions : (i + 1) * positions].flatten(1, 2)
            keys = torch.cat([banked.to(hidden.dtype), hidden], dim=1)
            hidden = layer(hidden, num_queries, keys, key_mask, visual_keys, visual_mask)
        return hidden[:, :num_queries], torch.cat(inputs, dim=1)


def _with_current(bank: tuple[Tensor, Tensor], current: Tensor) -> tuple[Tensor, Tensor]:
    """Bank (B,S,N,D) with mask (B,S) ∥ current (B,N,D) → keys (B,(S+1)·N,D), mask (B,(S+1)·N)."""
    tokens, mask = bank
    positions = current.shape[1]
    keys = torch.cat([tokens.flatten(1, 2).to(current.dtype), current], dim=1)
    mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return keys, mask.repeat_interleave(positions, dim=1)
