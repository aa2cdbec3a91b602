"""Decoder-only models: media and texts of turns, then answer tokens and end, in one sequence."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from mmavlm.model.llm.heard import Heard
from mmavlm.model.llm.layout import (
    Asked,
    Candidates,
    Model,
    Search,
    Stretch,
    accepted,
    embed,
    picked,
)


@dataclass
class Past:
    """What a model has read of one conversation: a name for each token, and keys and values.

    `coming` are the names of what is read next. The cache keeps all tokens, also where a layer
    looks at a window, so that it can be cropped to any length.
    """

    names: list[int] = field(default_factory=list)
    coming: list[int] = field(default_factory=list)
    cache: Any = field(default_factory=DynamicCache)

    def expect(self, names: Sequence[int]) -> None:
        """Keep what these tokens begin with, except the last of them, which is to be read."""
        both = zip(self.names, names[:-1], strict=False)
        self.crop(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both)))
        self.coming = list(names)

    def crop(self, tokens: int) -> None:
        """Forget all but so many tokens."""
        gone = len(self.names) - tokens
        if tokens == 0:
            self.names, self.cache = [], DynamicCache()
        elif gone > 0:
            del self.names[tokens:]
            self.cache.crop(-gone)


@dataclass(frozen=True)
class Prefix:
    """Rows that were read: where they are real (B,L), and what follows; `begin` (B,V)."""

    seen: Tensor
    cache: Any
    begin: Tensor


class CausalLayout:
    """One sequence a row; an answer is scored from the position before its first token."""

    def learned_log_probs(self, asked: Asked) -> Tensor:
        """Log-probability of every learned token of the batch, row after row, (tokens,)."""
        # The last learned token is predicted, never read.
        return _learned(asked, [row.learned[-1][1] - 1 for row in asked.rows])

    def read_entirely(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """The same log-probabilities, and the last hidden states (B,L,H) of all that is asked."""
        with _hidden_kept(asked.model) as kept:
            found = _learned(asked, None)
        return found, kept[0]

    def past(self, model: Model) -> Past | None:
        """What a session keeps; None for models whose state cannot be cropped."""
        return None if getattr(model, "_is_stateful", False) else Past()

    def read(self, asked: Asked, past: Past | None = None) -> Prefix:
        """Run all that is asked, or what is not known from the `past` of one row, and keep it."""
        inputs, seen = _left_padded(asked)
        known = 0 if past is None else len(past.names)
        try:
            prefix = asked.model(
                inputs_embeds=inputs[:, known:],
                attention_mask=seen,
                past_key_values=None if past is None else past.cache,
                use_cache=True,
                **accepted(asked.model, logits_to_keep=1, position_ids=_positions(seen)[:, known:]),
            )
        except BaseException:
            if past is not None:
                past.crop(0)  # some layers may have read what others have not
            raise
        if past is not None:
            past.names = past.coming
        begin = prefix.logits[:, -1].float().log_softmax(dim=-1)
        return Prefix(seen, prefix.past_key_values, begin)

    def stretches(self, asked: Asked, read: Prefix, candidates: Candidates) -> Iterator[Stretch]:
        """The logits of the candidates: their first tokens together, then the others.

        The keys and values of what was read serve all candidates.
        """
        model, seen = asked.model, read.seen
        start = seen.sum(dim=1, keepdim=True)
        yield Stretch(slice(None), slice(1), read.begin[:, None, None])
        if candidates.ids.shape[2] == 1:
            return
        for part, ids, real in candidates.chunks():
            count = ids.shape[1]
            cache = copy.deepcopy(read.cache)
            cache.batch_repeat_interleave(count)
            tokens, attended = ids[:, :, :-1].flatten(0, 1), real[:, :, :-1].flatten(0, 1)
            behind = start.repeat_interleave(count, dim=0)
            logits = model(
                inputs_embeds=embed(model, tokens),
                attention_mask=torch.cat([seen.repeat_interleave(count, dim=0), attended], dim=1),
                past_key_values=cache,
                use_cache=True,
                **accepted(
                    model, position_ids=behind + torch.arange(tokens.shape[1], device=seen.device)
                ),
            ).logits
            yield Stretch(part, slice(1, None), logits.unflatten(0, ids.shape[:2]))

    def steps(self, asked: Asked, read: Prefix) -> CausalSteps:
        """Answers to all that is asked and was `read`, which stays as it is, token by token."""
        return CausalSteps(asked, read)

    def generate(
        self,
        asked: Asked,
        search: Search,
        past: Past | None = None,
        streamer: Heard | None = None,
    ) -> Tensor:
        """Ids of generated answers, (B·num_return_sequences, at most max_new_tokens).

        They go on from a copy of the `past`, if all that is asked was read into it.
        """
        inputs, mask = _left_padded(asked)
        begun = {}
        if past is not None:
            cache = copy.deepcopy(past.cache)
            cache.crop(-1)  # generation reads the last token itself
            cache.batch_repeat_interleave(search.config.num_beams)
            begun["past_key_values"] = cache
        return asked.model.generate(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            streamer=streamer,
            **search.arguments(),
            **begun,
        )


class CausalSteps:
    """Answers that go on from rows which were `read`, with a cache of their own."""

    def __init__(self, asked: Asked, read: Prefix) -> None:
        self._model = asked.model
        self._cache = copy.deepcopy(read.cache)
        self._seen = read.seen
        self._begin = read.begin

    def begin(self, copies: int) -> Tensor:
        """Logits (N,V) of the first token, for so many answers to each row: N = B·copies."""
        self._cache.batch_repeat_interleave(copies)
        self._seen = self._seen.repeat_interleave(copies, dim=0)
        return self._begin.repeat_interleave(copies, dim=0)

    def go_on(self, parents: Tensor, ids: Tensor) -> Tensor:
        """Logits (N,V) behind `ids` (N,1), each of which goes on with the answer `parents` (N,)."""
        self._cache.reorder_cache(parents)
        self._seen = F.pad(self._seen, (0, 1), value=True)  # answers of one row are equally long
        read = self._model(
            inputs_embeds=embed(self._model, ids),
            attention_mask=self._seen,
            past_key_values=self._cache,
            use_cache=True,
            **accepted(self._model, position_ids=_positions(self._seen)[:, -1:]),
        )
        self._cache = read.past_key_values
        return cast(Tensor, read.logits[:, -1])


def _left_padded(asked: Asked) -> tuple[Tensor, Tensor]:
    """All that is asked, padded on the left, so that all rows go on at the same place."""
    inputs, mask = asked.inputs()
    length = inputs.shape[1]
    shift = length - mask.sum(dim=1, keepdim=True)
    source = torch.arange(length, device=inputs.device) - shift  # (B,length), negative on padding
    index = source.clamp(min=0)[:, :, None].expand_as(inputs)
    return inputs.gather(1, index), source >= 0


def _positions(mask: Tensor) -> Tensor:
    """Positions counted over real tokens alone, 0 on padding."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _learned(asked: Asked, stops: Sequence[int] | None) -> Tensor:
    """Log-probability of what is learned; each row is read up to its stop, or to its end."""
    inputs, mask = asked.inputs(stops)
    starts = [
        [asked.column(n, start) - 1 for start, _ in row.learned] for n, row in enumerate(asked.rows)
    ]
    first = min((row[0] for row in starts if row), default=inputs.shape[1] - 1)
    kept = inputs.shape[1] - first
    logits = asked.model(
        inputs_embeds=inputs,
        attention_mask=mask,
        use_cache=False,
        **accepted(asked.model, logits_to_keep=kept),
    ).logits[:, -kept:]
    columns, ids = [], []
    for row, begins in zip(asked.rows, starts, strict=True):
        spans = list(zip(row.learned, begins, strict=True))
        columns.append(
            [
                column
                for (start, stop), begin in spans
                for column in range(begin - first, begin - first + stop - start)
            ]
        )
        ids.append([i for (start, stop), _ in spans for i in row.ids[start:stop]])
    return picked(logits, columns, ids)


@contextmanager
def _hidden_kept(model: Model) -> Iterator[list[Tensor]]:
    """A list into which the last hidden states go of what the model reads inside."""
    kept: list[Tensor] = []
    hook = model.base_model.register_forward_hook(lambda _, __, read: kept.append(read[0]))
    try:
        yield kept
    finally:
        hook.remove()
