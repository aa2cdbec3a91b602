"""Views to decode against: films left out, noised, shuffled or thinned out.

Shapes: M films, T frames. What is made of a film depends on it and on the settings alone, so that
it is the same in every batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmavlm.core.batch import Batch
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.settings import whole_at_least
from mmavlm.core.turns import Shown

DIFFUSION_STEPS = 1000


@dataclass(frozen=True)
class NoFilm:
    """Nothing is shown or heard: what the language model says by itself."""

    reads_features = True

    def __call__(self, batch: Batch) -> Batch:
        """The texts of the conversations alone.

        Raises:
            DataError: naming an item whose question is no text.
        """
        pairs = zip(batch.item_id, batch.conversations, strict=True)
        return replace(
            batch,
            conversations=[_texts_of(name, talk) for name, talk in pairs],
            media_rows=[()] * len(batch),
            frames=None,
            features=None,
            frame_mask=batch.frame_mask[:0, :0],
            timestamps_s=batch.timestamps_s[:0, :0],
            clips=None,
            clip_features=None,
            clip_mask=None,
        )


@dataclass(frozen=True)
class Noise:
    """Frames after `steps` of 1000 steps of diffusion (VCD, arXiv 2311.16922).

    x_t = √ᾱ_t·x + √(1−ᾱ_t)·ε with the variances β of VCD's code, a sigmoid from 1e-5 to 0.005.
    There x is what the encoder reads; here the pixels from −1 to 1, which are clipped and rounded
    again. Noise differs from frame to frame, and depends on `seed`.

    Raises:
        ConfigError: if `steps` is not 1 to 1000.
    """

    steps: int = 500
    seed: int = 0
    reads_features = False

    def __post_init__(self) -> None:
        whole_at_least("contrast.view", 1, steps=self.steps)
        if self.steps > DIFFUSION_STEPS:
            raise ConfigError(
                f"contrast.view.steps={self.steps} must be at most {DIFFUSION_STEPS}, where "
                "nothing but noise is left"
            )

    def __call__(self, batch: Batch) -> Batch:
        """The batch with noised frames.

        Raises:
            ConfigError: if there are cached features in place of frames.
        """
        if batch.features is not None:
            raise ConfigError(
                "contrast=noise needs frames, and these films are cached as features; leave out "
                "data.cache, or choose contrast=no_film, shuffle or thin"
            )
        if batch.frames is None:
            return batch
        kept = alpha_bar()[self.steps - 1].item()
        draws = torch.Generator().manual_seed(self.seed)
        noised = torch.empty_like(batch.frames)
        for at, frame in enumerate(batch.frames.unbind(1)):  # each draws its own, however many
            noise = torch.randn(frame.shape[1:], generator=draws).to(frame.device)
            mixed = kept**0.5 * (frame / 127.5 - 1) + (1 - kept) ** 0.5 * noise
            noised[:, at] = ((mixed + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return replace(batch, frames=noised)


@dataclass(frozen=True)
class Shuffle:
    """The frames of a film in another order, which depends on their number and `seed`."""

    seed: int = 0
    reads_features = True

    def __call__(self, batch: Batch) -> Batch:
        """The batch with shuffled films; frames take each other's times."""
        return _reordered(batch, self._order)

    def _order(self, frames: int) -> Tensor:
        draws = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(frames, generator=draws)
        return order.roll(1) if torch.equal(order, torch.arange(frames)) else order


@dataclass(frozen=True)
class Thin:
    """Every `every`-th frame of a film, standing still until the next one.

    A loss of what happens between, in the spirit of EventHallusion's temporal contrastive decoding
    (arXiv 2409.16597).

    Raises:
        ConfigError: if `every` is below 2.
    """

    every: int = 4
    reads_features = True

    def __post_init__(self) -> None:
        whole_at_least("contrast.view", 2, every=self.every)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with films thinned out."""
        return _reordered(batch, self._order)

    def _order(self, frames: int) -> Tensor:
        places = torch.arange(frames)
        return places - places % self.every


def alpha_bar() -> Tensor:
    """The share ᾱ (1000,) of a frame's variance that is left after each step of diffusion."""
    rise = torch.linspace(-6, 6, DIFFUSION_STEPS, dtype=torch.float64).sigmoid()
    return (1 - (1e-5 + (0.005 - 1e-5) * rise)).cumprod(0)


def _reordered(batch: Batch, order: Callable[[int], Tensor]) -> Batch:
    """The batch with the real frames of each film in the order for so many; padding stays."""
    name = "frames" if batch.frames is not None else "features"
    films = getattr(batch, name)
    if films is None:
        return batch
    places = torch.arange(films.shape[1]).repeat(len(films), 1)
    for row, count in zip(places, batch.frame_mask.sum(1).tolist(), strict=True):
        row[:count] = order(count)
    rows = torch.arange(len(films))[:, None]
    moved = films[rows.to(films.device), places.to(films.device)]
    return replace(batch, **{name: moved})


def _texts_of(item_id: str, talk: Conversation) -> Conversation:
    """A conversation without what it shows."""
    turns = []
    for turn in talk.turns:
        if turn.role == "stream":
            continue
        if all(isinstance(p, Shown) or (isinstance(p, str) and not p.strip()) for p in turn.parts):
            raise DataError(
                f"item {item_id!r} asks with what it shows alone, so that without its film nothing "
                "is asked; give it a prompt, or choose another contrast"
            )
        turns.append(turn.without_media)
    return Conversation(tuple(turns))
