"""Runs with TensorBoard and Weights & Biases, whose files are read back: what do they show?"""

import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from mmavlm import evaluate, train
from support import SMALL

wandb = pytest.importorskip("wandb")
pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from wandb_records import artifacts, logged, media  # noqa: E402

WANDB = "lightning.pytorch.loggers.WandbLogger"


@pytest.fixture
def shown(run, films, tmp_path, monkeypatch):
    """A function that trains with both loggers; gives the run's folder and TensorBoard's events."""
    wandb.teardown()  # what an earlier test began knows nothing of these
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))
    both = ["logger=tensorboard", f"+logger.wandb._target_={WANDB}", "+logger.wandb.project=tests",
            "+logger.wandb.save_dir=${paths.run}", f"hydra.run.dir={tmp_path}/run"]  # fmt: skip

    def shown(*arguments):
        assert run(train, *SMALL, *arguments, f"data.root={films}", *both) == 0
        wandb.finish()
        return tmp_path / "run", events_of(tmp_path / "run")

    yield shown
    wandb.teardown()


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
