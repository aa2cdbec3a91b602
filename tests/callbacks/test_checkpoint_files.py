import re
import resource

import pytest
import torch

from mmavlm.callbacks import WholeCheckpoints
from mmavlm.core.errors import CheckpointError
from ranks import FORKSERVER

NUMBERS = 100_000  # of 4 bytes
LIMIT = 200_000  # bytes


def checkpoint(value):
    return {"state_dict": {"weights": torch.full((NUMBERS,), value)}}


def write_on_a_full_disk(path, told):
    """In a process of its own: what the disk takes ends in the middle of the file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    try:
        WholeCheckpoints().save_checkpoint(checkpoint(2.0), path)
    except CheckpointError as error:
        told.put(str(error))


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "made" / "last.ckpt"
    WholeCheckpoints().save_checkpoint(checkpoint(1.0), str(path))
    held = torch.load(path, weights_only=True)["state_dict"]["weights"]
    assert torch.equal(held, checkpoint(1.0)["state_dict"]["weights"])
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_leaves_the_last_checkpoint_and_says_what_is_needed(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint(checkpoint(1.0), path)
    told = FORKSERVER.Queue()
    child = FORKSERVER.Process(target=write_on_a_full_disk, args=(path, told))
    child.start()
    message = told.get(timeout=300)
    child.join()
    assert re.search(
        rf"{path} cannot be written: File too large; it needs about {4 * NUMBERS} bytes .*"
        r"and \d+ \(.*\) are free .* resume=auto",
        message,
    )
    assert float(torch.load(path, weights_only=True)["state_dict"]["weights"][0]) == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"file/last\.ckpt cannot be written: .*free"):
        WholeCheckpoints().save_checkpoint(checkpoint(1.0), tmp_path / "file/last.ckpt")


def test_what_is_no_fault_of_the_disk_stays_what_it_is(tmp_path):
    with pytest.raises(Exception, match=r"pickle|local") as failed:
        WholeCheckpoints().save_checkpoint({"code": lambda: None}, tmp_path / "last.ckpt")
    assert not isinstance(failed.value, CheckpointError)
    assert list(tmp_path.iterdir()) == []
