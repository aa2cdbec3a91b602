"""Samples → the batch that data and models share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmavlm.core.batch import VideoTextBatch
from mmavlm.data.dataset import BrokenItem, Sample


def collate(samples: Sequence[Sample | BrokenItem]) -> VideoTextBatch:
    """Samples → a batch of frames or of features, padded to the longest.

    Broken items are named, not replaced. If all are broken the batch has no rows.
    """
    whole = [sample for sample in samples if isinstance(sample, Sample)]
    broken = [sample for sample in samples if isinstance(sample, BrokenItem)]
    longest = max((len(sample.frames) for sample in whole), default=1)
    blank = whole[0].frames if whole else broken[0].blank
    visual = blank.new_zeros(len(whole), longest, *blank.shape[1:])
    timestamps_s = torch.zeros(len(whole), longest)
    mask = torch.zeros(len(whole), longest, dtype=torch.bool)
    for row, sample in enumerate(whole):
        length = len(sample.frames)
        visual[row, :length] = sample.frames
        timestamps_s[row, :length] = sample.timestamps_s
        mask[row, :length] = True
    items = [sample.item for sample in whole]
    options = [item.options for item in items]
    labels = [-1 if item.label is None else item.label for item in items]
    return VideoTextBatch(
        frames=None if visual.is_floating_point() else visual,
        features=visual if visual.is_floating_point() else None,
        frame_mask=mask,
        timestamps_s=timestamps_s,
        prompt=[item.prompt for item in items],
        target=[item.target for item in items],
        video_id=[item.video_id for item in items],
        item_id=[item.item_id for item in items],
        task=[item.task for item in items],
        references=[item.references or (item.target,) for item in items],
        options=options if any(options) else None,
        label=torch.tensor(labels, dtype=torch.int64),
        broken=tuple(f"{sample.item.video_id}: {sample.reason}" for sample in broken),
    )
