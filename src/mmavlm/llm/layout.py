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
from transformers import GenerationConfig, LogitsProcessorList

from mmavlm.llm.texts import Prompt
from mmavlm.text import padded

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


@dataclass(frozen=True)
class Asked:
    """What a `model` reads of B rows before it answers: video tokens (B,K,Dl) and prompts."""

    model: Model
    video: Tensor
    prompts: Sequence[Prompt]

    def inputs(self, answers: Rows | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings (B,L,Dl) and mask (B,L) of video, prompt and, if given, the answer behind.

        Rows are padded on the right.
        """
        count = self.video.shape[1]
        starts = [prompt.video_at for prompt in self.prompts]
        rows = [
            [*p.ids[: p.video_at], *[0] * count, *p.ids[p.video_at :], *answer]
            for p, answer in zip(self.prompts, answers or [()] * len(starts), strict=True)
        ]
        ids, mask = padded(rows, self.video.device)
        text = embed(self.model, ids)
        place = (torch.tensor(starts)[:, None] + torch.arange(count)).to(text.device)
        place = place[:, :, None].expand(-1, -1, text.shape[2])
        return text.scatter(1, place, self.video.to(text.dtype)), mask


class Layout(Protocol):
    """Where video, prompt and answer stand in a model."""

    def answer_log_probs(self, asked: Asked, answers: Rows) -> Tensor:
        """Log-probability of every answer token of the batch, row after row, (tokens,)."""

    def rank(self, asked: Asked, candidates: Candidates) -> Tensor:
        """Summed log-probability (B,C) of the candidates."""

    def generate(
        self, asked: Asked, config: GenerationConfig, processors: LogitsProcessorList
    ) -> Tensor:
        """Ids of generated answers, (B·num_return_sequences, at most max_new_tokens).

        `processors` change the scores of the next token by the ids of the answer so far.
        """


def embed(model: Model, ids: Tensor) -> Tensor:
    """Token embeddings (…,Dl) of ids (…)."""
    return model.get_input_embeddings()(ids)


def token_log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of ids (…) under logits (…,V), in single precision."""
    flat = F.cross_entropy(logits.flatten(0, -2).float(), ids.flatten(), reduction="none")
    return -flat.view(ids.shape)


def accepted(model: Model, **arguments: Any) -> dict[str, Any]:
    """Those of the arguments that this model's `forward` takes."""
    known = inspect.signature(type(model).forward).parameters
    return {name: value for name, value in arguments.items() if name in known}
