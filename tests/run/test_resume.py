"""Runs that are ended anywhere and go on: they end as if nothing had happened."""

import signal

import pytest
import torch

from mmavlm import train
from mmavlm.movies.duet_set import DuetSettings, make_duet_set
from support import SMALL, StopAtBatch, assert_equal_runs, left

# Eight batches an epoch or so, gathered by three: the last step of an epoch is of fewer.
GATHERED = [
    *SMALL, "trainer.max_epochs=2", "trainer.accumulate_grad_batches=3", "data.batch_size=2",
    "data.num_workers=2", "callbacks.wait=null", "callbacks.throughput=null",
    "callbacks.overview=null", "optimizer.lr=1e-2",
    "callbacks.step_checkpoint.every_n_steps=1", "qformer.dropout=0.1", "resume=auto",
    "test=false",
]  # fmt: skip
SETS = {
    "one set, cropped and mirrored": ["experiment=lvu_genre", "data.crop=true", "data.flip=true"],
    "a mix": ["experiment=mix"],
    "stage 1": ["experiment=webvid_alignment"],
    "the duet": ["experiment=duet_movies", "data.reader.folder=watched/questions",
                 "data.reader.videos=watched/videos"],
}  # fmt: skip
ONE_SET, *OTHERS = SETS
BY_STOPPING = "+callbacks.stop._target_=support.StopAtBatch"


@pytest.fixture(scope="module")
def films(films):
    """The films of all sets, and beside them those that are watched as they run."""
    make_duet_set(films / "watched", DuetSettings(films=10, size=32))
    return films


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory):
    """A function that gives the folder of an undisturbed run, which is made once."""
    made = {}

    def whole(run, name):
        if name not in made:
            folder = made[name] = tmp_path_factory.mktemp("whole")
            arguments = [*SETS[name], *GATHERED, f"data.root={films}"]
            assert run(train, *arguments, f"hydra.run.dir={folder}") == 0
        return made[name]

    return whole


def batches(folder):
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return last["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]


def stopped_and_resumed(run, films, name, batch, how=None):
    """Stop a run at a batch, go on, and give the exit code of the first of both."""
    arguments = [*SETS[name], *GATHERED, f"data.root={films}", "hydra.run.dir=cut"]
    by = [BY_STOPPING, f"+callbacks.stop.batch={batch}"]
    by += [] if how is None else [f"+callbacks.stop.signal={int(how)}"]
    code = run(train, *arguments, *by)
    assert run(train, *arguments) == 0
    return code


@pytest.mark.parametrize(
    "name", [ONE_SET, *(pytest.param(other, marks=pytest.mark.slow) for other in OTHERS)]
)
def test_a_run_that_was_killed_while_gathering_gradients_ends_like_an_undisturbed_one(
    run, films, whole, tmp_path, name, capsys
):
    folder = whole(run, name)
    batch = batches(folder) // 2 + 4  # in the second epoch
    assert stopped_and_resumed(run, films, name, batch) == 1
    assert f"goes on from {tmp_path}/cut/checkpoints/step.ckpt (step" in capsys.readouterr().err
    assert_equal_runs(folder, tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_a_run_can_be_killed_at_any_batch(run, films, whole, tmp_path, name):
    folder = whole(run, name)
    for batch in range(0, batches(folder), 7):  # of gathering by 3 every place, in some epoch
        stopped_and_resumed(run, films, name, batch)
        assert_equal_runs(folder, tmp_path / "cut")
        (tmp_path / "cut").rename(tmp_path / f"cut{batch}")


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_a_run_after_its_step_with_a_checkpoint(run, films, whole, tmp_path, how):
    name = "one set, cropped and mirrored"
    folder = whole(run, name)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    arguments = [*SETS[name], *GATHERED, f"data.root={films}", "hydra.run.dir=cut",
                 "callbacks.step_checkpoint.every_n_steps=null"]  # fmt: skip
    by = [BY_STOPPING, "+callbacks.stop.batch=1", f"+callbacks.stop.signal={int(how)}"]
    assert run(train, *arguments, *by) == 128 + how
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    saved = torch.load(tmp_path / "cut/checkpoints/step.ckpt", weights_only=True)
    assert saved["global_step"] == 1  # of batches 0, 1 and 2, in the second of which it came
    assert run(train, *arguments) == 0
    assert_equal_runs(folder, tmp_path / "cut")


def test_a_second_ctrl_c_does_not_wait_for_the_step(run, films, tmp_path):
    arguments = ["experiment=lvu_genre", *GATHERED, f"data.root={films}", "hydra.run.dir=cut"]
    twice = [argument for name, batch in (("one", 0), ("two", 1)) for argument in (
        f"+callbacks.{name}._target_=support.StopAtBatch", f"+callbacks.{name}.batch={batch}",
        f"+callbacks.{name}.signal={int(signal.SIGINT)}")]  # fmt: skip
    assert run(train, *arguments, *twice, "callbacks.step_checkpoint.every_n_steps=null") == 1
    assert not (tmp_path / "cut/checkpoints/step.ckpt").exists()


def test_a_broken_checkpoint_is_passed_over_by_name(run, films, whole, tmp_path, capsys):
    name = "one set, cropped and mirrored"
    folder = whole(run, name)
    arguments = [*SETS[name], *GATHERED, f"data.root={films}", "hydra.run.dir=cut"]
    run(train, *arguments, BY_STOPPING, f"+callbacks.stop.batch={batches(folder) - 1}")
    step = tmp_path / "cut/checkpoints/step.ckpt"
    step.write_bytes(step.read_bytes()[:1000])
    (step.parent / ".step.ckpt.0123.partial").write_bytes(b"of a process that was killed")
    assert run(train, *arguments) == 0
    said = capsys.readouterr().err
    assert f"passed over: checkpoint {step} cannot be" in said
    assert f"goes on from {step.parent}/last.ckpt (step" in said
    assert_equal_runs(folder, tmp_path / "cut")
    assert not list(step.parent.glob(".*"))


@pytest.mark.slow
def test_a_finished_first_stage_is_not_trained_again(run, films, tmp_path, capsys, monkeypatch):
    arguments = ["experiment=demo", "prepare=null", *GATHERED, f"data.root={films}",
                 "data.keep_frames=false", "test=true", "trainer.max_epochs=1"]  # fmt: skip
    assert run(train, *arguments, "hydra.run.dir=whole") == 0
    cut = [*arguments, "hydra.run.dir=cut", BY_STOPPING, "+callbacks.stop.batch=4"]
    assert run(train, *cut) == 1
    monkeypatch.delattr(StopAtBatch, "on_train_batch_start")
    first = tmp_path / "cut/demo_alignment"
    written = (first / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert run(train, *cut) == 0
    assert f"the run in {first} is finished" in capsys.readouterr().err
    assert (first / "checkpoints/last.ckpt").stat().st_mtime_ns == written
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_is_finished_is_left_as_it_is_until_its_settings_change(
    run, films, tmp_path, capsys
):
    arguments = ["experiment=lvu_genre", *SMALL, "test=false", f"data.root={films}",
                 "hydra.run.dir=one", "resume=auto", "trainer.log_every_n_steps=1"]  # fmt: skip
    assert run(train, *arguments) == 0
    missed = f"no checkpoint in {tmp_path}/one/checkpoints, the run starts anew"
    assert missed in capsys.readouterr().err
    report = tmp_path / "one/report.html"
    written = report.stat().st_mtime_ns
    assert run(train, *arguments) == 0
    assert report.stat().st_mtime_ns == written
    assert run(train, *arguments, "trainer.max_epochs=2") == 0
    last, _ = left(tmp_path / "one")
    assert last["epoch"] == 1
    rows = (tmp_path / "one/csv/metrics.csv").read_text().splitlines()
    at = rows[0].split(",").index("step")
    steps = {int(row.split(",")[at]) for row in rows[1:]}
    assert steps >= set(range(last["global_step"]))
