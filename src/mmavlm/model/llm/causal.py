"""Decoder-only models: [video and prompt tokens][answer tokens, end]."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from mmavlm.model.llm.layout import Asked, Candidates, Rows, accepted, embed, token_log_probs


class CausalLayout:
    """One sequence a row; an answer is scored from the position before its first token."""

    def answer_log_probs(self, asked: Asked, answers: Rows) -> Tensor:
        """Log-probability of every answer token of the batch, row after row, (tokens,)."""
        # The last answer token is predicted, never read.
        inputs, mask = asked.inputs([answer[:-1] for answer in answers])
        starts = [
            count + len(prompt) - 1
            for count, prompt in zip(asked.counts, asked.prompts, strict=True)
        ]
        kept = inputs.shape[1] - min(starts)
        logits = asked.model(
            inputs_embeds=inputs,
            attention_mask=mask,
            use_cache=False,
            **accepted(asked.model, logits_to_keep=kept),
        ).logits[:, -kept:]
        row = [i for i, answer in enumerate(answers) for _ in answer]
        column = [
            start - min(starts) + j
            for start, answer in zip(starts, answers, strict=True)
            for j in range(len(answer))
        ]
        # The places are known on the host, so picking them waits for nothing.
        place = torch.tensor([row, column, list(itertools.chain(*answers))]).to(logits.device)
        return token_log_probs(logits[place[0], place[1]], place[2])

    def rank(self, asked: Asked, candidates: Candidates) -> Tensor:
        """Summed log-probability (B,C) of the candidates.

        Video and prompt run once; their keys and values serve all candidates.
        """
        model = asked.model
        inputs, seen = _left_padded(asked)
        start = seen.sum(dim=1, keepdim=True)
        prefix = model(
            inputs_embeds=inputs,
            attention_mask=seen,
            use_cache=True,
            **accepted(model, logits_to_keep=1, position_ids=_positions(seen)),
        )
        begin = prefix.logits[:, -1].float().log_softmax(dim=-1)
        scores = begin.gather(1, candidates.ids[:, :, 0])
        if candidates.ids.shape[2] == 1:
            return scores
        for part, ids, real in candidates.chunks():
            count = ids.shape[1]
            cache = copy.deepcopy(prefix.past_key_values)
            cache.batch_repeat_interleave(count)
            read, attended = ids[:, :, :-1].flatten(0, 1), real[:, :, :-1].flatten(0, 1)
            behind = start.repeat_interleave(count, dim=0)
            logits = model(
                inputs_embeds=embed(model, read),
                attention_mask=torch.cat([seen.repeat_interleave(count, dim=0), attended], dim=1),
                past_key_values=cache,
                use_cache=True,
                **accepted(
                    model, position_ids=behind + torch.arange(read.shape[1], device=read.device)
                ),
            ).logits
            rest = token_log_probs(logits.unflatten(0, ids.shape[:2]), ids[:, :, 1:])
            scores[:, part] += rest.masked_fill(~real[:, :, 1:], 0).sum(dim=2)
        return scores

    def generate(
        self, asked: Asked, config: GenerationConfig, processors: LogitsProcessorList
    ) -> Tensor:
        """Ids of generated answers, (B·num_return_sequences, at most max_new_tokens)."""
        inputs, mask = _left_padded(asked)
        return asked.model.generate(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            generation_config=config,
            logits_processor=processors,
        )


def _left_padded(asked: Asked) -> tuple[Tensor, Tensor]:
    """Video and prompt padded on the left, so that all rows go on at the same place."""
    inputs, mask = asked.inputs()
    length = inputs.shape[1]
    shift = length - mask.sum(dim=1, keepdim=True)
    source = torch.arange(length, device=inputs.device) - shift  # (B,length), negative on padding
    index = source.clamp(min=0)[:, :, None].expand_as(inputs)
    return inputs.gather(1, index), source >= 0


def _positions(mask: Tensor) -> Tensor:
    """Positions counted over real tokens alone, 0 on padding."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
