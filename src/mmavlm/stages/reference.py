"""The model as it was when training began, without a second model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmavlm.stages.pairs import Pairs, PairScores, Scores

ADAPTER, SECOND_FACTOR = ".lora_", ".lora_B."  # in names that peft gives


@dataclass(frozen=True)
class Reference:
    """What pairs had for log-probabilities when training began.

    Frozen parts are those of the model itself. Of what is trained, the starting `weights` are kept
    by name, and stand in for the present ones while the reference reads. None: adapters alone are
    trained, and began at zero, so that the model with adapters switched off is the reference; then
    nothing is kept, and films are seen once for both.
    """

    weights: Mapping[str, Tensor] | None

    @classmethod
    def of(cls, scorer: PairScores) -> Reference:
        """The reference that the present weights are."""
        trained = {name: p for name, p in scorer.named_parameters() if p.requires_grad}
        # A product with zeros adds nothing; of embeddings it is the other factor.
        began = not any(p.any() for name, p in trained.items() if SECOND_FACTOR in name)
        if trained and began and all(ADAPTER in name for name in trained):
            return cls(None)
        return cls({name: p.detach().clone() for name, p in trained.items()})

    def to(self, device: torch.device) -> Reference:
        """The same on a device."""
        if self.weights is None:
            return self
        return Reference({name: weight.to(device) for name, weight in self.weights.items()})

    def beside(self, scorer: PairScores, pairs: Pairs) -> tuple[Scores, Scores]:
        """The scores of pairs now, with gradient, and those of the reference, without dropout."""
        if self.weights is None:
            seen = scorer.see(pairs)
            with torch.no_grad(), _in_eval_mode(scorer), scorer.llm.without_adapters():
                before = scorer(pairs, seen)
            return scorer(pairs, seen), before
        # Kept weights need no gradient, so autocast caches no cast of them for the pass behind.
        with torch.no_grad(), _in_eval_mode(scorer):
            before = functional_call(scorer, dict(self.weights), (pairs,))
        return scorer(pairs), before


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
