"""How many tokens a Transformer's tables have rows for: those of positions, and of embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmavlm.core.errors import ConfigError

LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")  # as configs call it
OFFSETS = 8  # rows of a table in front of the first position: 2 in OPT and BART


@dataclass(frozen=True)
class Positions:
    """A Transformer has `most` positions, either in a `table`, or it saw no others in training."""

    most: int
    table: bool


def positions(model: Any) -> Positions | None:
    """The positions of a model of transformers; None where they are relative, or not said.

    Beyond a table there are no rows to read. Rotary positions go on, but are untrained there. Those
    that are scaled by a factor cover so many times more.
    """
    config = model.config
    limits = [getattr(config, name, None) for name in LIMITS]
    most = next((limit for limit in limits if isinstance(limit, int)), None)
    if most is None:
        return None
    tables = [rows for rows in _tables(model) if most - OFFSETS <= rows <= most + OFFSETS]
    if tables:
        return Positions(min(most, *tables), table=True)
    relative = hasattr(config, "relative_attention_num_buckets")
    return None if relative else Positions(int(most * _stretch(config)), table=False)


def _stretch(config: Any) -> float:
    """How many times more rotary positions there are than those the configuration counts."""
    rope = getattr(config, "rope_parameters", None)
    if not isinstance(rope, dict) or rope.get("original_max_position_embeddings"):
        return 1  # where the original number is said, the other is of stretched positions
    return float(rope.get("factor") or 1)


def check_rows(tokens: int, rows: int, whose: str, remedy: str) -> None:
    """Refuse a tokenizer with more tokens than there are embeddings; fewer are usual.

    Raises:
        ConfigError: naming both numbers and the remedy.
    """
    if tokens > rows:
        raise ConfigError(
            f"the tokenizer of {whose} has {tokens} tokens, but its embedding {rows} rows: "
            f"{tokens - rows} tokens could not be read; {remedy}"
        )


class TooLongError(ConfigError):
    """A row with more tokens than positions: which one, what its length is made of, the limit."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


@contextmanager
def rows_named(names: Sequence[str]) -> Iterator[None]:
    """Say of a row that is too long which item it is.

    Raises:
        TooLongError: with the item in front, in place of one that knows the row alone.
    """
    try:
        yield
    except TooLongError as error:
        raise TooLongError(f"item {names[error.row]}: {error}", error.row) from error


def _tables(model: nn.Module) -> Iterator[int]:
    """Usable rows of the tables of positions: embeddings, or GPT-J's buffers."""
    for name, module in model.named_modules():
        own = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and ("position" in own or own == "wpe"):
            # RoBERTa counts positions from behind its padding index.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            yield module.num_embeddings - skipped
    for name, buffer in model.named_buffers():
        if name.endswith("embed_positions"):
            yield len(buffer)
