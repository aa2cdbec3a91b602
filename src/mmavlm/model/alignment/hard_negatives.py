"""Hard negatives: texts that are not true of a film, beside the one that is.

Shapes: N films, at most H false texts of one, E width of the common space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from mmavlm.core.errors import ConfigError
from mmavlm.core.hashing import string_keys
from mmavlm.model.alignment.gather import RankRows
from mmavlm.model.alignment.losses import FalsePairs

Of = Literal["own", "all"]
Sides = Literal["film", "both"]
FalseRows = Sequence[Sequence[str | None]]  # N rows of H texts, None behind the last of a film
Rows = slice | list[int]  # of a batch


class TextKeys(NamedTuple):
    """The texts of a batch as keys (`string_keys`), to see which are equal, in any process.

    `own` (N,) of what is true of the films, `false` (N,H) of what is not; `real` (N,H) is False
    where a film has fewer.
    """

    own: Tensor
    false: Tensor
    real: Tensor

    @classmethod
    def of(cls, texts: Sequence[str], false: FalseRows, device: torch.device) -> TextKeys:
        """The keys of N texts and their false texts, () where none has any."""
        wide = len(false[0]) if false else 0
        flat = string_keys((text or "" for row in false for text in row), device)
        real = torch.tensor([text is not None for row in false for text in row], dtype=torch.bool)
        shape = len(texts), wide
        return cls(string_keys(texts, device), flat.reshape(shape), real.to(device).reshape(shape))

    def gathered(self, rows: RankRows) -> TextKeys:
        """Those of all ranks, padded to the most false texts that a film of any rank has."""
        pad = 0, rows.columns - self.false.shape[1]
        parts = self.own[:, None], F.pad(self.false, pad), F.pad(self.real.long(), pad)
        found = rows.gather(torch.cat(parts, dim=1))
        own, false, real = found.split([1, rows.columns, rows.columns], dim=1)
        return TextKeys(own[:, 0], false, real.bool())

    def rows(self, which: Rows) -> TextKeys:
        """Those of some films."""
        return TextKeys(*(part[which] for part in self))

    @property
    def equal(self) -> Tensor:
        """Which of the true texts are the same, (N,N)."""
        return self.own[:, None] == self.own


@dataclass(frozen=True)
class HardNegatives:
    """How false texts enter the alignment losses (see `losses`); nothing where there are none.

    `of` says whose false texts a film is compared with: its `own` alone, or those of `all` films of
    the batch. What is false of another film may be true of this one, as is any
    other negative of a batch; a text that equals the film's own is left out in either case. `sides`
    says where they stand: on the `film`'s side alone, film → text, as in HACL (arXiv 2312.06968),
    or on `both`.

    Raises:
        ConfigError: if there is no such choice.
    """

    of: Of = "own"
    sides: Sides = "film"

    def __post_init__(self) -> None:
        for name, known in (("of", get_args(Of)), ("sides", get_args(Sides))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"alignment.hard_negatives.{name} is {getattr(self, name)!r}; choose "
                    + " or ".join(known)
                )

    def pairs(
        self, film: Tensor, false: Tensor, keys: TextKeys, scale: Tensor
    ) -> FalsePairs | None:
        """The logits of films (N,E) and false texts (N,H,E); None where there are no such texts."""
        if not false.shape[1]:
            return None
        own = None
        if self.of == "own" or self.sides == "both":
            apart = keys.real & (keys.false != keys.own[:, None])
            own = (false @ film[:, :, None])[:, :, 0] * scale
            own = own.masked_fill(~apart, -torch.inf)
        text = own if self.sides == "both" else None
        if self.of == "own":
            assert own is not None
            return FalsePairs(own, text)
        apart = keys.real.flatten() & (keys.false.flatten() != keys.own[:, None])
        logits = film @ false.flatten(0, 1).mT * scale
        return FalsePairs(logits.masked_fill(~apart, -torch.inf), text)


def padded(false: Sequence[Sequence[str]]) -> FalseRows:
    """Rows of as many texts as the longest has; () where none has any."""
    wide = max(map(len, false), default=0)
    return [[*row, *[None] * (wide - len(row))] for row in false] if wide else ()


def with_false(
    sentences: Callable[[Sequence[str]], Tensor], texts: Sequence[str], false: FalseRows
) -> tuple[Tensor, Tensor]:
    """Features of N texts (N,W), and of their false texts (N,H,W), each text read once.

    Zeros stand where a film has fewer.
    """
    wide = len(false[0]) if false else 0
    once = dict.fromkeys(text for row in false for text in row if text is not None)
    places = {text: at for at, text in enumerate(once)}
    if not places:
        found = sentences(texts)
        return found, found.new_zeros(len(texts), wide, found.shape[1])
    found = sentences([*texts, *places])
    table = F.pad(found[len(texts) :], (0, 0, 0, 1))  # the last row is that of no text
    at = [[-1 if text is None else places[text] for text in row] for row in false]
    return found[: len(texts)], table[torch.tensor(at, device=found.device)]
