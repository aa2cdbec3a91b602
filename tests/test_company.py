"""Runs that are not alone: other processes in their folder, ranks that end, disks that change."""

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch

from mmavlm import train
from mmavlm.commands.cli import user_message
from mmavlm.core.errors import ConfigError
from mmavlm.core.files import claimed
from ranks import FORKSERVER, LONGEST_S, be_rank
from support import SMALL

HOLD = """
import os, sys, time
from pathlib import Path
from mmavlm.core.files import claimed
with claimed(Path(sys.argv[1])):
    child = os.fork()  # as a loader's worker, which may outlive a run that is killed
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path):
    """A folder that another process has, that process, and the number of its child."""
    folder = tmp_path / "one"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    child = int(other.stdout.readline())
    yield folder, other
    other.kill()
    other.wait()
    os.kill(child, signal.SIGKILL)


def test_a_second_run_in_a_folder_is_refused_until_the_first_has_gone_however_it_goes(
    held, run, films, capsys
):
    folder, other = held
    arguments = ["experiment=lvu_genre", *SMALL, f"data.root={films}", f"hydra.run.dir={folder}",
                 "test=false"]  # fmt: skip
    assert run(train, *arguments) == 1
    said = capsys.readouterr().err
    assert f"error: {folder} is in use by another run (process {other.pid} on " in said
    assert not (folder / "checkpoints").exists()
    with claimed(folder / "another"):
        other.kill()
        other.wait()
    assert run(train, *arguments) == 0
    with claimed(folder):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"file/run cannot be written .*give another hydra"),
        claimed(tmp_path / "file/run"),
    ):
        pass


@pytest.mark.parametrize(
    ("inside", "every"), [("checkpoints", 1), ("csv", "null")], ids=["checkpoint", "log"]
)
def test_a_folder_that_can_be_written_no_more_ends_a_run_with_one_message(
    run, films, tmp_path, capsys, inside, every
):
    folder = tmp_path / "cut" / inside
    arguments = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "hydra.run.dir=cut",
                 f"callbacks.step_checkpoint.every_n_steps={every}"]  # fmt: skip
    by = ["+callbacks.by._target_=support.ReplaceByFile", f"+callbacks.by.folder={folder}",
          "+callbacks.by.batch=1"]  # fmt: skip
    assert run(train, *arguments, *by) == 1
    said = capsys.readouterr().err
    assert f"{folder}" in said.partition("error: ")[2]
    assert "on with resume=auto" in said
    assert "Traceback" not in said


def be_left_alone(rank, port, told):
    be_rank(rank, port)
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    torch.distributed.all_reduce(torch.ones(1))
    if rank:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        for _ in range(1000):
            torch.distributed.all_reduce(torch.ones(1))
            time.sleep(0.01)
    except RuntimeError as error:
        told.put(user_message(error))


@pytest.mark.distributed
def test_a_process_whose_other_was_killed_ends_and_says_so():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = FORKSERVER.Queue()
    ranks = [
        FORKSERVER.Process(target=be_left_alone, args=(k, port, told), daemon=True)
        for k in range(2)
    ]
    for process in ranks:
        process.start()
    assert "another process of this run has ended" in told.get(timeout=LONGEST_S)
    for process in ranks:
        process.join(30)
    assert ranks[1].exitcode == -signal.SIGKILL
