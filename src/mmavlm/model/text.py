"""Text in and out: tokenizers, the prompt tokenizer of the Q-Former."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mmavlm.core.errors import CheckpointError, ConfigError, first_line
from mmavlm.core.interfaces import TextTokens
from mmavlm.model.plain_text import PlainTokenizer

Side = Literal["left", "right"]

SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
}


class PromptTokenizer:
    """Prompts → ids and mask for the Q-Former, cut to `max_length` tokens, special ones included.

    `pretrained` is a folder or hub name whose tokenizer lies in `subfolder`; None takes the
    built-in one. Long prompts lose their beginning with `truncation_side` "left" (MA-LMM's
    choice), their end with "right"; special tokens are kept.

    Raises:
        CheckpointError: if there is no tokenizer where `pretrained` points.
        ConfigError: if `max_length` leaves no room for text, or `truncation_side` is unknown.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        subfolder: str = "",
        max_length: int = 128,
        truncation_side: Side = "left",
    ) -> None:
        self.tokenizer = load_tokenizer(pretrained, subfolder, truncation_side=truncation_side)
        self._plain = PlainTokenizer(self.tokenizer)
        special = sum(map(len, self._plain.affixes))
        if max_length <= special:
            raise ConfigError(
                f"prompt_tokenizer.max_length is {max_length}, but {special} of them are special "
                f"tokens; set {special + 1} or more"
            )
        self.max_length = max_length

    @property
    def vocab_size(self) -> int:
        """How many rows a table of token embeddings needs."""
        return self._plain.num_rows

    def check_positions(self, positions: int) -> None:
        """Refuse to give a Q-Former longer prompts than it has positions for.

        Raises:
            ConfigError: naming both numbers.
        """
        if self.max_length > positions:
            raise ConfigError(
                f"prompt_tokenizer.max_length is {self.max_length}, but the Q-Former has "
                f"{positions} positions; set it to {positions} or less, or raise "
                "qformer.max_text_tokens if it is not pretrained"
            )

    def encode(
        self,
        texts: Sequence[str],
        device: torch.device | str | None = None,
        *,
        max_length: int | None = None,
    ) -> TextTokens:
        """B texts → ids (B,L) and mask (B,L), L being the longest of them.

        Texts are cut to `max_length`, the tokenizer's own by default.
        """
        front, end = self._plain.affixes
        room = (self.max_length if max_length is None else max_length) - len(front) - len(end)
        side = self.tokenizer.truncation_side
        rows = [[*front, *cut(ids, room, side), *end] for ids in self._plain.batch(texts)]
        ids, mask = padded(rows, device, self.tokenizer.pad_token_id)
        return TextTokens(ids=ids, mask=mask)


def mean_of_tokens(hidden: Tensor, tokens: TextTokens) -> Tensor:
    """The mean (B,Dt) of hidden states (B,L,Dt) over real tokens."""
    kept = hidden.masked_fill(~tokens.mask[:, :, None], 0)
    return kept.sum(dim=1) / tokens.mask.sum(dim=1, keepdim=True).clamp(min=1)


def cut(ids: list[int], room: int, side: Side) -> list[int]:
    """At most `room` ids: the last where the side "left" is cut, else the first."""
    return ids[:room] if side == "right" or len(ids) <= room else ids[len(ids) - room :]


def padded(
    rows: Sequence[Sequence[int]], device: torch.device | str | None, pad_id: int = 0
) -> tuple[Tensor, Tensor]:
    """Rows of ids → ids (N,L) and mask (N,L), padded on the right."""
    length = max(map(len, rows), default=0)
    ids = torch.tensor(
        [[*row, *[pad_id] * (length - len(row))] for row in rows], dtype=torch.int64
    ).view(len(rows), length)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(length) < lengths[:, None]
    return ids.to(device), mask.to(device)


def load_tokenizer(
    pretrained: str | None, subfolder: str = "", *, truncation_side: Side = "right"
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub name, or a copy of the built-in one for None.

    It pads on the right, with end-of-text where it has no padding token.

    Raises:
        CheckpointError: if there is no tokenizer where `pretrained` points.
        ConfigError: if `truncation_side` is neither left nor right.
    """
    if truncation_side not in ("left", "right"):
        raise ConfigError(f"truncation_side is {truncation_side!r}; choose 'left' or 'right'")
    if pretrained is None:
        tokenizer: PreTrainedTokenizerBase = _wrap(_tiny_backend())
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                pretrained, subfolder=subfolder, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"no tokenizer could be read from {pretrained!r}"
                + (f", subfolder {subfolder!r}" if subfolder else "")
                + f" ({first_line(error)}); give a folder that holds tokenizer.json or another "
                "tokenizer file, or a hub name while online"
            ) from error
    tokenizer.truncation_side = truncation_side
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The built-in tokenizer: a token for each listed word, bytes for everything else.

    Any text, even one that spells a special token, comes back exactly from
    `decode(ids, skip_special_tokens=True)`. Encoding puts <bos> in front. The ids depend on the
    word list alone, so they stay the same from one machine to the next.
    """
    return _wrap(_tiny_backend())


def _tiny_backend() -> Tokenizer:
    """Byte-level BPE without merges: a piece is one token if listed, else its bytes."""
    words = files("mmavlm.model").joinpath("text_corpus.txt").read_text(encoding="utf-8").split()
    space = "Ġ"  # how byte-level BPE writes a leading space
    tokens = [
        *SPECIAL_TOKENS.values(),
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        *words,
        *(space + word for word in words),
    ]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bos = SPECIAL_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, vocab[bos])]
    )
    return tokenizer


def _wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        split_special_tokens=True,  # a text that spells "<eos>" does not end there
        clean_up_tokenization_spaces=False,
        **SPECIAL_TOKENS,
    )
