"""Several sets in one run: which share each has of an epoch, and batches that hold items of all."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

from mmavlm.core.errors import ConfigError
from mmavlm.core.items import Item
from mmavlm.core.settings import at_least, shares, whole_at_least
from mmavlm.data.balance import Balance
from mmavlm.data.broken import BrokenBudget
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.dataset import BrokenItem, Sample, VideoDataset
from mmavlm.data.feature_cache import FeatureCache
from mmavlm.data.film_entries import FilmEntry
from mmavlm.data.films import Nearby
from mmavlm.data.joined import BEHIND_SET, JoinedItems, named
from mmavlm.data.loaders import SplitLoaders
from mmavlm.data.order import Draw, Lengths
from mmavlm.data.sound_entries import SoundEntry
from mmavlm.data.twins import bring_twins, twins_share

if TYPE_CHECKING:
    from mmavlm.data.false_texts import FalseTextMaker


class MixedDataModule(SplitLoaders):
    """Loaders of batches from several `sets`, by name; each keeps its reader and its frames.

    Items, videos and tasks carry the name of their set (`lvu/genre`), and so do metrics. An epoch
    shows each item as often as its set says (`repeat`); or draws `epoch_items` (as many as there
    are) by `weights`, the shares of all sets, or by a `temperature` τ, which makes shares ∝
    items^(1/τ): 1 is in proportion, and the higher, the more equal. Within a set all items are
    drawn equally often, from epoch to epoch (`order.Draw`). What a mix says of `sampling`, of
    `counterfactual` films and of `false_texts` (see `VideoDataModule`) holds in each of its sets.
    What concerns batches (size, workers, picture size, feature cache) is told here and not at the
    sets; `root` and `num_frames` stand here for sets to refer to.

    Raises:
        ConfigError: if there is no set, a name or weight cannot be, weights and a temperature are
            given at once, a set has a cache of its own, or a number is out of range.
    """

    def __init__(
        self,
        sets: Mapping[str, VideoDataModule],
        root: str | Path | None = None,
        *,
        num_frames: int | None = None,
        weights: Mapping[str, float] | None = None,
        temperature: float | None = None,
        epoch_items: int | None = None,
        sampling: Mapping[str, Any] | None = None,
        counterfactual: bool | None = None,
        counterfactual_share: float | None = None,
        twin_films: bool | None = None,
        image_size: int | None = None,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        num_workers: int = 4,
        timeout_s: float = 600,
        group_by_length: bool = False,
        cache: str | Path | None = None,
        seed: int = 42,
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
        self.parts = dict(sets)
        self.sets = tuple(self.parts)
        self.weights = shares("data", "weights", weights)
        self.temperature = temperature
        self.epoch_items = epoch_items
        self._check_settings()
        self.cache = None if cache is None else Path(cache)
        for part in self.parts.values():
            part.cache = self.cache
            part.films.folder(
                part.root, {"data.cache": cache, "data.counterfactual": counterfactual}
            )
            part.seed = seed
            if sampling is not None:
                part.sampling = Balance.given(sampling)
            if counterfactual is not None:
                part.counterfactual = counterfactual
                part.counterfactual_share = twins_share(counterfactual, counterfactual_share)
                part.twin_films = bring_twins(twin_films, counterfactual)
            part.false_texts = part.false_texts if false_texts is None else false_texts
        self.image_size = image_size
        longest = max(part.settings["num_frames"] for part in self.parts.values())
        self.settings = {"num_frames": longest}  # what a step's memory is estimated from
        self.broken = MixedBudget({name: part.broken for name, part in self.parts.items()})

    @property
    def image_size(self) -> int | None:
        """Side of the pictures in pixels, one for all sets."""
        return self._image_size

    @image_size.setter
    def image_size(self, size: int | None) -> None:
        self._image_size = size
        for part in self.parts.values():
            part.image_size = size

    @property
    def classes(self) -> dict[str, list[str]]:
        """Task → class names; tasks with open answers are absent."""
        return {
            name + BEHIND_SET + task: classes
            for name, part in self.parts.items()
            for task, classes in part.classes.items()
        }

    def items(self, split: str) -> Sequence[Item]:
        """The items of all sets, one set behind the other, under the names of their sets."""
        return JoinedItems([part.items(split) for part in self.parts.values()], self.sets)

    @property
    def annotation_files(self) -> dict[str, Path]:
        """The files that items of all sets were read from so far, below the names of the sets."""
        return {
            name + BEHIND_SET + file: path
            for name, part in self.parts.items()
            for file, path in part.annotation_files.items()
        }

    def dataset(self, split: str) -> MixedDataset:
        """The datasets of all sets as one."""
        return MixedDataset({name: part.dataset(split) for name, part in self.parts.items()})

    def draws(self) -> list[Draw]:
        """What an epoch draws of each set, by its share."""
        of_sets = {name: part.draws() for name, part in self.parts.items()}
        own = {name: sum(draw.count for draw in draws) for name, draws in of_sets.items()}
        total = self.epoch_items or sum(own.values())
        shares, found, offset = self._shares(own), [], 0
        for name, draws in of_sets.items():
            visits = max(len(draws), round(shares[name] * total))
            found += [draw.moved(offset) for draw in self.parts[name].draws(visits)]
            offset += len(self.parts[name].items("train"))
        return found

    def drawn(self) -> dict[str, tuple[int, int]]:
        """Set → how many items an epoch draws of it, and how many it has."""
        draws, found, start = self.draws(), {}, 0
        for name, part in self.parts.items():
            size = len(part.items("train"))
            count = sum(d.count for d in draws if start <= d.indices[0] < start + size)
            found[name], start = (count, size), start + size
        return found

    def lengths(self) -> Lengths:
        """Frames and words of every training item."""
        return np.concatenate([part.lengths() for part in self.parts.values()])

    def nearby(self) -> Nearby | None:
        """Which training items lie together, in sets that lie in shards."""
        parts = self.parts.values()
        sizes = [len(part.items("train")) for part in parts]
        return Nearby.joined([part.nearby() for part in parts], sizes)

    def fetch(self, index: int) -> None:
        """Have the films of a training item fetched, by the set it is of."""
        for medium in self.items("train")[index].conversation.media:
            for part in self.parts.values():
                part.films.fetch(medium)

    def use_cache(self, features: FeatureCache) -> None:
        """Take features from an opened cache, all sets from the same."""
        for part in self.parts.values():
            part.use_cache(features)
        self._image_size = features.card.image_size

    def film_entries(self, split: str) -> list[FilmEntry]:
        """The entries of a feature cache for a split; those a set has alone are the same."""
        return [entry for part in self.parts.values() for entry in part.film_entries(split)]

    def use_sound_cache(self, features: FeatureCache) -> None:
        """Take features of sounds from an opened cache, all sets from the same."""
        for part in self.parts.values():
            part.use_sound_cache(features)

    def sound_entries(self, split: str) -> list[SoundEntry]:
        """The entries of a feature cache for the sounds of a split."""
        return [entry for part in self.parts.values() for entry in part.sound_entries(split)]

    def check_augmentation(self) -> None:
        """Refuse crops and mirror images of features, in any set."""
        for part in self.parts.values():
            part.check_augmentation()

    def _shares(self, own: Mapping[str, int]) -> dict[str, float]:
        """Set → its share of an epoch, from how many visits each would have by itself."""
        sizes: dict[str, float] = self.weights or dict(own)
        if self.temperature is not None:
            sizes = {name: count ** (1 / self.temperature) for name, count in own.items()}
        total = sum(sizes.values())
        return {name: size / total for name, size in sizes.items()}

    def _check_settings(self) -> None:
        whole_at_least("data", 1, epoch_items=self.epoch_items)
        at_least("data", 0, temperature=self.temperature)
        if not self.parts:
            raise ConfigError(
                "data.sets is empty; add sets such as `/data@data.sets.lvu: lvu` to the defaults "
                "of an experiment, or +data@data.sets.lvu=lvu on the command line"
            )
        if wrong := [name for name in self.parts if set(name) & {BEHIND_SET, "."}]:
            raise ConfigError(f"data.sets has {wrong}; names of sets hold neither / nor .")
        if self.weights and self.weights.keys() != self.parts.keys():
            raise ConfigError(
                f"data.weights names {sorted(self.weights)}, but data.sets has "
                f"{sorted(self.parts)}; give each set its share"
            )
        if self.temperature is not None and (self.weights or self.temperature <= 0):
            raise ConfigError(
                f"data.temperature={self.temperature} with data.weights={self.weights}; give "
                "shares, or a temperature above 0 from which they follow"
            )
        if own := [name for name, part in self.parts.items() if part.cache is not None]:
            raise ConfigError(f"{own} of data.sets name caches; give one for all: data.cache=…")


class MixedDataset(Dataset[Sample | BrokenItem]):
    """Datasets one behind the other; their items carry the name of their set."""

    def __init__(self, datasets: Mapping[str, VideoDataset]) -> None:
        self.datasets = dict(datasets)
        self.names = list(self.datasets)
        self.ends = list(accumulate(len(dataset) for dataset in self.datasets.values()))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, at: int | tuple[int, int]) -> Sample | BrokenItem:
        """The item at an index, or at (pass, index), as its own dataset gives it."""
        number, index = at if isinstance(at, tuple) else (0, at)
        name, inside = self._place(index)
        found = self.datasets[name][number, inside]
        return replace(found, item=named(found.item, name))

    def source(self, index: int) -> str:
        """The files or folders that an item is read from, or its name where it shows nothing."""
        name, inside = self._place(index)
        return self.datasets[name].source(inside)

    def _place(self, index: int) -> tuple[str, int]:
        """The set of an item, and its index there."""
        which = bisect_right(self.ends, index)
        return self.names[which], index - (self.ends[which - 1] if which else 0)


class MixedBudget:
    """The budgets for broken videos of several sets, each for its own."""

    def __init__(self, budgets: Mapping[str, BrokenBudget]) -> None:
        self.budgets = dict(budgets)

    def add(self, broken: Iterable[str]) -> None:
        """Take `"video_id: reason"` entries, of batches (`set/video`) or of the feature cache.

        Raises:
            DataError: as of `BrokenBudget.add`.
        """
        entries = list(broken)
        for name, budget in self.budgets.items():
            mine = [e.removeprefix(name + BEHIND_SET) for e in entries if self._is_of(e, name)]
            if mine:
                budget.add(mine)

    def summary(self) -> str:
        """One line for the end of a run."""
        return "; ".join(f"{name}: {budget.summary()}" for name, budget in self.budgets.items())

    def _is_of(self, entry: str, name: str) -> bool:
        return entry.startswith(name + BEHIND_SET) or self.budgets[name].named(entry) is not None
