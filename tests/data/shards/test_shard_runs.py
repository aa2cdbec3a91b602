"""Runs from shards that are ended anywhere and go on: they end as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from mmavlm import pack, train
from shard_sets import served
from support import SMALL, assert_equal_runs

KILLS = int(os.environ.get("MMAVLM_KILLS", "8"))  # thirty take five minutes
SETTINGS = [
    *SMALL, "experiment=webvid_alignment", "data=shards", "trainer.max_epochs=2", "test=false",
    "trainer.accumulate_grad_batches=2", "data.batch_size=2", "data.num_workers=2",
    "data.max_broken=0", "data.reader.mixed=2", "callbacks.wait=null", "callbacks.overview=null",
    "callbacks.throughput=null",
    "callbacks.step_checkpoint.every_n_steps=1", "qformer.dropout=0.1", "optimizer.lr=1e-2",
    "resume=auto", "data.reader.train=train-{000000..000003}.tar",
    "data.reader.val=val-000000.tar", "data.reader.test=test-000000.tar",
]  # fmt: skip


@pytest.fixture(scope="module")
def packed(films, tmp_path_factory):
    """The captioned films as shards, four of them to train from."""
    out = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["data=captions", f"data.root={films}", f"out={out}", "processes=1"]
        patch.setattr("sys.argv", ["pack", *arguments, "shard_mb=0.13"])
        pack.main()
    assert len(list(out.glob("train-*.tar"))) == 4
    return out


def go(run, root, cache, folder, *more):
    return run(train, *SETTINGS, f"data.root={root}", f"data.reader.store.cache={cache}",
               f"hydra.run.dir={folder}", "data.reader.store.fetch_s=60", *more)  # fmt: skip


@pytest.fixture(scope="module")
def whole(packed, tmp_path_factory):
    """The folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cache = f"data.reader.store.cache={folder}/cache"
        patch.setattr("sys.argv", ["train", *SETTINGS, f"data.root={packed}", cache,
                                   f"hydra.run.dir={folder}/run"])  # fmt: skip
        train.main()
    return folder / "run"


def stopped(run, *given):
    *given, batch = given
    by = ["+callbacks.stop._target_=support.StopAtBatch", f"+callbacks.stop.batch={batch}"]
    assert go(run, *given, *by) == 1


def test_a_run_that_is_killed_three_times_ends_like_an_undisturbed_one(
    run, packed, whole, tmp_path
):
    cache, folder = tmp_path / "cache", tmp_path / "cut"
    for batch in (2, 4, 7):
        stopped(run, packed, cache, folder, batch)
        if batch == 4:  # a machine of its own goes on, where no shard is yet
            shutil.rmtree(cache)
    assert go(run, packed, cache, folder) == 0
    assert_equal_runs(whole, folder)


def test_a_server_that_fails_and_a_cache_with_room_for_few_change_nothing(
    run, packed, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr("mmavlm.data.shards.fetching.FIRST_WAIT_S", 0.01)
    cache, folder = tmp_path / "cache", tmp_path / "cut"
    largest = max(path.stat().st_size for path in packed.glob("*.tar"))
    room = f"data.reader.store.gb={4.5 * largest / 1e9:.6f}"
    with served(packed) as server:
        for number in range(4):
            name = f"train-{number:06d}.tar"
            server.faults[name] = [500, "half", None, 503, "half"]
        stopped(run, server.address, cache, folder, room, 3)
        assert go(run, server.address, cache, folder, room) == 0
        left_over = {name: len(faults) for name, faults in server.faults.items()}
        assert max(left_over.values()) <= 2
    assert_equal_runs(whole, folder)


def test_a_shard_that_dies_is_left_out_and_the_run_goes_on(
    run, packed, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("mmavlm.data.shards.fetching.FIRST_WAIT_S", 0.01)
    with served(packed) as server:
        server.always("train-000001.tar", 500)
        code = go(run, server.address, tmp_path / "cache", tmp_path / "run", "data.max_broken=0.5")
    assert code == 0
    assert "train-000001.tar cannot be fetched" in (tmp_path / "run/train.log").read_text()
    with served(packed) as server:
        server.always("train-000001.tar", 500)
        given = (server.address, tmp_path / "cache2", tmp_path / "strict", "data.max_broken=0.1")
        assert go(run, *given) == 1


@pytest.mark.slow
def test_a_run_that_is_killed_many_times_ends_like_an_undisturbed_one(packed, tmp_path):
    """By SIGKILL at random moments, from a server that fails at random; at times without cache."""
    drawn, kills = random.Random(0), 0
    epochs = "trainer.max_epochs=20"  # 60 steps

    def command(root, name):
        arguments = [*SETTINGS, f"data.root={root}", f"data.reader.store.cache={tmp_path}/{name}c",
                     f"hydra.run.dir={tmp_path}/{name}", epochs]  # fmt: skip
        return [sys.executable, "-m", "mmavlm.train", *arguments]

    subprocess.run(command(packed, "whole"), check=True, capture_output=True, cwd=tmp_path)
    step = tmp_path / "cut/checkpoints/step.ckpt"
    with served(packed) as server:
        while kills < KILLS:
            for shard in packed.glob("train-*.tar"):
                faults = drawn.choices([None, 500, 503, "half"], [6, 1, 1, 1], k=3)
                server.faults[shard.name] = faults
            before = step.stat().st_mtime_ns if step.exists() else 0
            process = subprocess.Popen(
                command(server.address, "cut"), cwd=tmp_path, start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while not step.exists() or step.stat().st_mtime_ns == before:
                assert process.poll() is None, "it ended by itself"
                time.sleep(0.005)
            time.sleep(drawn.uniform(0, 0.15))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            if drawn.random() < 0.2:
                shutil.rmtree(tmp_path / "cutc", ignore_errors=True)
        subprocess.run(
            command(server.address, "cut"), check=True, capture_output=True, cwd=tmp_path
        )
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")
