"""What the causal and the sequence-to-sequence layout of video, prompt and answer share.

Shapes: B rows, K video tokens, Dl LLM width, C candidates a row, A answer tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig

Model = Any  # a transformers model that generates; its classes have no typed base in common
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Candidates:
    """Answers `ids` (B,C,A), real where `mask` (B,C,A); some `chunk` sequences go at a time."""

    ids: Tensor
    mask: Tensor
    chunk: int

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Slices of the C candidates, with their ids and mask (B,c,A)."""
        rows, candidates, _ = self.ids.shape
        size = max(1, self.chunk // rows)
        for start in range(0, candidates, size):
            part = slice(start, start + size)
            yield part, self.ids[:, part], self.mask[:, part]


class Layout(Protocol):
    """Where video, prompt and answer stand in a model; all methods take the model they run."""

    def answer_log_probs(self, model: Model, video: Tensor, prompts: Rows, answers: Rows) -> Tensor:
        """Log-probability of every answer token of the batch, row after row, (tokens,)."""

    def rank(self, model: Model, video: Tensor, prompts: Rows, candidates: Candidates) -> Tensor:
        """Summed log-probability (B,C) of the candidates."""

    def generate(
        self, model: Model, video: Tensor, prompts: Rows, config: GenerationConfig
    ) -> Tensor:
        """Ids of generated answers, (B·num_return_sequences, at most max_new_tokens)."""


def embed(model: Model, ids: Tensor) -> Tensor:
    """Token embeddings (…,Dl) of ids (…)."""
    return model.get_input_embeddings()(ids)


def behind_video(model: Model, video: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Video (B,K,Dl), then the embeddings of ids (B,L): inputs (B,K+L,Dl), mask (B,K+L)."""
    text = embed(model, ids)
    inputs = torch.cat([video.to(text.dtype), text], dim=1)
    return inputs, torch.cat([mask.new_ones(video.shape[:2]), mask], dim=1)


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of ids (…) under logits (…,V), in single precision."""
    flat = F.cross_entropy(logits.flatten(0, -2).float(), ids.flatten(), reduction="none")
    return -flat.view(ids.shape)


def accepted(model: Model, **arguments: Any) -> dict[str, Any]:
    """Those of the arguments that this model's `forward` takes."""
    known = inspect.signature(type(model).forward).parameters
    return {name: value for name, value in arguments.items() if name in known}
