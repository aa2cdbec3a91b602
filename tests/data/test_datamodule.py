import json

import pytest
import torch

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.order import Draw, EpochOrder
from mmavlm.data.readers import LVUReader, OwnReader


@pytest.fixture
def root(tmp_path, make_clip):
    """Six films of 20 frames in train, three in val, two in test."""
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        names = [make_clip(f"{split}/{i}.mp4", 20).relative_to(tmp_path) for i in range(count)]
        rows = [{"video": str(name), "prompt": "who?", "answer": f"a{name}"} for name in names]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def module(root, **settings):
    defaults = {"num_frames": 4, "image_size": 16, "batch_size": 4, "num_workers": 0}
    return VideoDataModule(OwnReader(), root, **{**defaults, **settings})


def same(one, other):
    tensors = ("frames", "frame_mask", "timestamps_s", "label")
    texts = ("item_id", "prompt", "target", "task", "broken")
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in tensors) and all(
        getattr(one, n) == getattr(other, n) for n in texts
    )


def test_only_splits_that_are_used_are_read(root):
    (root / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"test\.jsonl does not exist"):
        module(root).setup("fit")
    data = module(root)
    data.splits = ("train", "val")
    data.setup("fit")
    assert len(data.items("val")) == 3


def test_every_split_is_read_whole(root):
    data = module(root)
    data.setup()
    assert [len(batch) for batch in data.train_dataloader()] == [4, 2]
    assert [len(batch) for batch in data.val_dataloader()] == [3]
    assert [name for batch in data.test_dataloader() for name in batch.video_id] == [
        "test/0.mp4",
        "test/1.mp4",
    ]
    assert data.tasks() == ["open"]
    assert data.classes == {}


def test_training_is_shuffled_and_evaluation_is_not(root):
    data = module(root)
    order = [name for batch in data.train_dataloader() for name in batch.video_id]
    assert order != sorted(order)
    assert sorted(order) == [f"train/{i}.mp4" for i in range(6)]
    evaluated = [name for batch in data.val_dataloader() for name in batch.video_id]
    assert evaluated == sorted(evaluated)


def test_items_of_a_repeated_task_are_shown_so_often_and_drawn_anew_each_time(root):
    data = module(root, repeat={"open": 3}, num_frames=2)
    shown = {}
    for batch in data.train_dataloader():
        for name, frames in zip(batch.video_id, batch.frames, strict=True):
            shown.setdefault(name, []).append(frames)
    assert {name: len(times) for name, times in shown.items()} == {
        f"train/{i}.mp4": 3 for i in range(6)
    }
    assert any(not torch.equal(first, second) for first, second, _ in shown.values())
    assert sum(len(batch) for batch in data.val_dataloader()) == 3


def test_no_two_passes_of_an_item_have_one_number():
    order = EpochOrder([Draw([0, 2], 2), Draw([1], 3)], seed=3)
    passes = []
    for epoch in range(3):
        order.set_epoch(epoch)
        passes += list(order)
    assert len(set(passes)) == len(passes) == 15


def test_a_repeated_task_that_no_item_has_is_refused(root):
    with pytest.raises(ConfigError, match=r"data.repeat names \['genre'\].*\['open'\]"):
        module(root, repeat={"genre": 2}).train_dataloader()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_gives_the_same_batches(root, workers):
    expected = list(module(root).train_dataloader())
    torch.manual_seed(7)  # what else was drawn before changes nothing
    found = list(module(root, num_workers=workers).train_dataloader())
    assert len(found) == len(expected) == 2
    assert all(same(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_finds_the_key_frames_that_the_one_before_it_kept(root, workers):
    expected = list(module(root).val_dataloader())
    for _ in range(2):
        data = module(root, index=root / ".mmavlm", num_workers=workers)
        found = list(data.val_dataloader())
        assert all(same(one, other) for one, other in zip(expected, found, strict=True))
    assert len(list((root / ".mmavlm").rglob("*.npz"))) == 3


def test_another_seed_or_epoch_gives_other_batches(root):
    first = next(iter(module(root).train_dataloader()))
    assert not same(first, next(iter(module(root, seed=1).train_dataloader())))
    loader = module(root).train_dataloader()
    loader.sampler.set_epoch(1)
    assert not same(first, next(iter(loader)))


def test_workers_give_the_batches_of_evaluation_in_order(root):
    expected = list(module(root, eval_batch_size=1).val_dataloader())
    found = list(module(root, eval_batch_size=1, num_workers=2).val_dataloader())
    assert [len(batch) for batch in found] == [1, 1, 1]
    assert all(same(one, other) for one, other in zip(expected, found, strict=True))


def test_missing_videos_within_the_budget_are_left_out(root):
    (root / "train" / "3.mp4").unlink()
    data = module(root, max_broken=0.2)
    data.setup()
    assert [item.video_id for item in data.items("train")] == [
        f"train/{i}.mp4" for i in (0, 1, 2, 4, 5)
    ]
    assert data.broken.summary() == "1 of 11 videos broken or missing"


def test_missing_videos_above_the_budget_stop_the_run(root):
    (root / "train" / "3.mp4").unlink()
    message = r"1 of 6 train videos are broken or missing, more than data\.max_broken=0\.1 allows"
    with pytest.raises(DataError, match=message + r":\n  train/3\.mp4: .*3\.mp4 does not exist"):
        module(root, max_broken=0.1).setup()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_video_is_named_in_its_batch(root, workers):
    (root / "val" / "1.mp4").write_bytes(b"")
    (batch,) = module(root, num_workers=workers).val_dataloader()
    assert batch.video_id == ["val/0.mp4", "val/2.mp4"]
    assert batch.broken == (f"val/1.mp4: {root / 'val' / '1.mp4'} is empty (0 bytes)",)


def test_limit_items_takes_the_first_of_each_split(root):
    data = module(root, limit_items=2)
    data.setup()
    counts = {split: [item.video_id for item in data.items(split)] for split in ("train", "test")}
    assert counts["train"] == ["train/0.mp4", "train/1.mp4"]
    assert len(counts["test"]) == 2


def test_setup_reads_the_splits_that_a_stage_needs(root):
    (root / "train.jsonl").write_text("{broken")
    for stage in ("test", "validate", "predict"):
        module(root).setup(stage)
    for stage in ("fit", None):
        with pytest.raises(DataError, match=r"train\.jsonl, line 1 is not JSON"):
            module(root).setup(stage)


def test_prediction_takes_the_test_split(root):
    (batch,) = module(root).predict_dataloader()
    assert batch.video_id == ["test/0.mp4", "test/1.mp4"]


def test_lvu_films_are_sampled_on_their_grid(tmp_path, make_clip):
    make_clip("lvu/videos/a.mp4", 40)
    film = {"duration": 4, "num_frames": 40, "genre": "western"}
    path = tmp_path / "lvu" / "annotation" / "train.json"
    path.parent.mkdir()
    for split in ("train", "val", "test"):
        path.with_stem(split).write_text(json.dumps({"a": film}))
    data = VideoDataModule(
        LVUReader(), tmp_path, task=["genre"], num_frames=3, image_size=16, num_workers=0
    )
    (batch,) = data.train_dataloader()
    torch.testing.assert_close(batch.timestamps_s, torch.tensor([[0.0, 2.0, 3.9]]))
    assert batch.label.tolist() == [0]
    assert data.classes == {"genre": ["western"]}


def test_an_empty_split_is_named(root):
    (root / "val.jsonl").write_text("")
    with pytest.raises(DataError, match=r"val\.jsonl holds no rows"):
        module(root).setup()
    message = r"the val split below .* has no items; `python -m mmavlm\.check data=…` shows what"
    with pytest.raises(DataError, match=message):
        VideoDataModule(lambda root, split, task: [], root).items("val")


def test_a_split_without_items_of_the_task_is_named(root):
    with pytest.raises(
        DataError, match=r"train\.jsonl has no rows of data\.task=.*genre.*are open"
    ):
        module(root, task="genre").setup()


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.root=.*none does not exist; give the folder"):
        module(tmp_path / "none")


def test_the_image_size_must_be_known_before_frames_are_read(root):
    with pytest.raises(ConfigError, match=r"data\.image_size is not set and no encoder was asked"):
        module(root, image_size=None).train_dataloader()


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("num_frames", 0, 1),
        ("batch_size", 0, 1),
        ("eval_batch_size", 0, 1),
        ("num_workers", -1, 0),
        ("decode_threads", 0, 1),
        ("max_broken", -0.1, 0),
        ("limit_items", 0, 1),
    ],
)
def test_numbers_out_of_range_are_named(tmp_path, key, value, least):
    with pytest.raises(ConfigError, match=rf"data\.{key} must be at least {least}, got {value}"):
        module(tmp_path, **{key: value})


def test_truths_that_training_has_no_class_of_are_told_before_it(root, caplog):
    for split, answers in {"train": ["Cat"], "val": ["cat", "cow", "dog"]}.items():
        rows = [
            {"video": f"{split}/{i}.mp4", "prompt": "what?", "answer": answer, "task": "animal"}
            for i, answer in enumerate(answers)
        ]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = VideoDataModule(OwnReader(closed=["animal"]), root, image_size=16, num_workers=0)
    data.items("train")
    assert "does not have" not in caplog.text
    data.items("val")
    assert (
        "2 val items of task animal are of classes that the training split does not" in caplog.text
    )
    assert "such as 'cow'" in caplog.text


WHOLE = ("num_frames", "limit_items", "batch_size", "eval_batch_size", "num_workers")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(({key: v}, f"{key} must be a whole number, got") for key in WHOLE for v in ("abc", 8.5)),
        ({"decode_threads": True}, "decode_threads must be a whole number, got True"),
        ({"max_broken": "abc"}, "max_broken must be a number, got 'abc'"),
        ({"timeout_s": "soon"}, "timeout_s must be a number, got 'soon'"),
        ({"frame_fps": 0}, "frame_fps must be above 0, got 0"),
        ({"sample_fps": 0}, "sample_fps must be above 0, got 0"),
        ({"frame_fps": -1}, "frame_fps must be above 0, got -1"),
        ({"frame_fps": float("inf")}, "frame_fps must be a number, got inf"),
        ({"repeat": 3}, "repeat=3: give a number for each"),
        ({"repeat": {"open": "twice"}}, r"repeat\.open must be a number, got 'twice'"),
    ],
)
def test_settings_that_are_no_numbers_are_named(root, settings, message):
    with pytest.raises(ConfigError, match=rf"data\.{message}"):
        module(root, **settings)


def test_the_files_that_items_were_read_from_are_known_by_their_names(root):
    data = module(root)
    assert data.annotation_files == {}
    data.splits = ("train", "val")
    data.setup("fit")
    assert data.annotation_files == {f"{s}.jsonl": root / f"{s}.jsonl" for s in ("train", "val")}
