"""Encoder-decoder models: the encoder reads video and prompt, the decoder answers."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from mmavlm.model.llm.layout import Asked, Candidates, Model, Rows, token_log_probs
from mmavlm.model.text import padded


class Seq2SeqLayout:
    """Two sequences a row; the decoder begins with its start token."""

    def answer_log_probs(self, asked: Asked, answers: Rows) -> Tensor:
        """Log-probability of every answer token of the batch, row after row, (tokens,)."""
        inputs, mask = asked.inputs()
        ids, real = padded(answers, inputs.device)
        logits = asked.model(
            inputs_embeds=inputs,
            attention_mask=mask,
            decoder_input_ids=_shifted(asked.model, ids),
            decoder_attention_mask=real,
            use_cache=False,
        ).logits
        row = [i for i, answer in enumerate(answers) for _ in answer]
        column = [j for answer in answers for j in range(len(answer))]
        # The places are known on the host, so picking them waits for nothing.
        place = torch.tensor([row, column, list(itertools.chain(*answers))]).to(logits.device)
        return token_log_probs(logits[place[0], place[1]], place[2])

    def rank(self, asked: Asked, candidates: Candidates) -> Tensor:
        """Summed log-probability (B,C) of the candidates.

        The encoder runs once for all candidates of a row.
        """
        model = asked.model
        inputs, seen = asked.inputs()
        hidden = model.get_encoder()(inputs_embeds=inputs, attention_mask=seen).last_hidden_state
        scores = []
        for _, ids, real in candidates.chunks():
            count = ids.shape[1]
            logits = model(
                encoder_outputs=BaseModelOutput(hidden.repeat_interleave(count, dim=0)),
                attention_mask=seen.repeat_interleave(count, dim=0),
                decoder_input_ids=_shifted(model, ids.flatten(0, 1)),
                decoder_attention_mask=real.flatten(0, 1),
                use_cache=False,
            ).logits
            log_probs = token_log_probs(logits.unflatten(0, ids.shape[:2]), ids)
            scores.append(log_probs.masked_fill(~real, 0).sum(dim=2))
        return torch.cat(scores, dim=1)

    def generate(
        self, asked: Asked, config: GenerationConfig, processors: LogitsProcessorList
    ) -> Tensor:
        """Ids of generated answers, (B·num_return_sequences, at most max_new_tokens)."""
        inputs, mask = asked.inputs()
        generated = asked.model.generate(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            generation_config=config,
            logits_processor=processors,
        )
        return generated[:, 1:]  # without the decoder's start token


def _shifted(model: Model, ids: Tensor) -> Tensor:
    """Decoder inputs (N,A): the start token, then all answer tokens but the last."""
    start = ids.new_full((len(ids), 1), model.config.decoder_start_token_id)
    return torch.cat([start, ids[:, :-1]], dim=1)
