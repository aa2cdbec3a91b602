"""Runs with TensorBoard and Weights & Biases, whose files are read back: what do they show?"""

import hashlib
import io
import json

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from PIL import Image

from mmavlm import evaluate, train
from mmavlm.callbacks import failure_ends_wandb, wandb_to_end
from support import SMALL

wandb = pytest.importorskip("wandb")
pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from wandb_records import artifacts, logged, media, records  # noqa: E402

WANDB = "lightning.pytorch.loggers.WandbLogger"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A W&B of this test's own, which leaves nothing elsewhere."""
    wandb.teardown()  # what an earlier test began knows nothing of these
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    yield
    wandb.teardown()


@pytest.fixture
def shown(run, films, tmp_path, offline):
    """A function that trains with both loggers; gives the run's folder and TensorBoard's events."""
    both = ["logger=tensorboard", f"+logger.wandb._target_={WANDB}", "+logger.wandb.project=tests",
            "+logger.wandb.save_dir=${paths.run}", f"hydra.run.dir={tmp_path}/run"]  # fmt: skip

    def shown(*arguments):
        assert run(train, *SMALL, *arguments, f"data.root={films}", *both) == 0
        wandb.teardown()  # which waits until all is on the disk
        return tmp_path / "run", events_of(tmp_path / "run")

    return shown


def events_of(folder):
    """What TensorBoard reads of a run, without leaving anything out."""
    return EventAccumulator(str(folder / "tensorboard"), {"images": 0, "tensors": 0}).Reload()


def pictures(events, name):
    """The pictures of TensorBoard under a name, one a step."""
    encoded = [image.encoded_image_string for image in events.Images(name)]
    return [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in encoded]


def text(events, name):
    """The last text of TensorBoard under a name."""
    return events.Tensors(f"{name}/text_summary")[-1].tensor_proto.string_val[0].decode()


def test_a_run_shows_answers_confusions_explanations_its_data_and_its_model(shown, films):
    folder, events = shown("experiment=lvu_genre", "callbacks.explanations.per_task=1",
                           "trainer.max_epochs=2", "callbacks.pictures.model=true")  # fmt: skip
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").open()]
    images, values, stored = events.Tags()["images"], logged(folder), artifacts(folder)

    for split, times in (("val", 2), ("test", 1)):
        assert len(pictures(events, f"{split}/answers/1")) == times
        (drawn, *_) = pictures(events, f"{split}/confusion/genre")
        tables, maps = values[f"{split}/answers"], values[f"{split}/confusion"]
        assert len(tables) == len(maps) == times
        with Image.open(media(folder, maps[0]["filenames"][0])) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), drawn)
        assert maps[0]["captions"] == ["genre"]
    assert sum(name.startswith("test/explanations/") for name in images) == 1
    assert values["test/explanations"][0]["count"] == 1

    table = json.loads(media(folder, values["test/answers"][0]["path"]).read_text())
    told = {row[1]: row for row in table["data"]}
    assert len(told) == len(rows)
    for row in rows:
        _, _, question, answer, truth, right, *_ = told[row["video_id"]]
        assert (question, truth) == (row["prompt"], row["truth"])
        assert answer == row["answers"][0]["text"]
        assert right == ("right" if answer == truth else "wrong")
        assert row["video_id"] in text(events, "test/answers")

    checkpoint, written = folder / "checkpoints/best.ckpt", stored["model"].manifest.contents
    assert json.loads(stored["model"].metadata)["sha256"] == digest(checkpoint)
    assert [(file.path, file.size) for file in written] == [
        ("best.ckpt", checkpoint.stat().st_size)
    ]
    assert {*stored["model"].aliases} == {"best", "latest"}
    assert digest(checkpoint) in text(events, "model")

    sums = json.loads(stored["dataset"].metadata)["files"]
    assert set(sums) == {f"lvu/annotation/{split}.json" for split in ("train", "val", "test")}
    for file in stored["dataset"].manifest.contents:
        path = films / file.path
        assert (file.ref, file.local_path) == (path.as_uri(), ""), "a reference, no copy"
        assert sums[file.path] == {"bytes": path.stat().st_size, "sha256": digest(path)}
        assert digest(path) in text(events, "data")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_stage_1_shows_which_film_is_like_which_text_at_each_level(shown):
    folder, events = shown("experiment=webvid_alignment")
    assert events.Tags()["images"] == [
        "val/similarity/films and texts",
        "test/similarity/films and texts",
    ]
    values = logged(folder)
    assert not {"val/answers", "val/confusion", "test/answers"} & values.keys()
    (drawn,) = pictures(events, "test/similarity/films and texts")
    (shown_there,) = values["test/similarity"]
    assert (shown_there["height"], shown_there["width"]) == drawn.shape[:2]
    assert "model" not in artifacts(folder), "only where it was asked for"


def test_an_evaluation_shows_its_answers_and_data(run, trained, tmp_path):
    arguments = [f"checkpoint={trained}/checkpoints/best.ckpt", "logger=tensorboard"]
    assert run(evaluate, *arguments, "hydra.run.dir=again") == 0
    events = events_of(tmp_path / "again")
    assert {"test/answers/1", "test/confusion/genre"} <= {*events.Tags()["images"]}
    assert "lvu/annotation/test.json" in text(events, "data")


@pytest.mark.usefixtures("offline")
def test_each_job_of_a_sweep_is_a_run_of_its_own(run, films, tmp_path):
    arguments = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "test=false", "logger=wandb"]
    assert run(train, "-m", *arguments, "seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep") == 0
    wandb.teardown()
    for job in range(2):
        assert "val/accuracy" in logged(tmp_path / "sweep" / str(job))


@pytest.mark.usefixtures("offline")
def test_an_error_ends_the_run_of_wandb_but_not_one_that_was_open_before(tmp_path):
    loggers = [WandbLogger(project="tests", save_dir=tmp_path), CSVLogger(tmp_path)]
    ours = wandb_to_end(loggers)
    assert ours == loggers[:1]
    ours[0].log_metrics({"loss": 1.0})
    with pytest.raises(OSError, match="disk"), failure_ends_wandb(ours):
        raise OSError("disk")
    assert wandb.run is None
    wandb.teardown()
    assert [r.exit.exit_code for r in records(tmp_path) if r.HasField("exit")] == [1]

    with wandb.init(project="tests", dir=tmp_path / "theirs"):
        assert wandb_to_end(loggers) == []
