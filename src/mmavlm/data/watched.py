"""Loading with a limit of time that says on which item a worker stuck or died."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mmavlm.errors import DataError

IDLE = -1


class WatchedDataset(Dataset[Any]):
    """A dataset whose workers leave in shared memory which item they are at."""

    def __init__(self, dataset: Any, num_workers: int) -> None:
        self.dataset = dataset
        self.at = torch.full((num_workers,), IDLE, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, at: int | tuple[int, int]) -> Any:
        """The item, as the dataset gives it."""
        info = get_worker_info()
        if info is None:
            return self.dataset[at]
        self.at[info.id] = at[1] if isinstance(at, tuple) else at
        sample = self.dataset[at]
        self.at[info.id] = IDLE
        return sample


class WatchedLoader(DataLoader[Any]):
    """A loader of a `WatchedDataset` that names the items at which workers are when one fails.

    Raises:
        DataError: naming them, if a worker died, or no batch came within `timeout` seconds.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except RuntimeError as error:
            failed = "timed out" in str(error) or "exited unexpectedly" in str(error)
            if not failed or not isinstance(self.dataset, WatchedDataset):
                raise
            raise DataError(
                f"{str(error).splitlines()[0]} Workers were at: {self._named()}. Look at these "
                "files (`python -m mmavlm.check data=… decode=true`); raise data.timeout_s "
                f"({self.timeout:g}) if they take so long, or lower data.num_workers if memory ran "
                "out"
            ) from error

    def _named(self) -> str:
        watched: Any = self.dataset
        at = [index for index in watched.at.tolist() if index != IDLE]
        return ", ".join(_source(watched.dataset, index) for index in at) or "no item"


def heed_parent_alone(worker_id: int) -> None:
    """Let a worker go on where the whole run is sent a signal; when to end, its parent says.

    Terminals and SLURM signal all processes, and a run that is to save at its next optimizer step
    still needs batches. Of SIGTERM a worker heeds what its parent sends.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sent a signal
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_for, args=(os.getppid(),), daemon=True).start()


def _end_for(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)


def _source(dataset: Any, index: int) -> str:
    return str(dataset.source(index))
