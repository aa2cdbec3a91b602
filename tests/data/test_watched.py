import gc
import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
from torch.utils.data import Dataset

from mmavlm.core.errors import DataError
from mmavlm.data.watched import WatchedDataset, WatchedLoader, heed_parent_alone
from ranks import FORKSERVER, LONGEST_S


class Films(Dataset):
    """Items that are what `act` makes of their index."""

    def __init__(self, act):
        self.act = act

    def __len__(self):
        return 4

    def __getitem__(self, at):
        return self.act(at)

    def source(self, index):
        return f"videos/{index}.mp4"


def loader(act, workers=1, timeout=60, **settings):
    dataset = WatchedDataset(Films(act), workers)
    return WatchedLoader(dataset, batch_size=None, num_workers=workers, timeout=timeout, **settings)


def stuck(at):
    if at == 2:
        time.sleep(60)
    return at


def killed(at):
    if at == 2:
        os._exit(1)
    return at


def broken(at):
    raise RuntimeError(f"a fault of item {at}")


def test_what_workers_load_is_what_the_dataset_gives():
    assert list(loader(lambda at: at)) == [0, 1, 2, 3]


def test_a_worker_that_is_stuck_ends_the_run_and_its_file_is_named():
    message = r"timed out after 2.* Workers were at: videos/2\.mp4\..*data\.timeout_s"
    with pytest.raises(DataError, match=message):
        list(loader(stuck, timeout=2))


def test_the_file_that_killed_a_worker_is_named():
    with pytest.raises(DataError, match=r"exited unexpectedly.* Workers were at: videos/2\.mp4"):
        list(loader(killed))


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a fault of item 0"):
        list(loader(broken))


def signalled(at):
    """Sent to a worker by somebody else, as to all processes of a job."""
    if at == 1:
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        time.sleep(0.2)
    return at


def went_on():
    settings = {"worker_init_fn": heed_parent_alone, "multiprocessing_context": "fork"}
    return list(loader(signalled, **settings))


def test_workers_go_on_when_a_whole_job_is_signalled():
    # a library of another test may start threads in whatever is forked, which block no signal
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        assert fresh.submit(went_on).result(120) == [0, 1, 2, 3]


def test_a_stuck_worker_ends_when_its_parent_says_so():
    with pytest.raises(DataError, match="timed out"):
        list(loader(stuck, timeout=1, worker_init_fn=heed_parent_alone))
    for worker in multiprocessing.active_children():
        worker.terminate()
        worker.join(10)
        assert not worker.is_alive()


class SignalledAtStart(multiprocessing.context.ForkProcess):
    """A worker in whose start the run is told to end."""

    def start(self):
        super().start()
        os.kill(os.getpid(), signal.SIGTERM)


class SignalledContext(multiprocessing.context.ForkContext):
    Process = SignalledAtStart


def test_a_signal_that_comes_while_workers_start_leaves_none_behind():
    def end(number, frame):
        raise SystemExit(number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit):
            list(loader(lambda at: at, workers=2, multiprocessing_context=SignalledContext()))
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
    gc.collect()
    left = multiprocessing.active_children()
    for worker in left:
        worker.kill()
    assert left == []


def deaf(at):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    time.sleep(LONGEST_S)


def run_with_a_deaf_worker():
    with pytest.raises(DataError, match="timed out"):
        list(loader(deaf, timeout=1, multiprocessing_context="fork", persistent_workers=True))
    raise SystemExit(143)


def test_a_run_does_not_wait_at_its_end_for_a_worker_that_heeds_nothing():
    run = FORKSERVER.Process(target=run_with_a_deaf_worker)
    run.start()
    run.join(60)
    ended = run.exitcode
    run.kill()
    assert ended == 143
