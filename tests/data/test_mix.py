"""Several sets in one run: shares, names, batches, what cannot be."""

import json
from collections import Counter

import pytest
import torch

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.mix import MixedDataModule
from mmavlm.data.readers import LabelReader, OwnReader, QuestionReader
from public_sets import write_public_sets

FILMS = {"train": [f"f{i}" for i in range(8)], "val": ["v0", "v1"], "test": ["t0"]}
FRAMES = {"num_frames": 3, "image_size": 16}


@pytest.fixture
def root(tmp_path, make_clip):
    """Breakfast and MSVD-QA on eight films of 40 frames, and one row of one's own."""
    write_public_sets(tmp_path, FILMS, frames=40)
    for name in [name for names in FILMS.values() for name in names]:
        make_clip(f"breakfast/videos/{name}.mp4", 40)
    (tmp_path / "msvd").mkdir(exist_ok=True)
    (tmp_path / "msvd/videos").symlink_to(tmp_path / "breakfast/videos")
    for split in FILMS:
        row = {"video": "breakfast/videos/f0.mp4", "prompt": "who?", "answer": "me"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row))
    return tmp_path


def sets_of(root, **settings):
    reader = {
        "folder": "breakfast", "name": "breakfast", "prompt": "what?", "label": "class_name",
        "count_key": "frame_length",
    }  # fmt: skip
    question = QuestionReader(folder="msvd", prompt="Question: {question} Short answer:")
    settings = {**FRAMES, **settings}
    return {
        "breakfast": VideoDataModule(LabelReader(**reader), root, **settings),
        "msvd_qa": VideoDataModule(question, root, **{**settings, "num_frames": 2}),
        "own": VideoDataModule(OwnReader(), root, **settings),
    }


def mix(root, **settings):
    defaults = {"batch_size": 4, "num_workers": 0, "image_size": 16}
    return MixedDataModule(sets_of(root), **{**defaults, **settings})


def shown(data, epoch=0):
    """Set → how often an epoch shows an item of it."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return Counter(task.split("/")[0] for batch in loader for task in batch.task)


def test_each_item_is_shown_once_without_weights(root):
    assert shown(mix(root)) == {"breakfast": 8, "msvd_qa": 8, "own": 1}


def test_weights_are_shares_of_what_an_epoch_draws(root):
    data = mix(root, weights={"breakfast": 1, "msvd_qa": 2, "own": 1}, epoch_items=16)
    assert shown(data) == shown(data, 1) == {"breakfast": 4, "msvd_qa": 8, "own": 4}
    assert data.drawn() == {"breakfast": (4, 8), "msvd_qa": (8, 8), "own": (4, 1)}
    ids = Counter(i for epoch in (0, 1) for i in item_ids(data, epoch) if i.startswith("break"))
    assert len(ids) == 8  # half of them in each epoch
    assert set(ids.values()) == {1}


def item_ids(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [name for batch in loader for name in batch.item_id]


def test_a_temperature_makes_shares_more_equal(root):
    assert shown(mix(root, temperature=1)) == {"breakfast": 8, "msvd_qa": 8, "own": 1}
    assert shown(mix(root, temperature=1e6)) == {"breakfast": 6, "msvd_qa": 6, "own": 6}


def test_a_set_repeats_its_own_tasks_in_the_mix(root):
    sets = sets_of(root)
    sets["own"] = VideoDataModule(OwnReader(), root, repeat={"open": 5}, **FRAMES)
    data = MixedDataModule(sets, batch_size=4, num_workers=0, image_size=16)
    assert shown(data)["own"] == 5


def test_items_of_all_sets_share_batches_under_the_names_of_their_sets(root):
    data = mix(root)
    data.setup()
    assert data.tasks() == ["breakfast/breakfast", "msvd_qa/qa", "own/open"]
    assert list(data.classes) == ["breakfast/breakfast"]
    batches = list(data.train_dataloader())
    mixed = next(batch for batch in batches if len({t.split("/")[0] for t in batch.task}) > 1)
    for name, task, mask in zip(mixed.item_id, mixed.task, mixed.frame_mask, strict=True):
        assert name.split("/")[0] == task.split("/")[0]
        assert mask.sum() == (2 if task == "msvd_qa/qa" else 3)
    names = [name for batch in data.val_dataloader() for name in batch.item_id]
    assert len(set(names)) == len(names) == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_depends_on_seed_and_number_alone(root, workers):
    settings = {"weights": {"breakfast": 3, "msvd_qa": 1, "own": 1}, "epoch_items": 10}
    batches = []
    for _ in range(2):
        loader = mix(root, num_workers=workers, **settings).train_dataloader()
        loader.sampler.set_epoch(3)
        batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert one.item_id == other.item_id
        assert torch.equal(one.frames, other.frames)
    assert item_ids(mix(root, **settings), 3) == [i for b in batches[0] for i in b.item_id]
    assert item_ids(mix(root, seed=1, **settings), 3) != item_ids(mix(root, **settings), 3)


def test_frames_are_those_of_the_set_alone(root):
    alone = {b.item_id[0]: b.frames for b in sets_of(root, batch_size=1)["own"].val_dataloader()}
    for batch in mix(root, eval_batch_size=1).val_dataloader():
        if batch.task == ["own/open"]:
            assert torch.equal(batch.frames, alone[batch.item_id[0].removeprefix("own/")])
            return
    pytest.fail("no item of one's own")


def test_items_of_alike_length_share_batches(root):
    data = mix(root, group_by_length=True, batch_size=8)
    lengths = data.lengths()
    assert {frames for frames, _ in lengths} == {2, 3}
    masks = [batch.frame_mask for batch in data.train_dataloader()]
    assert len([mask for mask in masks if mask.all()]) >= 2


def test_broken_videos_count_for_their_set(root):
    path = root / "breakfast/videos/v1.mp4"
    path.write_bytes(b"")
    data = mix(root)
    broken = [entry for batch in data.val_dataloader() for entry in batch.broken]
    assert sorted(entry.split(":")[0] for entry in broken) == ["breakfast/v1", "msvd_qa/v1"]
    with pytest.raises(DataError, match=r"1 of 2 val videos are broken or missing"):
        data.broken.add([f"breakfast/v1: {path} is empty"])
    assert "own: 0 of 1 videos" in data.broken.summary()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"breakfast": 1, "coin": 1}}, r"weights names \['breakfast', 'coin'\], but"),
        ({"weights": {"breakfast": 0, "own": 1}}, r"data.weights.breakfast must be above 0, got 0"),
        ({"weights": {"breakfast": 1}}, r"data.sets has .*; give each set its share"),
        ({"temperature": 0}, r"data.temperature=0 with .*; give shares, or a temperature above 0"),
        (
            {"temperature": 1, "weights": {"breakfast": 1, "msvd_qa": 1, "own": 1}},
            r"data.temperature=1 with data.weights=.*; give shares, or",
        ),
        ({"epoch_items": 0}, r"data.epoch_items must be at least 1, got 0"),
        ({"batch_size": 0}, r"data.batch_size must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_a_mix_that_cannot_be_is_refused(root, settings, message):
    with pytest.raises(ConfigError, match=message):
        mix(root, **settings)


def test_sets_without_a_name_a_reader_or_with_a_cache_of_their_own_are_refused(root):
    with pytest.raises(ConfigError, match=r"data.sets is empty; add sets such as"):
        MixedDataModule({})
    with pytest.raises(ConfigError, match=r"data.sets has .*names of sets hold neither"):
        MixedDataModule({"a/b": sets_of(root)["own"]})
    with pytest.raises(ConfigError, match=r"\['breakfast', 'msvd_qa', 'own'\] of data.sets name"):
        MixedDataModule(sets_of(root, cache=root / "cache"))


def test_the_files_of_all_sets_are_known_below_the_names_of_the_sets(root):
    data = mix(root)
    data.items("val")
    found = data.annotation_files
    assert {name.split("/")[0] for name in found} == {"breakfast", "msvd_qa", "own"}
    assert found["own/val.jsonl"] == root / "val.jsonl"
    assert all(path.is_file() for path in found.values())
