"""Items → samples: what they show, which frames of it, decoded and transformed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from mmavlm.core.batch import FalseTexts
from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.streams import is_streamed, streamed
from mmavlm.data.feature_cache import CachedFilms
from mmavlm.data.film_entries import choice
from mmavlm.data.films import Films, FilmsOnDisk
from mmavlm.data.items import refuse_sounds
from mmavlm.data.order import Lengths
from mmavlm.data.probe_index import ProbeIndex
from mmavlm.data.sampling import StretchError, frame_times
from mmavlm.data.sound import Clips, ClipSettings, SoundSource
from mmavlm.data.sound_entries import CachedSounds
from mmavlm.data.sources import FrameSource
from mmavlm.data.subtitles import Subtitle, subtitles_of, with_lines
from mmavlm.data.transforms import ClipTransform

if TYPE_CHECKING:
    from mmavlm.data.false_texts import FalseTextsOf


class Film(NamedTuple):
    """What is shown of a film or picture, and when: frames, and their times (T,) in seconds.

    Frames are uint8 (T,3,S,S), or, from the feature cache, frame tokens float16 (T,P,Dv).
    """

    frames: Tensor
    timestamps_s: Tensor


@dataclass(frozen=True)
class Sample:
    """One item with its films and its sounds, each in the order of its conversation's media.

    `false_texts` are not true of it, some for each view; None where none are made. Of `twins`, at
    most one film, its answer is not true; None where none are looked for.
    """

    item: Item
    films: tuple[Film, ...]
    sounds: tuple[Clips, ...] = ()
    false_texts: tuple[FalseTexts, ...] | None = None
    twins: tuple[Film, ...] | None = None

    def timed(self, said: Sequence[Sequence[Subtitle]]) -> Sample:
        """The same with frames in its streams, and what is `said` in each medium between frames.

        Raises:
            StretchError: if a stream has no frame, since nothing is shown before what is said.
        """
        talk, films = self.item.conversation, iter(self.films)
        if not any(said) and not is_streamed(talk):
            return self
        times_s = [() if m.is_sound else next(films).timestamps_s.tolist() for m in talk.media]
        try:
            talk = with_lines(streamed(talk, times_s), said, times_s)
        except DataError as error:
            raise StretchError(f"its streams cannot be shown: {error}") from None
        return replace(self, item=replace(self.item, conversation=talk))


@dataclass(frozen=True)
class BrokenItem:
    """An item of which one medium, by its number, could not be read, and why."""

    item: Item
    medium: int
    reason: str

    @property
    def video_id(self) -> str:
        """The name of what is broken."""
        return self.item.conversation.media[self.medium].medium_id


class VideoDataset(Dataset[Sample | BrokenItem]):
    """The items of a split. In training frames are drawn at random, cropped and flipped.

    With `keep_frames` what was decoded once stays in memory, for sets that fit there: whole
    pictures at the times evaluation takes, still mirrored at random in training. With `features`
    nothing is decoded: frames are those of the feature cache, at the times evaluation takes; with
    `sounds` the same holds for clips. `sample_fps` takes so many frames a second and `num_frames`
    at most, else these are taken of all of a film (`frame_times`). What is said in a film stands
    between its frames (`subtitles`: see `subtitles_of`). `false_texts` says what is not true of
    an item, and `twins`, by the index of an item, which film its answer is not true of; that one
    is cropped and mirrored as the item's own. `films` says where films lie, on a disk if not given.

    Raises:
        ConfigError: if training is to draw crops or mirror images of what is kept or cached.
        DataError: naming an item that lets a sound be heard.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        num_frames: int,
        image_size: int,
        frame_fps: float = 10.0,
        sample_fps: float | None = None,
        train: bool = False,
        crop: bool = True,
        flip: bool = True,
        keep_frames: bool = False,
        features: CachedFilms | None = None,
        sounds: CachedSounds | None = None,
        index: ProbeIndex | None = None,
        decode_threads: int | None = None,
        seed: int = 42,
        clips: ClipSettings | None = None,
        subtitles: bool | None = None,
        false_texts: FalseTextsOf | None = None,
        twins: Mapping[int, Medium] | None = None,
        films: Films | None = None,
    ) -> None:
        if train:
            refuse_augmentation(
                crop=crop, flip=flip, keep_frames=keep_frames, cached=features is not None
            )
        self.items = items
        if clips is None:
            refuse_sounds(self.items)
        self.clips = clips
        self.subtitles = subtitles
        self.false_texts = false_texts
        self.twins = twins
        self.films: Films = films or FilmsOnDisk()
        self.num_frames = num_frames
        self.image_size = image_size
        self.frame_fps = frame_fps
        self.sample_fps = sample_fps
        self.train = train
        self.crop = crop
        self.flip = flip
        self.keep_frames = keep_frames
        self.features = features
        self.sounds = sounds
        self.index = index
        self.decode_threads = decode_threads
        self.seed = seed
        self.kept: dict[tuple[object, ...], Film] = {}
        self.kept_clips: dict[tuple[Path, float, float | None], Clips] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: int | tuple[int, int]) -> Sample | BrokenItem:
        """The item at an index, or at (pass, index): what is drawn for it depends on both."""
        number, index = at if isinstance(at, tuple) else (0, at)
        item = self.items[index]
        rng, films, sounds, said = self._random(number, index), [], [], []
        for at_medium, medium in enumerate(item.conversation.media):
            try:
                with self.films.lent(medium):
                    if medium.is_sound:
                        sounds.append(self._clips(medium))
                    else:
                        films.append(self._film(medium, rng))
                    said.append(subtitles_of(medium, self.subtitles))
            except VideoError as error:
                return _broken(item, at_medium, error)
        try:
            sample = Sample(item, tuple(films), tuple(sounds)).timed(said)
        except StretchError as error:
            return _broken(item, 0, error)
        if self.twins is not None:
            twins = [self.twins[index]] if index in self.twins else []
            try:
                found = [self._lent_film(twin, self._random(number, index)) for twin in twins]
            except VideoError as error:
                return BrokenItem(item, 0, f"its twin: {error}")
            sample = replace(sample, twins=tuple(found))
        if self.false_texts is None:
            return sample
        return replace(sample, false_texts=self.false_texts(sample.item))

    def _random(self, number: int, index: int) -> np.random.Generator | None:
        """What draws the frames and crops of an item in a pass of training."""
        return np.random.default_rng((self.seed, number, index)) if self.train else None

    def source(self, index: int) -> str:
        """The files or folders that an item is read from, or its name where it shows nothing."""
        item = self.items[index]
        return ", ".join(str(medium.source) for medium in item.conversation.media) or item.item_id

    def lengths(self) -> Lengths:
        """Frames of its longest film, and words, of each item; films are looked up, not decoded."""
        found = [(self._longest(item), _words(item)) for item in self.items]
        return np.array(found, np.int32).reshape(-1, 2)

    def _longest(self, item: Item) -> int:
        films = [medium for medium in item.conversation.media if not medium.is_sound]
        return max(map(self._num_frames, films), default=0)

    def _num_frames(self, medium: Medium) -> int:
        if medium.grid is not None and self.sample_fps is None:
            return self.num_frames  # a grid repeats frames rather than give fewer
        if not self.films.at_hand:
            return self.num_frames  # all would have to be fetched to know
        try:
            return len(self._times(medium, self._source(medium), None))
        except VideoError:  # told when it is loaded
            return self.num_frames

    def _clips(self, medium: Medium) -> Clips:
        assert self.clips is not None  # else sounds are refused
        stretch = (medium.source, medium.start_s, medium.end_s)
        if stretch in self.kept_clips:
            return self.kept_clips[stretch]
        if self.sounds is not None:
            found = self.sounds.read(medium)
        else:
            rate_hz, clips, clip_s = self.clips
            found = SoundSource(medium.source, rate_hz).clips(clips, clip_s, *stretch[1:])
        if self.keep_frames:
            self.kept_clips[stretch] = found
        return found

    def _lent_film(self, medium: Medium, rng: np.random.Generator | None) -> Film:
        with self.films.lent(medium):
            return self._film(medium, rng)

    def _film(self, medium: Medium, rng: np.random.Generator | None) -> Film:
        if self.features is not None:
            return self._look_up(medium, self.features)
        source = self._source(medium)
        return self._read(source, self._times(medium, source, rng), rng)

    def _times(
        self, medium: Medium, source: FrameSource, rng: np.random.Generator | None
    ) -> list[float]:
        rng = None if self.keep_frames else rng
        return frame_times(medium, source, self.num_frames, rng, self.sample_fps)

    def _look_up(self, medium: Medium, features: CachedFilms) -> Film:
        if not self.keep_frames:
            return Film(*features.read(medium))
        key = (medium.medium_id, medium.source, *choice(medium))
        if key not in self.kept:
            self.kept[key] = Film(*features.read(medium))
        return self.kept[key]

    def _source(self, medium: Medium) -> FrameSource:
        return FrameSource.of(medium, self.frame_fps, index=self.index, threads=self.decode_threads)

    def _read(
        self, source: FrameSource, times_s: Sequence[float], rng: np.random.Generator | None
    ) -> Film:
        transform = ClipTransform(self.image_size, rng, crop=self.crop, flip=self.flip)
        if not self.keep_frames:
            return Film(*source.read(times_s, transform))
        key = (source.path, *times_s)
        if key not in self.kept:
            self.kept[key] = Film(*source.read(times_s, ClipTransform(self.image_size, None)))
        frames, timestamps_s = self.kept[key]
        return Film(frames.flip(-1) if transform.mirror else frames, timestamps_s)


def _broken(item: Item, at_medium: int, error: VideoError) -> BrokenItem:
    named = f"item {item.item_id!r}: {error}" if isinstance(error, StretchError) else str(error)
    return BrokenItem(item, at_medium, named)


def _words(item: Item) -> int:
    return sum(len(turn.text.split()) for turn in item.conversation.turns)


def refuse_augmentation(*, crop: bool, flip: bool, keep_frames: bool, cached: bool) -> None:
    """Refuse what a training run draws anew each epoch of pictures that are there once and for all.

    Raises:
        ConfigError: naming what excludes each other.
    """
    if cached and (crop or flip):
        raise ConfigError(
            "data.cache holds features of whole pictures, so there is nothing to crop or mirror "
            "anew each epoch; set data.crop=false data.flip=false, or data.cache=null"
        )
    if keep_frames and crop:
        raise ConfigError(
            "data.keep_frames=true keeps whole pictures, so there is nothing to crop anew each "
            "epoch; set data.crop=false, or data.keep_frames=false"
        )
