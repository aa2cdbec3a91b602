"""Encoder-decoder models: the encoder reads media and texts of the turns, the decoder answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from mmavlm.core.errors import ConfigError
from mmavlm.model.llm.heard import Heard
from mmavlm.model.llm.layout import Asked, Candidates, Model, Search, Stretch, picked
from mmavlm.model.text import padded


@dataclass(frozen=True)
class Encoded:
    """Rows that were read: hidden states (B,L,Dl), and where they are real (B,L)."""

    hidden: Tensor
    seen: Tensor


class Seq2SeqLayout:
    """Two sequences a row; the decoder begins with its start token."""

    def learned_log_probs(self, asked: Asked) -> Tensor:
        """Log-probability of every learned token of the batch, row after row, (tokens,).

        Raises:
            ConfigError: if a conversation has more than one learned turn: there is one decoder.
        """
        for number, row in enumerate(asked.rows):
            if len(row.learned) > 1:
                raise ConfigError(
                    f"conversation {number} of the batch has {len(row.learned)} learned turns, but "
                    "a sequence-to-sequence model learns the last one alone; learn one of them, "
                    "or choose a causal llm"
                )
        spans = [row.learned[0] for row in asked.rows]
        answers = [
            row.ids[start:stop] for row, (start, stop) in zip(asked.rows, spans, strict=True)
        ]
        inputs, mask = asked.inputs([start for start, _ in spans])
        ids, real = padded(answers, inputs.device)
        logits = asked.model(
            inputs_embeds=inputs,
            attention_mask=mask,
            decoder_input_ids=_shifted(asked.model, ids),
            decoder_attention_mask=real,
            use_cache=False,
        ).logits
        return picked(logits, [range(len(answer)) for answer in answers], answers)

    def past(self, model: Model) -> None:
        """Nothing is kept: all that was said is encoded again."""

    def read(self, asked: Asked, past: None = None) -> Encoded:
        """Encode all that is asked."""
        inputs, seen = asked.inputs()
        encoder = asked.model.get_encoder()
        return Encoded(encoder(inputs_embeds=inputs, attention_mask=seen).last_hidden_state, seen)

    def stretches(self, asked: Asked, read: Encoded, candidates: Candidates) -> Iterator[Stretch]:
        """The logits of the candidates; what was encoded serves all candidates of a row."""
        model = asked.model
        for part, ids, real in candidates.chunks():
            count = ids.shape[1]
            logits = model(
                encoder_outputs=BaseModelOutput(read.hidden.repeat_interleave(count, dim=0)),
                attention_mask=read.seen.repeat_interleave(count, dim=0),
                decoder_input_ids=_shifted(model, ids.flatten(0, 1)),
                decoder_attention_mask=real.flatten(0, 1),
                use_cache=False,
            ).logits
            yield Stretch(part, slice(None), logits.unflatten(0, ids.shape[:2]))

    def steps(self, asked: Asked, read: Encoded) -> Seq2SeqSteps:
        """Answers to all that is asked and was `read`, which stays as it is, token by token."""
        return Seq2SeqSteps(asked, read)

    def generate(
        self,
        asked: Asked,
        search: Search,
        past: None = None,
        streamer: Heard | None = None,
    ) -> Tensor:
        """Ids of generated answers, (B·num_return_sequences, at most max_new_tokens)."""
        inputs, mask = asked.inputs()
        generated = asked.model.generate(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            streamer=streamer,
            **search.arguments(),
        )
        return generated[:, 1:]  # without the decoder's start token


class Seq2SeqSteps:
    """Answers to rows which were `read`, with a decoder's cache of their own."""

    def __init__(self, asked: Asked, read: Encoded) -> None:
        self._model = asked.model
        self._read = read
        self._cache: Any = None

    def begin(self, copies: int) -> Tensor:
        """Logits (N,V) of the first token, for so many answers to each row: N = B·copies."""
        hidden, seen = (
            t.repeat_interleave(copies, 0) for t in (self._read.hidden, self._read.seen)
        )
        self._read = Encoded(hidden, seen)
        start = self._model.config.decoder_start_token_id
        return self._logits(seen.new_full((len(seen), 1), start, dtype=torch.int64))

    def go_on(self, parents: Tensor, ids: Tensor) -> Tensor:
        """Logits (N,V) behind `ids` (N,1), each of which goes on with the answer `parents` (N,)."""
        self._cache.reorder_cache(parents)
        return self._logits(ids)

    def _logits(self, ids: Tensor) -> Tensor:
        decoded = self._model(
            encoder_outputs=BaseModelOutput(self._read.hidden),
            attention_mask=self._read.seen,
            decoder_input_ids=ids,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = decoded.past_key_values
        return cast(Tensor, decoded.logits[:, -1])


def _shifted(model: Model, ids: Tensor) -> Tensor:
    """Decoder inputs (N,A): the start token, then all answer tokens but the last."""
    start = ids.new_full((len(ids), 1), model.config.decoder_start_token_id)
    return torch.cat([start, ids[:, :-1]], dim=1)
