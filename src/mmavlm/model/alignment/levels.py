"""Multi-level multimodal alignment (MMA, section 3.2): L_multi = Σ_l L_l.

Shapes: B films, F aligned frames, P frame tokens, Dv their width, K query tokens, D Q-Former width,
C layers with cross-attention, E width of the common space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmavlm.core.errors import ConfigError
from mmavlm.model.alignment.frames import AlignedFrames, FirstK
from mmavlm.model.alignment.gather import RankRows
from mmavlm.model.alignment.hard_negatives import (
    FalseRows,
    HardNegatives,
    Rows,
    TextKeys,
    padded,
    with_false,
)
from mmavlm.model.alignment.losses import info_nce
from mmavlm.model.alignment.temperature import Temperature

LOW, HIGH, CROSS = "low", "high", "cross"
Reduction = Literal["film", "frame"]


class TextEncoder(Protocol):
    """A module that turns B texts into features (B,width)."""

    width: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Features of the texts, (B,width)."""


@dataclass(frozen=True)
class Aligned:
    """The aligned frames: tokens (B,F,P,Dv), query outputs (B,F,K,D), mask (B,F) of real ones.

    `crossed` (B,F,C,K,D) are the query tokens right behind the cross-attention of C layers, where
    the level `cross` is aligned.
    """

    frame_tokens: Tensor
    query_outputs: Tensor
    mask: Tensor
    crossed: Tensor | None = None


class LevelFeatures(NamedTuple):
    """Features of unit norm: films (B,F,C,E), each frame and layer, and texts (B,E).

    Frames where `real` (B,F) is False are none of the film's. F is 1 where frames are pooled.
    `false` (B,H,E) are of texts that are not true of the films, whatever it be where there is none.
    """

    film: Tensor
    text: Tensor
    real: Tensor
    false: Tensor


class MultiLevelAlignment(nn.Module):
    """A contrastive loss between film and text at each level, with a pair of projections a level.

    Level `low` looks at the frame tokens as they enter cross-attention (`visual_width`), level
    `high` at the Q-Former's query outputs (`query_width`), level `cross` at the query tokens right
    behind the cross-attention of `cross_layers`: their losses are added and divided by the number
    of these layers, those without cross-attention counted too, as MMA's code has it.

    `text_encoder` reads prompt and target as one text, joined by `separator`; None stands for the
    Q-Former's own embeddings (`own_words`: B texts and the most tokens of one → (B,D)).
    With `reduction=film` a film's feature is the mean over its aligned frames; with `frame` there
    is a loss for each frame, and their mean is taken. Without `projection_bias` projections start
    from N(0, 1/E), as CLIP's. `loss` takes logits (N,N) and the equality of texts (N,N), and
    `FalsePairs` where films have false texts, which enter as `hard_negatives` says. `frames`
    says which frames are aligned; the caller gives those alone. With `gather`, negatives come from
    all ranks while training; in evaluation each rank compares its own batch, so that ranks need not
    hold equally many batches.

    Raises:
        ConfigError: if `levels` is empty, names a level twice or an unknown one, or `reduction` is
            unknown.
    """

    def __init__(
        self,
        text_encoder: TextEncoder | None,
        visual_width: int,
        query_width: int,
        *,
        own_words: Callable[[Sequence[str], int | None], Tensor] | None = None,
        levels: Sequence[str] = (LOW, HIGH),
        cross_layers: Sequence[int] = (0, 5, 10),
        embed_dim: int = 256,
        projection_bias: bool = True,
        loss: Callable[..., Tensor] = info_nce,
        hard_negatives: HardNegatives | None = None,
        temperature: Temperature | None = None,
        shared_temperature: bool = True,
        frames: AlignedFrames | None = None,
        reduction: Reduction = "film",
        separator: str = " ",
        max_text_tokens: int | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        widths = {LOW: visual_width, HIGH: query_width, CROSS: query_width}
        self.levels = _checked(levels, known=tuple(widths))
        if reduction not in get_args(Reduction):
            raise ConfigError(f"alignment.reduction is {reduction!r}; choose film or frame")
        self.cross_layers = tuple(cross_layers) if CROSS in self.levels else ()
        self.text_encoder = text_encoder
        self.embed_dim = embed_dim
        text_width = query_width if text_encoder is None else text_encoder.width

        def projections(widths: Mapping[str, int]) -> nn.ModuleDict:
            return nn.ModuleDict(
                {
                    level: _projection(widths[level], embed_dim, projection_bias)
                    for level in self.levels
                }
            )

        self.video_projections = projections(widths)
        self.text_projections = projections(dict.fromkeys(widths, text_width))
        self.loss = loss
        self.hard_negatives = HardNegatives() if hard_negatives is None else hard_negatives
        temperature = Temperature() if temperature is None else temperature
        if shared_temperature:
            self.temperature = temperature
        else:
            self.temperatures = nn.ModuleDict(
                {level: deepcopy(temperature) for level in self.levels}
            )
        self.frames: AlignedFrames = FirstK() if frames is None else frames
        self.reduction = reduction
        self.separator = separator
        self.max_text_tokens = max_text_tokens
        self.gather = gather
        self._own_words = own_words

    @property
    def aligned_width(self) -> int | None:
        """The width of `film_feature`, None where query outputs are not aligned."""
        return self.embed_dim if HIGH in self.levels else None

    def film_feature(self, query_outputs: Tensor) -> Tensor:
        """The feature (B,E) of unit norm that level `high` draws towards the text of a film.

        Takes the query outputs (B,K,D) after its last frame; the weights are the level's own.
        """
        return _unit(self.video_projections[HIGH](mean_of(query_outputs)))

    def texts(self, prompts: Sequence[str], targets: Sequence[str]) -> list[str]:
        """What films are aligned with: prompt and target joined (MMA, section 3.2)."""
        pairs = zip(prompts, targets, strict=True)
        return [f"{prompt}{self.separator}{target}" for prompt, target in pairs]

    def false_texts(self, said: Sequence[Sequence[tuple[str, str]]]) -> FalseRows:
        """Prompts and targets that are not true of films, a row a film, joined as `texts`."""
        return padded([[f"{a}{self.separator}{b}" for a, b in row] for row in said])

    def forward(
        self, aligned: Aligned, texts: Sequence[str], false: FalseRows = ()
    ) -> dict[str, Tensor]:
        """The loss of each level, a scalar, for B films, their B texts and their false texts."""
        return self.compare(self.features(aligned, texts, false), texts, false)

    def compare(
        self, features: Mapping[str, LevelFeatures], texts: Sequence[str], false: FalseRows = ()
    ) -> dict[str, Tensor]:
        """The loss of each level from what `features` gives for B films and their texts."""
        first = next(iter(features.values()))
        keys = TextKeys.of(texts, false, first.text.device)
        if self.gather and self.training:
            rows = RankRows.exchange(len(texts), keys.own.device, first.false.shape[1])
            features = _gathered(features, rows)
            keys = keys.gathered(rows)
        frames = self._rows_of_frames(next(iter(features.values())).real)
        # Autocast would round similarities, and with them their order, to 8 bits.
        with torch.autocast(keys.own.device.type, enabled=False):
            return {
                level: self._loss(level, features[level], keys, frames) for level in self.levels
            }

    def _rows_of_frames(self, real: Tensor) -> dict[int, Rows]:
        """The rows of each frame that any film has, by `real` (N,F); pooled frames are all films'.

        One wait for the device, where there is a loss for each frame.
        """
        if self.reduction == "film":
            return {0: slice(None)}
        frames: dict[int, Rows] = {}
        for f, of_frame in enumerate(real.mT.tolist()):
            rows = [row for row, is_real in enumerate(of_frame) if is_real]
            if rows:
                frames[f] = slice(None) if len(rows) == len(of_frame) else rows
        return frames

    def _loss(
        self, level: str, features: LevelFeatures, keys: TextKeys, frames: Mapping[int, Rows]
    ) -> Tensor:
        """The loss of one level: of its frames, each with its rows, and of its layers."""
        film, text, _, false = features
        scale = self._temperature(level)()
        divisor = len(self.cross_layers) + 1e-8 if level == CROSS else 1
        losses = []
        for f, rows in frames.items():
            of_rows = keys.rows(rows)
            same = of_rows.equal
            for c in range(film.shape[2]):
                logits = film[rows, f, c] @ text[rows].mT * scale
                wrong = self.hard_negatives.pairs(film[rows, f, c], false[rows], of_rows, scale)
                losses.append(
                    self.loss(logits, same, **({} if wrong is None else {"false": wrong}))
                )
        return torch.stack(losses).sum() / (len(frames) * divisor)

    def _temperature(self, level: str) -> nn.Module:
        return self.temperature if hasattr(self, "temperature") else self.temperatures[level]

    def features(
        self, aligned: Aligned, texts: Sequence[str], false: FalseRows = ()
    ) -> dict[str, LevelFeatures]:
        """Level → features of the films and of the texts.

        A film's feature is the projected mean over the tokens of its aligned real frames, or of one
        of them.
        """
        sources = {LOW: aligned.frame_tokens[:, :, None], HIGH: aligned.query_outputs[:, :, None]}
        if aligned.crossed is not None:
            sources[CROSS] = aligned.crossed
        sentence, wrong = with_false(self._sentences, texts, false)
        found = {}
        for level in self.levels:
            tokens, real = mean_of(sources[level]), aligned.mask
            if self.reduction == "film":
                tokens, real = pool(tokens, real)[:, None], real.any(dim=1, keepdim=True)
            of_text = self.text_projections[level]
            text = _unit(of_text(sentence))
            found[level] = LevelFeatures(
                _unit(self.video_projections[level](tokens)),
                text,
                real,
                _unit(of_text(wrong)) if wrong.shape[1] else text[:, None, :][:, :0],
            )
        return found

    def _sentences(self, texts: Sequence[str]) -> Tensor:
        if self.text_encoder is not None:
            return self.text_encoder(texts)
        if self._own_words is None:
            raise ConfigError(
                "alignment.text_encoder is null, which stands for the Q-Former's own embeddings, "
                "and there is no Q-Former; give a text encoder"
            )
        return self._own_words(texts, self.max_text_tokens)


def of_films(features: Mapping[str, LevelFeatures]) -> dict[str, tuple[Tensor, Tensor]]:
    """Level → one feature a film and a text, both (B,E) of unit norm, for retrieval.

    Where a film has several, for its frames and layers, their mean is taken.
    """
    found = {}
    for level, (film, text, real, _) in features.items():
        whole = film[:, 0, 0]
        if film.shape[1:3] != (1, 1):
            whole = _unit(pool(film.mean(dim=2), real))
        found[level] = whole, text
    return found


def pool(frames: Tensor, frame_mask: Tensor) -> Tensor:
    """The mean of frames (B,F,…) over those where the mask (B,F) is True: (B,…)."""
    mask = frame_mask.view(*frame_mask.shape, *[1] * (frames.ndim - 2))
    kept = frames.masked_fill(~mask, 0)  # padding may hold anything, even nan
    return kept.sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def mean_of(tokens: Tensor) -> Tensor:
    """The mean over tokens (…,N,D), in single precision or better: (…,D)."""
    return tokens.mean(dim=-2, dtype=torch.promote_types(tokens.dtype, torch.float32))


def _unit(features: Tensor) -> Tensor:
    """Features divided by their L2 norm, in single precision or better."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def _projection(width: int, embed_dim: int, bias: bool) -> nn.Linear:
    projection = nn.Linear(width, embed_dim, bias=bias)
    if not bias:
        nn.init.normal_(projection.weight, std=embed_dim**-0.5)
    return projection


def _gathered(features: Mapping[str, LevelFeatures], rows: RankRows) -> dict[str, LevelFeatures]:
    """The features of all ranks' rows, all levels in one message."""
    shapes = [part.film.shape[1:3] for part in features.values()]
    flat = [
        torch.cat([p.film.flatten(1, 2), p.text[:, None], _widened(p.false, rows.columns)], dim=1)
        for p in features.values()
    ]
    gathered = rows.gather(torch.cat(flat, dim=1)).split([p.shape[1] for p in flat], dim=1)
    masks = rows.gather(torch.cat([part.real for part in features.values()], dim=1).byte())
    reals = masks.bool().split([frames for frames, _ in shapes], dim=1)
    found = {}
    for level, part, shape, real in zip(features, gathered, shapes, reals, strict=True):
        film, text, false = part.split([shape.numel(), 1, rows.columns], dim=1)
        found[level] = LevelFeatures(film.unflatten(1, shape), text[:, 0], real, false)
    return found


def _widened(false: Tensor, columns: int) -> Tensor:
    """False texts (B,H,E), padded to so many columns."""
    return F.pad(false, (0, 0, 0, columns - false.shape[1]))


def _checked(levels: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(levels)
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ConfigError(
            f"alignment.levels is {list(names)}; name one or more of {list(known)}, each once"
        )
    return names
