"""Text encoders: the joint feature of prompt and text label (MMA, section 3.2). They learn."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoModel

from mmavlm.core.errors import ConfigError
from mmavlm.model.text import PromptTokenizer, mean_of_tokens
from mmavlm.model.token_tables import check_rows, positions
from mmavlm.weights.pretrained import PretrainedFolder, load_transformer

log = logging.getLogger(__name__)

Pooling = Literal["mean", "cls"]


class TinyTextEncoder(nn.Module):
    """A small Transformer over the built-in tokenizer; a text is the mean over its tokens.

    Texts longer than `max_length` tokens lose their beginning, since the label stands at the end.

    Raises:
        ConfigError: if `heads` does not divide `width`.
    """

    def __init__(
        self,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        *,
        max_length: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"text_encoder.width is {width} with text_encoder.heads {heads}; choose a multiple"
            )
        self.width = width
        self.tokenizer = PromptTokenizer(max_length=max_length)
        self.words = nn.Embedding(self.tokenizer.vocab_size, width)
        self.positions = nn.Embedding(max_length, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts → features (B,Dt)."""
        tokens = self.tokenizer.encode(texts, device=self.words.weight.device)
        hidden = self.words(tokens.ids) + self.positions.weight[: tokens.ids.shape[1]]
        hidden = self.layers(hidden, src_key_padding_mask=~tokens.mask)
        return mean_of_tokens(hidden, tokens)


class HFTextEncoder(nn.Module):
    """A pretrained text encoder of transformers; a text is its first token or the mean of all.

    `pretrained` is a folder or hub name. Of an encoder-decoder model the encoder is taken, and a
    pooling head is left out, since nothing would train it. Long texts lose their beginning.

    Raises:
        ConfigError: if `pooling` is unknown, the tokenizer has more tokens than there are
            embeddings, or `max_length` is above the positions the encoder has.
        CheckpointError: if weights or tokenizer are missing, damaged, or do not fit.
    """

    def __init__(
        self, pretrained: str, *, max_length: int = 128, pooling: Pooling = "mean"
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "cls"):
            raise ConfigError(f"text_encoder.pooling is {pooling!r}; choose 'mean' or 'cls'")
        self.pooling = pooling
        folder = PretrainedFolder(pretrained)
        self.tokenizer = PromptTokenizer(str(folder.path), max_length=max_length)
        self.model, _ = load_transformer(
            AutoModel, pretrained, folder.with_weights(), may_miss=("pooler.",), dtype=torch.float32
        )
        if self.model.config.is_encoder_decoder:
            self.model = self.model.get_encoder()
        if hasattr(self.model, "pooler"):
            self.model.pooler = None
        self._check_tables()
        self.width = int(self.model.config.hidden_size)
        # transformers loads in eval mode, and Lightning leaves modes as they are; this one learns.
        self.model.train()

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts → features (B,Dt)."""
        tokens = self.tokenizer.encode(texts, device=self.model.device)
        hidden = self.model(input_ids=tokens.ids, attention_mask=tokens.mask).last_hidden_state
        return hidden[:, 0] if self.pooling == "cls" else mean_of_tokens(hidden, tokens)

    def _check_tables(self) -> None:
        check_rows(
            self.tokenizer.vocab_size,
            self.model.get_input_embeddings().num_embeddings,
            "the text encoder",
            "put the tokenizer of these weights beside them (text_encoder.pretrained)",
        )
        found, longest = positions(self.model), self.tokenizer.max_length
        if found is None or longest <= found.most:
            return
        if found.table:
            raise ConfigError(
                f"text_encoder.max_length is {longest}, but the text encoder has {found.most} "
                f"positions; set it to {found.most} or less"
            )
        log.warning(
            "text_encoder.max_length is %d, but the text encoder was trained with %d positions: "
            "beyond them its features get worse",
            longest,
            found.most,
        )
