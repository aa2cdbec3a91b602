"""From items to batches: the loaders of the three splits, whatever the items come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from mmavlm.core.items import Item
from mmavlm.core.settings import at_least, seed_given, whole_at_least
from mmavlm.data.answered import WithoutAnswered
from mmavlm.data.collate import collate
from mmavlm.data.films import Films, FilmsOnDisk, Nearby
from mmavlm.data.items import Flag, coded, flagged
from mmavlm.data.order import Draw, EpochOrder, Lengths
from mmavlm.data.readers.annotations import SPLITS
from mmavlm.data.readers.duet import TRUTH
from mmavlm.data.shards.order import ShardOrder, nodes_of
from mmavlm.data.watched import WatchedDataset, WatchedLoader, heed_parent_alone

if TYPE_CHECKING:
    from mmavlm.metrics.duet.watched import Truth


class SplitLoaders(L.LightningDataModule, ABC):
    """Loaders of `Batch`; a subclass says what items, dataset and order of a split are.

    `group_by_length` makes training batches of items with alike numbers of frames and words. A
    worker that takes longer than `timeout_s` for a batch ends the run, naming its item.

    Raises:
        ConfigError: if a number is out of range.
    """

    sets: tuple[str, ...] = ()  # names of the sets that are mixed
    splits: Sequence[str] = SPLITS  # those that a run reads
    left_out: NDArray[np.bool_] | None = None  # items of the test that were answered before (n,)
    films: Films = FilmsOnDisk()

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int | None,
        num_workers: int,
        timeout_s: float,
        seed: int,
        group_by_length: bool,
    ) -> None:
        super().__init__()
        whole_at_least("data", 1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        whole_at_least("data", 0, num_workers=num_workers)
        at_least("data", 0, timeout_s=timeout_s)
        seed_given("data", seed)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.timeout_s = timeout_s
        self.seed = seed
        self.group_by_length = group_by_length

    @abstractmethod
    def items(self, split: str) -> Sequence[Item]:
        """The items of a split whose videos exist."""

    @abstractmethod
    def dataset(self, split: str) -> Dataset[Any]:
        """The dataset of a split; that of training draws and crops at random."""

    @abstractmethod
    def draws(self) -> list[Draw]:
        """Which items a training epoch visits, and how often."""

    @abstractmethod
    def lengths(self) -> Lengths:
        """Frames and words of every training item."""

    def tasks(self, splits: Sequence[str] = SPLITS) -> list[str]:
        """The tasks that occur in any of the splits, sorted."""
        return sorted({task for split in splits for task in coded(self.items(split), "task").texts})

    def tasks_with_options(self, splits: Sequence[str] = SPLITS) -> list[str]:
        """Those tasks of which some question brings options of its own, sorted."""
        brought = (found for split in splits for found in flagged(self.items(split), Flag.OPTIONS))
        return sorted({item.task for _, item in brought if item.options is not None})

    def truths(self, split: str) -> dict[str, list[Truth]]:
        """Task → what is true of its films, of the items whose annotation says so."""
        # Imported here, since only films that run while others speak have such truth.
        from mmavlm.metrics.duet.files import truth_of

        found: dict[str, list[Truth]] = {}
        for _, item in flagged(self.items(split), Flag.META):
            if (row := item.meta.get(TRUTH)) is not None:
                # names as evaluation has them: of a mix they begin with that of the set
                named = {**row, "question_id": item.item_id, "video_id": item.video_id}
                found.setdefault(item.task, []).append(truth_of(named))
        return found

    def setup(self, stage: str | None = None) -> None:
        """Read the annotations of all `splits`, so that mistakes show before training."""
        one = {"validate": "val", "test": "test", "predict": "test"}
        for split in (one[stage],) if stage in one else self.splits:
            self.items(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches; the last incomplete one is kept."""
        return self._loader("train", self.batch_size, self._order())

    def _order(self) -> EpochOrder:
        """The order of training: over shards, where items lie in some."""
        lengths = self.lengths() if self.group_by_length else None
        order = EpochOrder(self.draws(), self.seed, lengths=lengths, batch_size=self.batch_size)
        if (nearby := self.nearby()) is None:
            return order
        nodes = nodes_of(order.num_replicas, self.trainer.num_nodes if self.trainer else 1)
        return ShardOrder(order, nearby, nodes, self.fetch)

    def fetch(self, index: int) -> None:
        """Have the films of a training item fetched, where they do not lie on a disk."""
        for medium in self.items("train")[index].conversation.media:
            self.films.fetch(medium)

    def nearby(self) -> Nearby | None:
        """Which training items lie together; None if they may come in any order."""
        return self.films.nearby(self.items("train"))

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation split in order."""
        return self._loader("val", self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        """The test split in order."""
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test split in order."""
        return self.test_dataloader()

    def _loader(
        self, split: str, batch_size: int, order: EpochOrder | None = None
    ) -> DataLoader[Any]:
        dataset = self.dataset(split)
        if split == "test" and self.left_out is not None:
            dataset = WithoutAnswered(dataset, self.left_out)
        return ResumableLoader(
            WatchedDataset(dataset, self.num_workers) if self.num_workers else dataset,
            batch_size=batch_size,
            sampler=order,
            num_workers=self.num_workers,
            timeout=self.timeout_s if self.num_workers else 0,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=heed_parent_alone,
            # else it would draw from torch's own, once for each time its workers are started
            generator=torch.Generator().manual_seed(self.seed),
        )


class ResumableLoader(WatchedLoader):
    """A loader that goes on in the middle of an epoch: of an `EpochOrder` it leaves out the start.

    What an epoch shows follows from seed and epoch, so the place is all there is to keep. It is to
    be loaded before the first batch.
    """

    _given = 0  # batches of the epoch, since it was begun or resumed

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._given = 0
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its visits the batches given so far were of."""
        order = self.sampler
        if not isinstance(order, EpochOrder):
            return {}
        visits = order.left_out + self._given * (self.batch_size or 1)
        return {"epoch": order.epoch, "visits": visits}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on behind those visits when that epoch comes."""
        if isinstance(self.sampler, EpochOrder):
            self.sampler.begin_at(state["epoch"], state["visits"])
