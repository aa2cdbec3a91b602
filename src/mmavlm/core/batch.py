"""The one thing data and models share: conversations, and the media they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmavlm.core.conversation import Conversation
from mmavlm.core.medium import Medium
from mmavlm.core.options import Options

FalseTexts = tuple[tuple[str, str], ...]  # guides and replies that are not true of a view


class Views(NamedTuple):
    """V views: the row of the film or sound that each is of, its guide, the reply to the guide."""

    films: list[int]
    guides: list[str]
    replies: list[str]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """C conversations about M films of at most T frames, and about A sounds of S clips.

    Of `frames` and `features` at most one is given; neither where nothing is shown. The same holds
    for `clips` and `clip_features`, where nothing is heard. Films with
    fewer than T frames are padded at the end; `frame_mask` is True on real frames. `media_rows`
    says for each conversation in which rows of these its media lie. `broken` names the items that
    could not be read and are therefore missing. `references` are all texts that count as right for
    a conversation; None stands for its target alone. `options` are what a question brings to
    choose from; None stands for conversations of which none does. `twin_rows` are the rows of
    films of which a conversation's answer is not true, None where it has none; they are encoded
    with the others and shown to nobody.

    Raises:
        ValueError: if shapes, dtypes or list lengths disagree, or a conversation shows a film that
            is not there.
    """

    conversations: list[Conversation]
    media_rows: list[tuple[int, ...]]
    frames: Tensor | None = None  # uint8 (M,T,3,H,W)
    features: Tensor | None = None  # (M,T,P,Dv), frozen encoder outputs
    frame_mask: Tensor  # bool (M,T)
    timestamps_s: Tensor  # float32 (M,T), 0 on padding
    clips: Tensor | None = None  # float32 (A,S,N), samples from −1 to 1
    clip_features: Tensor | None = None  # (A,S,P,Da), frozen encoder outputs
    clip_mask: Tensor | None = None  # bool (A,S), real clips first; none of a film without sound
    item_id: list[str]
    task: list[str]
    references: list[tuple[str, ...]] | None = None
    options: list[Options | None] | None = None
    false_texts: list[tuple[FalseTexts, ...]] | None = None
    twin_rows: list[int | None] | None = None
    label: Tensor | None = None  # int64 (C,), -1 where the target is no known class
    broken: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        leading = self._check_films()
        for name in ("frame_mask", "timestamps_s"):
            shape = tuple(getattr(self, name).shape)
            if shape != leading:
                raise ValueError(f"Batch: {name} must be (M,T)={leading}, got {shape}")
        if self.frame_mask.dtype != torch.bool:
            raise ValueError(f"Batch: frame_mask must be bool, got {self.frame_mask.dtype}")
        for name in (
            "conversations",
            "media_rows",
            "task",
            "references",
            "options",
            "false_texts",
            "twin_rows",
        ):
            entries = getattr(self, name)
            if entries is not None and len(entries) != len(self):
                raise ValueError(
                    f"Batch: {name} must have C={len(self)} entries, got {len(entries)}"
                )
        if self.label is not None and tuple(self.label.shape) != (len(self),):
            raise ValueError(
                f"Batch: label must be (C,)={(len(self),)}, got {tuple(self.label.shape)}"
            )
        self._check_false_texts()
        films, sounds = leading[0], self._check_clips()
        if beyond := [n for n in self.twin_rows or () if n is not None and not 0 <= n < films]:
            raise ValueError(f"Batch: twin_rows name row {beyond[0]} of {films} films")
        for talk, rows in zip(self.conversations, self.media_rows, strict=True):
            there = [sounds if medium.is_sound else films for medium in talk.media]
            if len(rows) != len(there) or not all(map(range.__contains__, map(range, there), rows)):
                raise ValueError(
                    f"Batch: a conversation about {len(there)} media has them in the rows {rows} "
                    f"of {films} films and {sounds} sounds"
                )

    def _check_false_texts(self) -> None:
        for talk, false in zip(self.conversations, self.false_texts or (), strict=False):
            if len(false) != len(talk.views):
                raise ValueError(
                    f"Batch: false_texts of a conversation with {len(talk.views)} views must have "
                    f"an entry for each, got {len(false)}"
                )

    def _check_clips(self) -> int:
        """How many sounds there are."""
        if self.clips is not None and self.clip_features is not None:
            raise ValueError("Batch: give at most one of clips and clip_features")
        for name, axes in (("clips", "ASN"), ("clip_features", "ASPD")):
            sounds = getattr(self, name)
            if sounds is None or self.clip_mask is None:
                continue
            if sounds.ndim != len(axes) or self.clip_mask.shape != sounds.shape[:2]:
                raise ValueError(
                    f"Batch: {name} must be ({','.join(axes)}) and clip_mask (A,S), got "
                    f"{tuple(sounds.shape)} and {tuple(self.clip_mask.shape)}"
                )
            return len(sounds)
        return 0

    def _check_films(self) -> tuple[int, int]:
        """M and T of the films."""
        if self.frames is not None and self.features is not None:
            raise ValueError("Batch: give at most one of frames and features")
        if self.frames is not None and (
            self.frames.dtype != torch.uint8 or self.frames.ndim != 5 or self.frames.shape[2] != 3
        ):
            raise ValueError(
                "Batch: frames must be uint8 (M,T,3,H,W), "
                f"got {self.frames.dtype} {tuple(self.frames.shape)}"
            )
        if self.features is not None and self.features.ndim != 4:
            raise ValueError(
                f"Batch: features must be (M,T,P,Dv), got {tuple(self.features.shape)}"
            )
        visual = self.frames if self.frames is not None else self.features
        return (0, 0) if visual is None else (visual.shape[0], visual.shape[1])

    @classmethod
    def questions(
        cls, *, prompt: Sequence[str], target: Sequence[str], video_id: Sequence[str], **rest: Any
    ) -> Batch:
        """A question about each of as many films, which need not lie in files; see `Batch`."""
        asked = zip(prompt, target, video_id, strict=True)
        talks = [
            Conversation.question(Medium(medium_id=name, source=Path(name)), text, answer)
            for text, answer, name in asked
        ]
        return cls(conversations=talks, media_rows=[(row,) for row in range(len(talks))], **rest)

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def prompt(self) -> list[str]:
        """What each conversation asks last."""
        return [talk.prompt for talk in self.conversations]

    @property
    def target(self) -> list[str]:
        """The last answer of each conversation, "" where it has none."""
        return [talk.target for talk in self.conversations]

    @property
    def video_id(self) -> list[str]:
        """The name of what each conversation shows first, or of its item where nothing is shown."""
        named = zip(self.conversations, self.item_id, strict=True)
        return [talk.media[0].medium_id if talk.media else item_id for talk, item_id in named]

    @cached_property
    def views(self) -> Views:
        """The films that are shown, in the order in which the LLM comes to them."""
        return self._views(sounds=False)

    @cached_property
    def heard(self) -> Views:
        """The sounds that are heard, in the order in which the LLM comes to them."""
        return self._views(sounds=True)

    @property
    def false_of_views(self) -> list[FalseTexts]:
        """What is not true of each of `views`."""
        if self.false_texts is None:
            return [()] * len(self.views.films)
        return [
            false
            for talk, of_views in zip(self.conversations, self.false_texts, strict=True)
            for view, false in zip(talk.views, of_views, strict=True)
            if not talk.media[view.medium].is_sound
        ]

    @property
    def is_heard(self) -> list[bool]:
        """Of all views in the order in which the LLM comes to them, which are of sounds."""
        return [
            talk.media[view.medium].is_sound for talk in self.conversations for view in talk.views
        ]

    def _views(self, *, sounds: bool) -> Views:
        seen = [
            (rows[view.medium], view.guide, view.reply)
            for talk, rows in zip(self.conversations, self.media_rows, strict=True)
            for view in talk.views
            if talk.media[view.medium].is_sound == sounds
        ]
        return Views(
            [film for film, _, _ in seen],
            [guide for _, guide, _ in seen],
            [reply for _, _, reply in seen],
        )

    def films_of(self, row: int) -> list[int]:
        """The rows of the films among the media of a conversation."""
        media = zip(self.conversations[row].media, self.media_rows[row], strict=True)
        return [place for medium, place in media if not medium.is_sound]

    def pictures_of(self, row: int, most: int) -> list[NDArray[np.uint8]]:
        """At most so many frames (H,W,3) of a conversation's first film, spread over the real ones.

        There are none where no film is shown, and where features stand for its frames.
        """
        films = self.films_of(row)
        if self.frames is None or not films:
            return []
        real = self.frames[films[0]][self.frame_mask[films[0]]]
        chosen = torch.linspace(0, len(real) - 1, min(most, len(real))).round().long()
        return list(real[chosen.to(real.device)].permute(0, 2, 3, 1).cpu().numpy())

    def film_of(self, row: int) -> int | None:
        """The row of the film that a conversation shows, None unless it shows that alone, once."""
        films = self.films_of(row)
        return films[0] if films and len(self.conversations[row].views) == 1 else None

    def rows(self, which: slice | Sequence[int]) -> Batch:
        """Some of the conversations, with what they show alone, padded as it is here."""
        numbers = range(len(self))[which] if isinstance(which, slice) else which
        places = [
            (medium.is_sound, row)
            for number in numbers
            for medium, row in zip(
                self.conversations[number].media, self.media_rows[number], strict=True
            )
        ]
        twins = [self.twin_rows[number] for number in numbers] if self.twin_rows else []
        beside = [(False, row) for row in twins if row is not None]
        films, sounds = (
            list(dict.fromkeys(row for sound, row in (*places, *beside) if sound == kind))
            for kind in (False, True)
        )
        of_sounds = dict.fromkeys(("clips", "clip_features", "clip_mask"), sounds)
        kept = {"label": list(numbers), **of_sounds}
        parts: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                parts[field.name] = value[kept.get(field.name, films)]
            elif isinstance(value, list):
                parts[field.name] = [value[i] for i in numbers]
        moved = iter([(sounds if sound else films).index(row) for sound, row in places])
        parts["media_rows"] = [tuple(islice(moved, len(rows))) for rows in parts["media_rows"]]
        if self.twin_rows is not None:
            parts["twin_rows"] = [None if row is None else films.index(row) for row in twins]
        return replace(self, **parts, broken=())

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: move(v) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """The same batch with every tensor moved as `Tensor.to` would."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())
