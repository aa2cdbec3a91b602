"""Where a fusion can act: on frame tokens before the memory, on query outputs behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import MemoryState


@dataclass(frozen=True)
class Seen:
    """What a fusion behind the Q-Former may read beside the query outputs.

    `bank` is the visual bank, None where there is no memory. `aligned` (B,A) is the film's feature
    of unit norm, projected by the alignment's own weights, None for fusions that do not read it.
    """

    bank: MemoryState | None
    aligned: Tensor | None = None


class Fusion(nn.Module):
    """Leaves both places as they are; a method overrides the one, or both, at which it acts.

    Constructed with the widths of frame tokens (`visual_width`), query outputs (`query_width`) and
    the aligned feature (`aligned_width`, None without an alignment of query outputs).
    """

    reads_guide = False  # whether there is a `before`, which looks at the prompt
    acts = False  # whether there is a `before` or an `after`
    reads_aligned = False  # whether `after` needs `Seen.aligned`

    def __init_subclass__(cls, **settings: Any) -> None:
        """Note where the fusion acts."""
        super().__init_subclass__(**settings)
        cls.reads_guide = cls.before is not Fusion.before
        cls.acts = cls.reads_guide or cls.after is not Fusion.after

    def before(self, frame_tokens: Tensor, prompt_embeds: Tensor, prompt_mask: Tensor) -> Tensor:
        """Frame tokens (B,T,P,Dv) on their way into the bank, shape kept.

        `prompt_embeds` (B,L,D) are the Q-Former's embeddings of the prompt, `prompt_mask` (B,L)
        True on real tokens, at least one a row. Frames are treated independently, so a stream of
        single frames (T=1) is fused as the whole film would be.
        """
        return frame_tokens

    def after(self, query_outputs: Tensor, seen: Seen) -> Tensor:
        """Query outputs (B,K,D) on their way to the projector: (B,`num_tokens(K)`,·)."""
        return query_outputs

    def num_tokens(self, queries: int) -> int:
        """How many tokens come out of `after` for so many query outputs."""
        return queries

    def projector(self, query_width: int, llm_width: int) -> nn.Linear:
        """The projection of what comes out of `after` to the width of the language model."""
        return nn.Linear(query_width, llm_width)


def bank_of(seen: Seen, fusion: Fusion) -> tuple[Tensor, Tensor]:
    """The bank's tokens (B,S·P,Dv) and their mask (B,S·P), at least one True a row.

    Raises:
        ConfigError: if there is no memory.
    """
    if seen.bank is None:
        raise ConfigError(
            f"{type(fusion).__name__} reads the visual bank, and this temporal aggregator keeps "
            "none; choose temporal=memory_qformer, or fusion=none"
        )
    filled = seen.bank.counts[:, :, 0] > 0
    mask = filled.repeat_interleave(seen.bank.tokens.shape[2], dim=1)
    return seen.bank.tokens.flatten(1, 2), mask


def required(aligned_width: int | None, name: str) -> int:
    """The width of the aligned feature.

    Raises:
        ConfigError: if there is none.
    """
    if aligned_width is None:
        raise ConfigError(
            f"fusion={name} reads the feature that the alignment draws towards the text, and this "
            "model aligns no query outputs; choose alignment=mma_code, or another with the level "
            "high, or fusion=none"
        )
    return aligned_width


def xavier(in_width: int, out_width: int) -> nn.Linear:
    """A linear layer as MMA-MFF starts its own: weights of Xavier, uniform; no bias yet."""
    layer = nn.Linear(in_width, out_width)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
