"""Encoder-decoder models: the encoder reads media and texts of the turns, the decoder answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from mmavlm.core.errors import ConfigError
from mmavlm.model.llm.heard import Heard
from mmavlm.model.llm.layout import Asked, Candidates, Model, Search, picked, token_log_probs
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

    def rank(self, asked: Asked, read: Encoded, candidates: Candidates) -> Tensor:
        """Summed log-probability (B,C) of the candidates.

        What was encoded serves all candidates of a row.
        """
        model, scores = asked.model, []
        for _, ids, real in candidates.chunks():
            count = ids.shape[1]
            logits = model(
                encoder_outputs=BaseModelOutput(read.hidden.repeat_interleave(count, dim=0)),
                attention_mask=read.seen.repeat_interleave(count, dim=0),
                decoder_input_ids=_shifted(model, ids.flatten(0, 1)),
                decoder_attention_mask=real.flatten(0, 1),
                use_cache=False,
            ).logits
            log_probs = token_log_probs(logits.unflatten(0, ids.shape[:2]), ids)
            scores.append(log_probs.masked_fill(~real, 0).sum(dim=2))
        return torch.cat(scores, dim=1)

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


def _shifted(model: Model, ids: Tensor) -> Tensor:
    """Decoder inputs (N,A): the start token, then all answer tokens but the last."""
    start = ids.new_full((len(ids), 1), model.config.decoder_start_token_id)
    return torch.cat([start, ids[:, :-1]], dim=1)
