"""The Q-Former: query tokens and a text that read visual tokens (InstructBLIP, section 2.2).

Parameter names are those of transformers' `InstructBlipQFormerModel`, so its weights load by name.
Shapes: B batch, K query tokens, L text tokens, N = K + L, D width, V visual keys, Dv their width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import TextTokens
from mmavlm.model.few_queries import Bank, FewQueries, KeyValue

Banks = Sequence[Iterable[Bank]]  # stretches of keys, of each a bank for every frame


class QFormer(nn.Module):
    """A BERT encoder whose first K positions are queries that cross-attend to visual tokens.

    With `gradient_checkpointing` a layer keeps its inputs alone and is computed again in the
    backward pass.

    Raises:
        ConfigError: if `heads` does not divide `width`.
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
        cross_attention_frequency: int = 2,
        max_text_tokens: int = 512,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-12,
        init_std: float = 0.02,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"qformer.width {width} is not a multiple of qformer.heads {heads}; "
                "choose heads that divide the width"
            )
        self.width = width
        self.embeddings = QFormerEmbeddings(
            vocab_size, width, max_text_tokens, dropout, layer_norm_eps
        )
        self.encoder = QFormerLayers(
            QFormerLayer(
                width=width,
                heads=heads,
                hidden_width=hidden_width,
                visual_width=visual_width if i % cross_attention_frequency == 0 else None,
                dropout=dropout,
                eps=layer_norm_eps,
                gradient_checkpointing=gradient_checkpointing,
            )
            for i in range(layers)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=init_std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    @property
    def layers(self) -> list[QFormerLayer]:
        """The layers, first to last."""
        return [cast(QFormerLayer, layer) for layer in self.encoder.layer]

    def embed(self, text: TextTokens) -> Tensor:
        """A text through the embedding layer alone, (B,L,D)."""
        hidden, _ = self.embeddings(None, text)
        return self.embeddings.dropout(hidden)

    def forward(self, queries: Tensor, text: TextTokens | None, visual_tokens: Tensor) -> Tensor:
        """One look without memory: queries (B,K,D), visual tokens (B,V,Dv) → outputs (B,K,D)."""
        return self.look(queries, text, visual_tokens, ())[0]

    def look(
        self,
        queries: Tensor,
        text: TextTokens | None,
        visual_tokens: Tensor,
        layers: Sequence[int],
        rows: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """As `forward`; also the queries (B,K,D) behind the cross-attention of some `layers`.

        `rows` (B,) says which of the visual tokens each looks at; None: each at its own.
        """
        hidden, mask = self.embeddings(queries, text)
        hidden, crossed = self.embeddings.dropout(hidden), []
        for i, layer in enumerate(self.layers):
            keys, visual_keys = layer.project(hidden, visual_tokens)
            if visual_keys is not None and rows is not None:
                visual_keys = visual_keys[0][rows], visual_keys[1][rows]
            visual_bank = None if visual_keys is None else (visual_keys, None)
            banks = (keys, mask), visual_bank
            if i in layers and visual_bank is not None:
                hidden, seen = layer.forward_and_look(hidden, queries.shape[1], *banks)
                crossed.append(seen)
            else:
                hidden = layer(hidden, queries.shape[1], *banks)
        return hidden[:, : queries.shape[1]], crossed


class QFormerEmbeddings(nn.Module):
    """Queries followed by word + position embeddings of the text, then LayerNorm."""

    def __init__(
        self, vocab_size: int, width: int, max_text_tokens: int, dropout: float, eps: float
    ) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, width)
        self.position_embeddings = nn.Embedding(max_text_tokens, width)
        self.layernorm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def take_vocabulary(self, rows: int) -> None:
        """Have as many word embeddings as weights that are to be loaded, which may have spare ones.

        Their values are new if the number is.
        """
        if rows != self.word_embeddings.num_embeddings:
            self.word_embeddings = nn.Embedding(rows, self.word_embeddings.embedding_dim)

    def forward(self, queries: Tensor | None, text: TextTokens | None) -> tuple[Tensor, Tensor]:
        """(B,K,D) and L tokens → hidden (B,K+L,D) before dropout, and its mask (B,K+L).

        Raises:
            ConfigError: if the text is longer than the position table.
        """
        parts, masks = [], []
        if queries is not None:
            parts.append(queries)
            masks.append(queries.new_ones(queries.shape[:2], dtype=torch.bool))
        if text is not None:
            length, table = text.ids.shape[1], self.position_embeddings.num_embeddings
            if length > table:
                raise ConfigError(
                    f"the prompt has {length} tokens but the Q-Former's position table {table}; "
                    f"set prompt_tokenizer.max_length to at most {table}"
                )
            parts.append(self.word_embeddings(text.ids) + self.position_embeddings.weight[:length])
            masks.append(text.mask)
        return self.layernorm(torch.cat(parts, dim=1)), torch.cat(masks, dim=1)


class QFormerLayers(nn.Module):
    """The stack of layers, under the name its weights are stored by."""

    def __init__(self, layers: Iterable[QFormerLayer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


class QFormerLayer(nn.Module):
    """Self-attention, cross-attention of the queries, a feed-forward each for queries, text."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        hidden_width: int,
        visual_width: int | None,
        dropout: float,
        eps: float,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.attention = AttentionBlock(width, width, heads, dropout, eps)
        self.crossattention = (
            AttentionBlock(width, visual_width, heads, dropout, eps) if visual_width else None
        )
        self.intermediate = Intermediate(width, hidden_width)
        self.output = ResidualOutput(hidden_width, width, dropout, eps)
        self.intermediate_query = Intermediate(width, hidden_width)
        self.output_query = ResidualOutput(hidden_width, width, dropout, eps)

    def project(self, tokens: Tensor, visual_tokens: Tensor) -> tuple[KeyValue, KeyValue | None]:
        """Keys and values of both attentions, of tokens (B,S,D) and of visual tokens (B,V,Dv)."""
        visual = None if self.crossattention is None else self.crossattention.project(visual_tokens)
        return self.attention.project(tokens), visual

    def forward(
        self, hidden: Tensor, num_queries: int, bank: Bank, visual_bank: Bank | None
    ) -> Tensor:
        """Hidden (B,N,D) reads a bank and, with its queries, a visual bank → (B,N,D).

        A layer without cross-attention has no visual bank.
        """
        return self._recomputed(self._read, hidden, num_queries, bank, visual_bank)

    def forward_and_look(
        self, hidden: Tensor, num_queries: int, bank: Bank, visual_bank: Bank | None
    ) -> tuple[Tensor, Tensor]:
        """As `forward`; also the queries (B,K,D) right behind the cross-attention."""
        queries, text = self._recomputed(self._attend, hidden, num_queries, bank, visual_bank)
        return self._recomputed(self._feed_forward, queries, text), queries

    def _recomputed(self, part: Callable[..., Any], *inputs: Any) -> Any:
        """What a part of the layer gives; computed again in the backward pass where that is set."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)

    def _read(self, *inputs: Any) -> Tensor:
        return self._feed_forward(*self._attend(*inputs))

    def _attend(
        self, hidden: Tensor, num_queries: int, bank: Bank, visual_bank: Bank | None
    ) -> tuple[Tensor, Tensor]:
        """Queries (B,K,D) and text (B,L,D) behind both attentions."""
        hidden = self.attention(hidden, *bank)
        queries, text = hidden[:, :num_queries], hidden[:, num_queries:]
        if self.crossattention is not None:
            assert visual_bank is not None  # projected by this layer
            queries = self.crossattention(queries, *visual_bank)
        return queries, text

    def over_frames(self, hidden: Tensor, num_queries: int, visual_banks: Banks) -> Tensor:
        """The rest for T frames (T,B,N,D) that have read their banks; one product for all of them.

        Each has visual banks of its own.
        """
        queries, text = hidden[:, :, :num_queries], hidden[:, :, num_queries:]
        if self.crossattention is not None:
            queries = self.crossattention.over_frames(queries, visual_banks)
        return self._feed_forward(queries, text)

    def _feed_forward(self, queries: Tensor, text: Tensor) -> Tensor:
        queries = self.output_query(self.intermediate_query(queries), queries)
        text = self.output(self.intermediate(text), text)
        return torch.cat([queries, text], dim=-2)


class AttentionBlock(nn.Module):
    """Multi-head attention with projection, residual and LayerNorm."""

    def __init__(self, width: int, key_width: int, heads: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.attention = Projections(width, key_width)
        self.output = ResidualOutput(width, width, dropout, eps)
        self.heads = heads
        self.dropout = dropout

    def project(self, tokens: Tensor) -> KeyValue:
        """Tokens (…,V,Dk) → their keys and values, each (…,h,V,D/h)."""
        return self._split(self.attention.key(tokens)), self._split(self.attention.value(tokens))

    def forward(self, hidden: Tensor, keys: KeyValue, key_mask: Tensor | None) -> Tensor:
        """Hidden (B,N,D) attends to V keys where `key_mask` (B,V) is True → (B,N,D)."""
        mixed = F.scaled_dot_product_attention(
            self._split(self.attention.query(hidden)),
            *keys,
            attn_mask=None if key_mask is None else key_mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(mixed.transpose(1, 2).flatten(2), hidden)

    def weights(self, hidden: Tensor, key: Tensor, key_mask: Tensor | None) -> Tensor:
        """By how much hidden (B,N,D) attends to each of V keys (B,h,V,D/h): (B,h,N,V)."""
        query = self._split(self.attention.query(hidden))
        scores = query @ key.mT * query.shape[-1] ** -0.5
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask[:, None, None, :], -torch.inf)
        return scores.softmax(dim=-1)

    def over_frames(self, hidden: Tensor, banks: Banks) -> Tensor:
        """As `forward` for T frames (T,B,N,D), without gradient, each with banks of its own."""
        queries = self._split(self.attention.query(hidden))
        attend = FewQueries(self.dropout if self.training else 0.0)
        mixed = attend.over_frames(queries, banks)
        return self.output(mixed.transpose(-3, -2).flatten(-2), hidden)

    def _split(self, tokens: Tensor) -> Tensor:
        """(…,V,D) → (…,h,V,D/h)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class ResidualOutput(nn.Module):
    """Linear, dropout, residual, LayerNorm."""

    def __init__(self, in_width: int, width: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(in_width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """(B,N,Din) and (B,N,D) → (B,N,D)."""
        return self.LayerNorm(self.dropout(self.dense(hidden)) + residual)


class Projections(nn.Module):
    """Query, key and value projections of one attention."""

    def __init__(self, width: int, key_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(key_width, width)
        self.value = nn.Linear(key_width, width)


class Intermediate(nn.Module):
    """The widening half of a feed-forward: Linear and GELU."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, hidden_width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B,N,D) → (B,N,hidden)."""
        return F.gelu(self.dense(hidden))
