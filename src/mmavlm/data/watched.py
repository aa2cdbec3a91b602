"""Loading with a limit of time that says on which item a worker stuck or died."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mmavlm.core.errors import DataError

IDLE = -1
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_LEFT_AT_EXIT: WeakSet[BaseProcess] = WeakSet()  # workers, if they are still there then


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
        starts = self.num_workers > 0 and getattr(self, "_iterator", None) is None
        try:
            with self._starting() if starts else nullcontext():
                batches = super().__iter__()
            yield from batches
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

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Start workers undisturbed, and see to it that none outlives this process."""
        before = set(active_children())
        _kill_at_exit(os.getpid())
        with held_back(also_workers=self.worker_init_fn is heed_parent_alone):
            try:
                yield
            finally:
                _LEFT_AT_EXIT.update(set(active_children()) - before)

    def _named(self) -> str:
        watched: Any = self.dataset
        at = [index for index in watched.at.tolist() if index != IDLE]
        return ", ".join(_source(watched.dataset, index) for index in at) or "no item"


@contextmanager
def held_back(*, also_workers: bool) -> Iterator[None]:
    """Let signals that end a run wait until what is inside is done, and come right behind it.

    An exception raised by a signal while workers start would leave one that nobody knows of. With
    `also_workers` those that start inside have them blocked, and do not end before they can tell
    by whom a signal was sent (`heed_parent_alone`).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handled = [end for end in ENDING if callable(signal.getsignal(end))]
    before = {end: signal.signal(end, lambda number, _: came.append(number)) for end in handled}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING if also_workers else ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for end, handler in before.items():
            signal.signal(end, handler)
        for number in came:
            signal.raise_signal(number)


@cache
def _kill_at_exit(pid: int) -> None:
    """Have process `pid`, this one, kill at its very end those of its workers that are left.

    Said once in each process: one that is forked keeps nothing of what its parent is to do.

    Python tells them to end and waits until they have; who missed it, or is stuck, would be waited
    for for ever.
    """
    Finalize(None, _kill_left, exitpriority=0)


def _kill_left() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch takes it for a fault
    for worker in _LEFT_AT_EXIT.intersection(active_children()):
        worker.kill()


def heed_parent_alone(worker_id: int) -> None:
    """Let a worker go on where the whole run is sent a signal; when to end, its parent says.

    Terminals and SLURM signal all processes, and a run that is to save at its next optimizer step
    still needs batches. Of SIGTERM a worker heeds what its parent sends.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sent a signal
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_for, args=(os.getppid(),), daemon=True).start()


def _end_for(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)


def _source(dataset: Any, index: int) -> str:
    return str(dataset.source(index))
