"""Temporary folders of processes, some of which were killed."""

import subprocess
import sys
import tempfile

import pytest

from mmavlm.core.temporary import own_folder, working_folder

KILLED = """
import os, signal
from mmavlm.core.temporary import own_folder
print(own_folder("pack"), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """The folder that a killed process has left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    folder = tmp_path / process.stdout.strip()
    assert folder.is_dir()
    return folder


def test_what_a_killed_process_left_goes_and_what_others_use_stays(killed):
    running = own_folder("pack")
    assert not killed.exists()
    assert own_folder("pack") != running
    assert running.is_dir()


def test_other_purposes_and_other_machines_are_left_alone(killed, monkeypatch):
    own_folder("serve")
    monkeypatch.setattr("platform.node", lambda: "another")
    own_folder("pack")
    assert killed.is_dir()


def test_a_folder_goes_with_its_work_however_that_ends(killed):
    def work():
        with working_folder("report") as folder:
            (folder / "film.mp4").write_bytes(b"x")
            worked.append(folder)
            raise ZeroDivisionError

    worked = []
    with pytest.raises(ZeroDivisionError):
        work()
    assert not worked[0].exists()
