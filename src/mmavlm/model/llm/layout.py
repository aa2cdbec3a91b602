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

from mmavlm.model.llm.texts import Prompt
from mmavlm.model.text import padded

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
    """What a `model` reads of B rows before it answers: video tokens (B,K,Dl) and prompts.

    The first `counts[i]` video tokens of row i are real; the model never sees the others.
    """

    model: Model
    video: Tensor
    counts: Sequence[int]
    prompts: Sequence[Prompt]

    def inputs(self, answers: Rows | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings (B,L,Dl) and mask (B,L) of video, prompt and, if given, the answer behind.

        Rows are padded on the right.
        """
        rows = [
            [*p.ids[: p.video_at], *[0] * count, *p.ids[p.video_at :], *answer]
            for p, count, answer in zip(
                self.prompts, self.counts, answers or [()] * len(self.prompts), strict=True
            )
        ]
        ids, mask = padded(rows, self.video.device)
        text, length, most = embed(self.model, ids), ids.shape[1], self.video.shape[1]
        tokens = torch.arange(most)
        place = torch.tensor([prompt.video_at for prompt in self.prompts])[:, None] + tokens
        if min(self.counts, default=most) < most:  # tokens that are not real go behind the rows
            place[tokens >= torch.tensor(self.counts)[:, None]] = length
            text = F.pad(text, (0, 0, 0, 1))
        place = place.to(text.device)[:, :, None].expand(-1, -1, text.shape[2])
        return text.scatter(1, place, self.video.to(text.dtype))[:, :length], mask


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


def real_counts(video: Tensor, video_mask: Tensor | None) -> list[int]:
    """How many of a row's video tokens (B,K,Dl) are real, by the mask (B,K) or all without one.

    Raises:
        ValueError: if a mask has another shape, a row without a real token, or one behind padding.
    """
    rows, most = video.shape[:2]
    if video_mask is None:
        return [most] * rows
    if video_mask.shape != (rows, most):
        raise ValueError(
            f"the mask of the video tokens has shape {tuple(video_mask.shape)}, but there are "
            f"{rows} rows of {most} tokens; give one of shape {(rows, most)}"
        )
    mask = video_mask.cpu()
    counts = mask.sum(dim=1)
    wrong = (counts == 0) | (mask != (torch.arange(most) < counts[:, None])).any(dim=1)
    if wrong.any():
        raise ValueError(
            f"row {int(wrong.int().argmax())} of the mask of the video tokens must begin with its "
            "real tokens, one or more; put the padding behind them"
        )
    return [int(count) for count in counts]


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
