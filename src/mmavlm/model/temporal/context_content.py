"""LLaMA-VID's tokens of a frame: one that the question asks for, and some of what is there anyway.

arXiv 2311.17043, section 3. Shapes as in `temporal.patch_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from typing_extensions import Self, Unpack

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import QFormerSizes
from mmavlm.core.interfaces import TextTokens
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal.patch_tokens import PatchSettings, PatchTokens
from mmavlm.model.temporal.queries import GuidedQueries


class ContextContent(PatchTokens, GuidedQueries):
    """Query tokens of a Q-Former read question and frame; see `PatchTokens`.

    They look at frame tokens behind a LayerNorm, the class token included. Without `train_qformer`
    Q-Former, queries and LayerNorm are frozen.

    Raises:
        ConfigError: if a setting cannot be.
    """

    def __init__(
        self,
        *,
        qformer: Callable[..., QFormer],
        visual_width: int,
        vocab_size: int,
        num_query_tokens: int = 32,
        norm_eps: float = 1e-5,
        train_qformer: bool = True,
        **settings: Unpack[PatchSettings],
    ) -> None:
        super().__init__(qformer, visual_width, vocab_size, num_query_tokens)
        self.make(self.qformer.width, visual_width, **settings)
        self.norm = nn.LayerNorm(visual_width, eps=norm_eps)
        self.train_qformer = train_qformer
        self.query_tokens.requires_grad_(train_qformer)
        for part in (self.qformer, self.norm):
            part.requires_grad_(train_qformer)

    def train(self, mode: bool = True) -> Self:
        """Enter train mode; a Q-Former that does not learn stays in eval mode."""
        super().train(mode)
        self.qformer.train(mode and self.train_qformer)
        return self

    def found(
        self, frames: Tensor, guide: TextTokens, film_of: Tensor | None
    ) -> tuple[Tensor, None]:
        """Query outputs (V,T,Q,D) at frames (M,T,P,C), all of them real."""
        return self.look_at_each(self.norm(frames), guide, (), film_of)[0], None


class WordsContent(PatchTokens):
    """The words of the question read the frame themselves, through a BERT; see `PatchTokens`.

    Every layer looks at the frame tokens, projected to its width, the class token included. Without
    `train_bert` it is frozen.

    Raises:
        ConfigError: if a setting cannot be.
    """

    def __init__(
        self,
        *,
        visual_width: int,
        vocab_size: int,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        hidden_width: int = 3072,
        max_text_tokens: int = 512,
        dropout: float = 0.1,
        train_bert: bool = True,
        **settings: Unpack[PatchSettings],
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(
                f"temporal.width {width} is not a multiple of temporal.heads {heads}; choose heads "
                "that divide the width"
            )
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=hidden_width,
            max_position_embeddings=max_text_tokens,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            is_decoder=True,
            add_cross_attention=True,
            use_cache=False,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.bert_projection = nn.Linear(visual_width, width)
        self.make(width, visual_width, **settings)
        self.guide_positions = max_text_tokens
        self.train_bert = train_bert
        for part in (self.bert, self.bert_projection):
            part.requires_grad_(train_bert)

    def train(self, mode: bool = True) -> Self:
        """Enter train mode; a BERT that does not learn stays in eval mode."""
        super().train(mode)
        self.bert.train(mode and self.train_bert)
        return self

    def embed_prompt(self, prompt: TextTokens) -> Tensor:
        """The question through BERT's own embedding layer, (B,L,D)."""
        embedded: Tensor = self.bert.embeddings(prompt.ids)
        return embedded

    def sizes(self, guide_tokens: int, at_most: int) -> QFormerSizes:
        """The sizes of the look at one frame; every word looks at it."""
        config = self.bert.config
        return QFormerSizes(
            positions=guide_tokens,
            queries=guide_tokens,
            width=config.hidden_size,
            hidden=config.intermediate_size,
            layers=config.num_hidden_layers,
            crossing=config.num_hidden_layers,
            slots=0,
        )

    def found(
        self, frames: Tensor, guide: TextTokens, film_of: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What words (V,T,L,D) read in frames (M,T,P,C); which of them (V,L) are real."""
        length = frames.shape[1]
        seen = self.bert_projection(frames)
        if film_of is not None:
            seen = seen[film_of]
        read = self.bert(
            guide.ids.repeat_interleave(length, dim=0),
            attention_mask=guide.mask.repeat_interleave(length, dim=0).long(),
            encoder_hidden_states=seen.flatten(0, 1),
        ).last_hidden_state
        return torch.unflatten(read, 0, (-1, length)), guide.mask
