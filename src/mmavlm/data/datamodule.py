"""One datamodule for every set: a reader gives the items, the splits differ by settings alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item, Reader
from mmavlm.core.medium import Medium
from mmavlm.core.settings import above_zero, at_least, shares, whole_at_least
from mmavlm.data.balance import SETTING, Balance, drawn
from mmavlm.data.broken import BrokenBudget
from mmavlm.data.dataset import VideoDataset, refuse_augmentation
from mmavlm.data.feature_cache import CachedFilms, FeatureCache
from mmavlm.data.film_entries import FilmEntry, FilmPlan, Sampling
from mmavlm.data.films import films_of
from mmavlm.data.items import Flag, Indices, asked_once, coded, flagged, present
from mmavlm.data.joined import JoinedItems
from mmavlm.data.kept_items import items_of
from mmavlm.data.loaders import SplitLoaders
from mmavlm.data.looked_at import Seen, files_of, looking, named_below
from mmavlm.data.order import Draw, Lengths
from mmavlm.data.probe_index import ProbeIndex
from mmavlm.data.sound import ClipSettings
from mmavlm.data.sound_entries import CachedSounds, SoundEntry, SoundPlan
from mmavlm.data.subtitles import check_choice
from mmavlm.data.twins import bring_twins, films_of_twins, is_twin, read_twins, twins_share
from mmavlm.data.unknown_classes import tell_unknown

if TYPE_CHECKING:
    from mmavlm.data.false_texts import FalseTextMaker, FalseTextsOf


class VideoDataModule(SplitLoaders):
    """Loaders of `Batch` for the three splits of a set.

    Videos that do not exist are left out and counted as broken, as are those that turn out to be
    unreadable while loading; above a share of `max_broken` of all videos the run stops.
    `sample_fps` takes so many frames a second of a film, `num_frames` at most (`frame_times`).
    `image_size` None is to be set to the encoder's before a loader is asked for. `limit_items`
    takes the first so many items of each split. `repeat` says of a task how often a training epoch
    shows each of its items, once if it does not; 0.5 shows half of them, the others in the next
    epoch. `group_by_length` makes batches of items with alike numbers of frames and words. With
    `cache`, a folder, the batches hold features of that cache, which is to be opened with
    `use_cache`, and for sounds with `use_sound_cache`, before a loader is asked for. With
    `sampling`, such as {equal: [task]}, groups of training items come equally often (`Balance`),
    in an epoch of `epoch_items`, as many as there are if that is None. With `counterfactual` the
    share `counterfactual_share` of these, half by default, is asked of twins of films
    (`read_twins`), and an epoch is as long as without them; with `twin_films` each item brings
    the film of its twin along (`films_of_twins`). With `index`, a folder, the key-frame tables of
    films are kept there from run to run, and items if they are many (`kept_items`). `clips` says
    what is taken of a sound (`ClipSettings`), `subtitles` whether those of films are read
    (`subtitles_of`). `false_texts` makes texts that are not true of training items, which the
    alignment compares films with.

    Raises:
        ConfigError: if the root is missing or a number is out of range.
        DataError: if the annotation cannot be used or too many videos are missing.
    """

    def __init__(
        self,
        reader: Reader,
        root: str | Path,
        *,
        task: str | Sequence[str] | None = None,
        num_frames: int = 100,
        image_size: int | None = None,
        frame_fps: float = 10.0,
        sample_fps: float | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 4,
        timeout_s: float = 600,
        max_broken: float = 0.01,
        crop: bool = True,
        flip: bool = True,
        keep_frames: bool = False,
        cache: str | Path | None = None,
        index: str | Path | None = None,
        decode_threads: int | None = None,
        seed: int = 42,
        limit_items: int | None = None,
        repeat: Mapping[str, float] | None = None,
        epoch_items: int | None = None,
        sampling: Mapping[str, Any] | None = None,
        counterfactual: bool | None = None,
        counterfactual_share: float | None = None,
        twin_films: bool | None = None,
        group_by_length: bool = False,
        clips: Mapping[str, Any] | None = None,
        subtitles: bool | None = None,
        false_texts: FalseTextMaker | None = None,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            timeout_s=timeout_s,
            seed=seed,
            group_by_length=group_by_length,
        )
        self.reader = reader
        self.films = films_of(reader)
        asked = {"data.cache": cache, "data.counterfactual": counterfactual}
        self.root = self.films.folder(root, asked)
        self.task = task if task is None or isinstance(task, str) else list(task)
        self.repeat = shares("data", "repeat", repeat)
        counts = {"num_frames": num_frames, "image_size": image_size, "limit_items": limit_items}
        whole_at_least("data", 1, **counts, decode_threads=decode_threads, epoch_items=epoch_items)
        self.epoch_items = epoch_items
        self.sampling = Balance.given(sampling)
        self.counterfactual = bool(counterfactual)
        self.counterfactual_share = twins_share(counterfactual, counterfactual_share)
        self.twin_films = bring_twins(twin_films, counterfactual)
        at_least("data", 0, max_broken=max_broken)
        above_zero("data", frame_fps=frame_fps, sample_fps=sample_fps)
        self.image_size = image_size
        self.index = None if index is None else Path(index).expanduser()
        self.settings: dict[str, Any] = {
            "num_frames": num_frames,
            "frame_fps": frame_fps,
            "sample_fps": sample_fps,
            "crop": crop,
            "flip": flip,
            "keep_frames": keep_frames,
            "index": None if self.index is None else ProbeIndex(self.index, self.root),
            "decode_threads": decode_threads,
            "clips": None if clips is None else ClipSettings(**clips),
            "subtitles": check_choice(subtitles),
        }
        self.false_texts = false_texts
        self.limit_items = limit_items
        self.broken = BrokenBudget(max_broken)
        self.cache = None if cache is None else Path(cache)
        self._features: FeatureCache | None = None
        self._sound_features: FeatureCache | None = None
        self._items: dict[str, Sequence[Item]] = {}
        self._files: Seen = {}

    def items(self, split: str) -> Sequence[Item]:
        """The items of a split whose videos exist; read once.

        What training is told several ways, evaluation is asked once (see `asked_once`).
        """
        if split not in self._items:
            with looking() as seen:
                items = self._read(split)
            self._files |= files_of(seen)
            if not items:
                raise DataError(
                    f"the {split} split below {self.root} has no items"
                    + (f" of task {self.task}" if self.task else "")
                    + "; `python -m mmavlm.check data=…` shows what is there"
                )
            films, missing, self._items[split] = self.films.there(split, items)
            self.broken.expect(split, films)
            self.broken.add(f"{name}: {missing[name]}" for name in sorted(missing))
            if split != "train":
                tell_unknown(self._items[split], split, lambda: self.classes)
        return self._items[split]

    def _read(self, split: str) -> Sequence[Item]:
        found = items_of(self.reader, self.root, split, self.task, self.index)
        items = (found if split == "train" else asked_once(found))[: self.limit_items]
        if split == "train" and self.counterfactual:
            twins = read_twins(self.root, self.task, present(found).films)
            items = JoinedItems([items, twins[: self.limit_items]])
        return items

    @property
    def annotation_files(self) -> dict[str, Path]:
        """The files that items were read from so far, by their names below the root."""
        return named_below(self.root, sorted(self._files))

    @property
    def classes(self) -> dict[str, list[str]]:
        """Task → class names; tasks with open answers are absent."""
        return self.reader.classes(self.root, self.task)

    def dataset(self, split: str) -> VideoDataset:
        """The dataset of a split; that of training draws and crops at random."""
        if self.image_size is None:
            raise ConfigError("data.image_size is not set and no encoder was asked for its own")
        return VideoDataset(
            self.items(split),
            image_size=self.image_size,
            train=split == "train",
            features=self._cached_films(split),
            sounds=self._cached_sounds(split),
            seed=self.seed,
            false_texts=self._false_texts_of if split == "train" else None,
            twins=self._twins if split == "train" and self.twin_films else None,
            films=self.films,
            **self.settings,
        )

    @cached_property
    def _false_texts_of(self) -> FalseTextsOf | None:
        """What is not true of training items; made once, for all that look at them."""
        made = self.false_texts
        return None if made is None else made.from_training(self.items("train"))

    @cached_property
    def _twins(self) -> dict[int, Medium]:
        """Training item → film of its twin, as of `films_of_twins`.

        Raises:
            DataError: if no item has one.
        """
        found = films_of_twins(self.items("train"))
        if not found:
            raise DataError(
                f"data.twin_films=true, but no question about a twin below {self.root} has another "
                "answer than the same question about the film itself"
            )
        return found

    def use_cache(self, features: FeatureCache) -> None:
        """Take features from an opened cache.

        Raises:
            ConfigError: if its features are of pictures of another size.
        """
        size = features.card.image_size
        if self.image_size not in (None, size):
            raise ConfigError(
                f"data.image_size={self.image_size}, but the encoder whose features are cached "
                f"takes pictures of {size}; leave data.image_size null"
            )
        self.image_size = size
        self._features = features

    def use_sound_cache(self, features: FeatureCache) -> None:
        """Take features of sounds from an opened cache."""
        self._sound_features = features

    def check_augmentation(self) -> None:
        """Refuse crops and mirror images of features.

        Raises:
            ConfigError: naming what excludes each other.
        """
        drawn = {name: self.settings[name] for name in ("crop", "flip", "keep_frames")}
        refuse_augmentation(**drawn, cached=True)

    def film_entries(self, split: str) -> list[FilmEntry]:
        """The entries of a feature cache that hold the frames of a split's items."""
        return self.film_plan(split).entries

    def film_plan(self, split: str) -> FilmPlan:
        """Which entries of a feature cache hold the frames of a split's items."""
        settings = self.settings
        sampling = Sampling(
            settings["num_frames"], float(settings["frame_fps"]), settings["sample_fps"]
        )
        known = None if self._features is None else self._features.known
        return FilmPlan(self._media(split, sounds=False), sampling, known)

    def sound_entries(self, split: str) -> list[SoundEntry]:
        """The entries of a feature cache that hold the clips of a split's items."""
        return self.sound_plan(split).entries

    def sound_plan(self, split: str) -> SoundPlan:
        """Which entries of a feature cache hold the clips of a split's items."""
        return SoundPlan(self._media(split, sounds=True), self.settings["clips"])

    def _media(self, split: str, *, sounds: bool) -> Iterator[Medium]:
        media = (medium for item in self.items(split) for medium in item.conversation.media)
        return (medium for medium in media if medium.is_sound == sounds)

    def _cached_sounds(self, split: str) -> CachedSounds | None:
        if self._sound_features is None:
            return None
        return CachedSounds(self._sound_features, self.sound_plan(split))

    def _cached_films(self, split: str) -> CachedFilms | None:
        if self.cache is None:
            return None
        if self._features is None:
            raise ConfigError(
                f"data.cache={self.cache} was not opened; call use_cache with a FeatureCache, "
                "or set data.cache=null"
            )
        return CachedFilms(self._features, self.film_plan(split))

    def draws(self, visits: int | None = None) -> list[Draw]:
        """The training items, those shown equally often together, in an epoch of so many visits.

        That is as often as `repeat` says, or their groups as often as `sampling` does, films and
        their twins each by themselves; None: `epoch_items`.

        Raises:
            ConfigError: if `repeat` names a task that no item has, or stands beside `sampling`;
                if there is one group alone, or more of them than an epoch has items.
            DataError: if an item lacks what it is grouped by.
        """
        items = self.items("train")
        own, twins = np.arange(len(items), dtype=np.int32), np.zeros(0, np.int32)
        if self.counterfactual:
            twins = np.array([n for n, i in flagged(items, Flag.META) if is_twin(i)], np.int32)
            own = np.setdiff1d(own, twins)
        if not len(own):  # the reader's own items are twins, too
            own, twins = twins, own
        visits = visits or self.epoch_items or sum(draw.count for draw in self._repeated(own))
        of_twins = round(self.counterfactual_share * visits) if len(twins) else 0
        return [
            draw
            for indices, count in ((own, visits - of_twins), (twins, of_twins))
            if count
            for draw in self._drawn(indices, count)
        ]

    def _drawn(self, indices: Indices, visits: int) -> list[Draw]:
        """So many visits to the items at `indices`."""
        if self.sampling is None:
            repeated = self._repeated(indices)
            return drawn([(draw.indices, draw.count) for draw in repeated], visits)
        if self.repeat:
            raise ConfigError(
                f"{SETTING} and data.repeat={self.repeat} both say how often items are shown; "
                "give one of them"
            )
        return drawn(self.sampling.parts(self.items("train"), indices), visits)

    def _repeated(self, indices: Indices) -> list[Draw]:
        """The items at `indices`, as often as `repeat` says."""
        if not self.repeat:
            return [Draw(indices, len(indices))]
        tasks, codes = coded(self.items("train"), "task")
        if unknown := self.repeat.keys() - {*tasks}:
            raise ConfigError(
                f"data.repeat names {sorted(unknown)}, but the training items are of "
                f"{sorted(tasks)}"
            )
        times = np.array([float(self.repeat.get(task, 1)) for task in tasks])[codes[indices]]
        factors = dict.fromkeys(times.tolist())  # in the order in which they come
        shown = [(indices[times == factor], factor) for factor in factors]
        return [Draw(chosen, len(chosen)).scaled(factor) for chosen, factor in shown]

    def lengths(self) -> Lengths:
        """Frames and words of every training item; films are looked up, not decoded."""
        return self.dataset("train").lengths()
