"""The one thing data and models share: a batch of videos with their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from mmavlm.core.options import Options


@dataclass(frozen=True, kw_only=True)
class VideoTextBatch:
    """A batch of B videos of at most T frames, with one prompt and one target each.

    Exactly one of `frames` and `features` is given. Rows with fewer than T frames are padded at
    the end; `frame_mask` is True on real frames. `broken` names the items that could not be read
    and are therefore missing from the rows. `references` are all texts that count as right for a
    row; None stands for its target alone. `options` are what a row's question brings to choose
    from; None stands for rows of which none does.

    Raises:
        ValueError: if shapes, dtypes or list lengths disagree.
    """

    frames: Tensor | None = None  # uint8 (B, T, 3, H, W)
    features: Tensor | None = None  # (B, T, P, Dv), frozen encoder outputs
    frame_mask: Tensor  # bool (B, T)
    timestamps_s: Tensor  # float32 (B, T), 0 on padding
    prompt: list[str]
    target: list[str]
    video_id: list[str]
    item_id: list[str]
    task: list[str]
    references: list[tuple[str, ...]] | None = None
    options: list[Options | None] | None = None
    label: Tensor | None = None  # int64 (B,), -1 where the target is no known class
    broken: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.frames is None) == (self.features is None):
            raise ValueError("VideoTextBatch: give exactly one of frames and features")
        if self.frames is not None and (
            self.frames.dtype != torch.uint8 or self.frames.ndim != 5 or self.frames.shape[2] != 3
        ):
            raise ValueError(
                "VideoTextBatch: frames must be uint8 (B,T,3,H,W), "
                f"got {self.frames.dtype} {tuple(self.frames.shape)}"
            )
        if self.features is not None and self.features.ndim != 4:
            raise ValueError(
                f"VideoTextBatch: features must be (B,T,P,Dv), got {tuple(self.features.shape)}"
            )
        visual = self.frames if self.frames is not None else self.features
        assert visual is not None
        leading = tuple(visual.shape[:2])
        for name in ("frame_mask", "timestamps_s"):
            shape = tuple(getattr(self, name).shape)
            if shape != leading:
                raise ValueError(f"VideoTextBatch: {name} must be (B,T)={leading}, got {shape}")
        if self.frame_mask.dtype != torch.bool:
            raise ValueError(
                f"VideoTextBatch: frame_mask must be bool, got {self.frame_mask.dtype}"
            )
        for name in ("prompt", "target", "video_id", "item_id", "task", "references", "options"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != leading[0]:
                raise ValueError(
                    f"VideoTextBatch: {name} must have B={leading[0]} entries, got {len(entries)}"
                )
        if self.label is not None and tuple(self.label.shape) != leading[:1]:
            raise ValueError(
                f"VideoTextBatch: label must be (B,)={leading[:1]}, got {tuple(self.label.shape)}"
            )

    def __len__(self) -> int:
        return len(self.item_id)

    def rows(self, which: slice | Sequence[int]) -> VideoTextBatch:
        """Some of the rows as a batch of their own, padded as they are here."""
        numbers = range(len(self))[which] if isinstance(which, slice) else which
        parts: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                parts[field.name] = value[which]
            elif isinstance(value, list):
                parts[field.name] = [value[i] for i in numbers]
        return replace(self, **parts, broken=())

    def _map(self, move: Any) -> VideoTextBatch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: move(v) for k, v in tensors.items() if isinstance(v, Tensor)})

    def to(self, *args: Any, **kwargs: Any) -> VideoTextBatch:
        """The same batch with every tensor moved as `Tensor.to` would."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> VideoTextBatch:
        """The same batch in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())
