"""Contrastive decoding: what is said without seeing well is taken off what is said of the film."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mmavlm.core.errors import ConfigError
from mmavlm.core.settings import at_least

if TYPE_CHECKING:  # a setting waits for no torch
    from collections.abc import Sequence

    from torch import Tensor

    from mmavlm.core.batch import Batch
    from mmavlm.core.conversation import Conversation
    from mmavlm.core.interfaces import MediaTokens, TemporalState


class ContrastView(Protocol):
    """What is shown instead of films, row by row of a batch."""

    reads_features: bool  # whether an encoder's outputs serve as well as frames

    def __call__(self, batch: Batch) -> Batch:
        """The same conversations, with another view of what they show."""


@runtime_checkable
class MemoryView(Protocol):
    """What is remembered instead of films of which the same was seen."""

    def remember(self, branch: Any, watched: Any, state: TemporalState) -> TemporalState:
        """Another state of the films that a `branch` has `watched`, beside the one they are in."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Visual contrastive decoding (VCD, arXiv 2311.16922).

    p(y) = softmax((1+`alpha`)·logit(y|v,x) − `alpha`·logit(y|v′,x)) over the plausible tokens
    {y: p(y|v,x) ≥ `beta`·max p(·|v,x)}, and 0 for all others. v is what is shown, and v′ what
    `view` makes of it. With beta 0 all tokens are plausible, with beta 1 the likeliest alone.
    Without a view nothing is taken off, and no second one is read: plausibility alone is left.

    Raises:
        ConfigError: if alpha is below 0, or above 0 without a view, or beta not from 0 to 1.
    """

    view: ContrastView | MemoryView | None
    alpha: float = 1.0
    beta: float = 0.1

    def __post_init__(self) -> None:
        at_least("contrast", 0, alpha=self.alpha, beta=self.beta)
        if self.alpha is None or self.beta is None or self.beta > 1:
            raise ConfigError(
                f"contrast.alpha={self.alpha}, contrast.beta={self.beta} must be numbers, and beta "
                "at most 1, where the likeliest token alone is plausible"
            )
        if self.view is None and self.alpha:
            raise ConfigError(
                f"contrast.alpha={self.alpha} takes another view off, and contrast.view is null; "
                "set contrast.alpha=0, or choose a view"
            )

    @property
    def reads_features(self) -> bool:
        """Whether an encoder's outputs serve as well as frames."""
        return getattr(self.view, "reads_features", True)

    def __call__(self, seen: Tensor, other: Tensor) -> Tensor:
        """Scores (…,V) by those of what is shown (…,V) and of the other view (…,V).

        Both are logits or log-probabilities; −inf in `seen` excludes a token. As much probability
        is in the result as in `seen` (equal logsumexp), so that other rules of decoding find what
        they expect, and equal views give `seen` itself if all tokens are plausible.
        """
        floor = seen.amax(dim=-1, keepdim=True) + (log(self.beta) if self.beta else -float("inf"))
        excluded = (seen < floor) | seen.isneginf()
        found = ((1 + self.alpha) * seen - self.alpha * other).masked_fill(excluded, -float("inf"))
        return found.log_softmax(dim=-1) + seen.logsumexp(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Against:
    """What conversations are held against: the same about another view, and how.

    `media` are those of the other view; None where there is none, and plausibility alone counts.
    """

    conversations: Sequence[Conversation]
    media: MediaTokens | None
    contrast: Contrast

    def rows(self, which: Sequence[int]) -> Against:
        """The same of some of the conversations."""
        talks = [self.conversations[row] for row in which]
        media = None if self.media is None else self.media.rows(which)
        return replace(self, conversations=talks, media=media)
