"""Words that an answer already holds, made less likely."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor


class RepetitionPenalty(RepetitionPenaltyLogitsProcessor):
    """The penalty of CTRL, section 4.1, for the tokens of an answer, and `bos_id` if it is given.

    The first `skipped` of the ids generated are not of the answer: a decoder's start token.
    """

    def __init__(self, penalty: float, *, skipped: int, bos_id: int | None) -> None:
        super().__init__(penalty)
        self.skipped = skipped
        self.bos_id = bos_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (N,V) of the next token behind ids (N,L)."""
        held = input_ids[:, self.skipped :]
        if self.bos_id is not None:
            held = F.pad(held, (1, 0), value=self.bos_id)
        return super().__call__(held, scores)
