"""Samples → the batch that data and models share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor

from mmavlm.core.batch import Batch, FalseTexts
from mmavlm.core.errors import ConfigError
from mmavlm.core.items import Item
from mmavlm.data.answered import Answered
from mmavlm.data.dataset import BrokenItem, Film, Sample


def collate(samples: Sequence[Sample | BrokenItem | Answered]) -> Batch:
    """Samples → a batch of frames or of features, a row for each film, padded to the longest.

    Films of twins come last.
    Broken items are named, not replaced, and those answered before left out. If all are, the batch
    has no rows.
    """
    whole = [sample for sample in samples if isinstance(sample, Sample)]
    broken = [sample for sample in samples if isinstance(sample, BrokenItem)]
    films = [film for sample in whole for film in sample.films]
    twins = [film for sample in whole for film in sample.twins or ()]
    visual, mask, timestamps_s = _padded([*films, *twins])
    cached = visual is not None and visual.is_floating_point()
    sounds = [clips for sample in whole for clips in sample.sounds]
    heard = torch.stack([clips for clips, _, _ in sounds]) if sounds else None
    tokens = heard is not None and heard.ndim == 4  # of the feature cache
    items = [sample.item for sample in whole]
    options = [item.options for item in items]
    labels = [-1 if item.label is None else item.label for item in items]
    return Batch(
        conversations=[item.conversation for item in items],
        media_rows=_media_rows(items),
        frames=None if cached else visual,
        features=visual if cached else None,
        frame_mask=mask,
        timestamps_s=timestamps_s,
        clips=None if tokens else heard,
        clip_features=heard if tokens else None,
        clip_mask=torch.stack([mask for _, _, mask in sounds]) if sounds else None,
        item_id=[item.item_id for item in items],
        task=[item.task for item in items],
        references=[item.references or (item.target,) for item in items],
        options=options if any(options) else None,
        false_texts=_false_texts(whole),
        twin_rows=_twin_rows(whole, len(films)),
        label=torch.tensor(labels, dtype=torch.int64),
        broken=tuple(f"{sample.video_id}: {sample.reason}" for sample in broken),
    )


def _false_texts(samples: Sequence[Sample]) -> list[tuple[FalseTexts, ...]] | None:
    """What is not true of each view; None where no sample was looked at for it."""
    if all(sample.false_texts is None for sample in samples):
        return None
    nothing: FalseTexts = ()
    return [
        sample.false_texts or (nothing,) * len(sample.item.conversation.views) for sample in samples
    ]


def _twin_rows(samples: Sequence[Sample], films: int) -> list[int | None] | None:
    """In which row each sample's twin is, behind so many films; None where none are looked for."""
    if all(sample.twins is None for sample in samples):
        return None
    rows = count(films)
    return [next(rows) if sample.twins else None for sample in samples]


def _media_rows(items: Sequence[Item]) -> list[tuple[int, ...]]:
    """In which row of the films, or of the sounds, each medium of the items is."""
    rows = {False: count(), True: count()}
    return [
        tuple(next(rows[medium.is_sound]) for medium in item.conversation.media) for item in items
    ]


def _padded(films: Sequence[Film]) -> tuple[Tensor | None, Tensor, Tensor]:
    """Frames, mask (M,T) and times (M,T) of films; no frames where there is no film."""
    longest = max((len(film.frames) for film in films), default=0)
    timestamps_s = torch.zeros(len(films), longest)
    mask = torch.zeros(len(films), longest, dtype=torch.bool)
    if not films:
        return None, mask, timestamps_s
    first = films[0].frames
    kinds = {(film.frames.dtype, film.frames.shape[1:]) for film in films}
    if len(kinds) > 1:
        told = " and ".join(sorted(f"{dtype} {tuple(shape)}" for dtype, shape in kinds))
        raise ConfigError(
            f"films of a batch have frames of {told}; where some are features and others pictures, "
            "set data.cache, so that all are features of one encoder"
        )
    visual = first.new_zeros(len(films), longest, *first.shape[1:])
    for row, (frames, times_s) in enumerate(films):
        visual[row, : len(frames)] = frames
        timestamps_s[row, : len(frames)] = times_s
        mask[row, : len(frames)] = True
    return visual, mask, timestamps_s
