"""Twins of training films: how often an epoch shows them, and what cannot be read."""

import json
from collections import Counter
from statistics import median

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.collate import collate
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.mix import MixedDataModule
from mmavlm.data.order import EpochOrder
from mmavlm.data.readers import OwnReader
from mmavlm.data.twins import films_of_twins, is_twin
from mmavlm.movies.bias import BiasSettings, make_bias_set
from mmavlm.movies.generators import ProceduralImages

TWIN = {"counterfactual_of": "f.mp4", "removed": "cat"}


def write(root, name, tasks, **more):
    rows = [
        {
            "video": "f.mp4",
            "prompt": "a cat?",
            "answer": "no",
            "task": task,
            "id": f"{name}{n}",
            **more,
        }
        for n, task in enumerate(tasks)
    ]
    (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "f.mp4").touch()
    for split in ("train", "val", "test"):
        write(tmp_path, split, "aaaaaabb")
    write(tmp_path, "counterfactual", "abbb", **TWIN)
    return tmp_path


def data(root, **given):
    settings = {
        "num_workers": 0,
        "image_size": 16,
        "num_frames": 2,
        "counterfactual": True,
        **given,
    }
    return VideoDataModule(OwnReader(), root, **settings)


def visited(module, epochs=1):
    order, items = EpochOrder(module.draws(), 0), module.items("train")
    times = Counter()
    for epoch in range(epochs):
        order.set_epoch(epoch)
        times.update(items[index].item_id for _, index in order)
    return times


def test_half_of_an_epoch_as_long_as_before_are_twins(root):
    module = data(root)
    times = visited(module)
    assert sum(times.values()) == 8
    assert {name: times[name] for name in times if name.startswith("counter")} == {
        f"counterfactual{n}": 1 for n in range(4)
    }  # fmt: skip
    assert set(visited(module, epochs=2).values()) == {1, 2}  # of 8 films 4 in each epoch
    assert len(module.items("val")) == len(module.items("test")) == 8


def test_a_share_of_twins_may_be_given_and_an_epochs_length(root):
    times = visited(data(root, counterfactual_share=0.25, epoch_items=32))
    assert sum(n for name, n in times.items() if name.startswith("counter")) == 8
    assert sum(times.values()) == 32


def test_groups_are_balanced_among_films_and_among_twins(root):
    module = data(root, sampling={"equal": ["task"]}, epoch_items=48)
    tasks = {item.item_id: (item.item_id[:5], item.task) for item in module.items("train")}
    times = Counter()
    for name, number in visited(module).items():
        times[tasks[name]] += number
    assert times == {
        ("train", "a"): 12, ("train", "b"): 12, ("count", "a"): 12, ("count", "b"): 12,
    }  # fmt: skip


def test_a_mix_shows_twins_in_each_of_its_sets(root):
    sets = {name: data(root, counterfactual=None) for name in ("one", "two")}
    mixed = MixedDataModule(sets, counterfactual=True, image_size=16, num_workers=0)
    times = visited(mixed)
    assert sum(times.values()) == 16  # of each as many as without twins
    assert sum(n for name, n in times.items() if "counterfactual" in name) == 8


def test_without_the_setting_no_twin_is_read(root):
    (root / "counterfactual.jsonl").unlink()
    assert visited(data(root, counterfactual=None)) == {f"train{n}": 1 for n in range(8)}


def apart(film, other):
    """How far the pictures of two films are apart, of 255."""
    return (film.frames.float() - other.frames.float()).abs().mean().item()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    root = tmp_path_factory.mktemp("films")
    settings = BiasSettings(films=40, frames=1, counterfactual=True)
    make_bias_set(root, settings, ProceduralImages(size=32))
    return root


def test_the_same_question_has_another_answer_of_the_twin_that_an_item_brings(films):
    items = data(films).items("train")
    found = films_of_twins(items)
    asked = {(i.conversation.media[0].medium_id, i.prompt): i.target for i in items}
    for index, film in found.items():
        item = items[index]
        assert {item.target, asked[film.medium_id, item.prompt]} == {"yes", "no"}
        other = next(i for i in items if i.conversation.media[0].medium_id == film.medium_id)
        assert is_twin(item) != is_twin(other)
    # a twin lacks one object; of its two questions the other has the same answer
    assert len(found) == sum(map(is_twin, items))
    assert sum(is_twin(items[index]) for index in found) == len(found) / 2


@pytest.mark.parametrize("keep_frames", [False, True])
def test_a_twin_is_cropped_and_mirrored_as_its_film(films, keep_frames):
    module = data(films, twin_films=True, keep_frames=keep_frames, crop=not keep_frames)
    dataset = module.dataset("train")
    found = films_of_twins(module.items("train"))
    samples = [dataset[3, index] for index in range(len(dataset))]
    for index, sample in enumerate(samples):
        assert len(sample.twins) == (index in found)
    drawn_anew = {at: dataset[4, at] for at in found}
    near = [apart(samples[at].films[0], samples[at].twins[0]) for at in found]
    far = [apart(samples[at].films[0], drawn_anew[at].twins[0]) for at in found]
    assert 0 < median(near) < median(far) / 2
    some = [at for at in range(len(samples)) if at not in found][:2] + list(found)[:2]
    batch = collate([samples[at] for at in some])
    assert batch.twin_rows == [None, None, 4, 5]
    assert batch.frames[4].equal(samples[some[2]].twins[0].frames)


def test_evaluation_shows_no_twins_and_without_the_setting_none_come_along(films):
    assert data(films, twin_films=True).dataset("val")[0].twins is None
    batch = collate([data(films).dataset("train")[0, 0]])
    assert batch.twin_rows is None


def test_a_mix_brings_twins_along(films):
    sets = {"one": data(films, counterfactual=None)}
    mixed = MixedDataModule(
        sets, counterfactual=True, twin_films=True, image_size=16, num_workers=0
    )
    batches = list(mixed.train_dataloader())
    assert any(row is not None for batch in batches for row in batch.twin_rows)


def test_a_twin_that_cannot_be_read_is_named(films):
    module = data(films, twin_films=True)
    dataset = module.dataset("train")
    index, film = next(iter(films_of_twins(module.items("train")).items()))
    kept = film.source.read_bytes()
    film.source.write_bytes(b"none")
    try:
        reason = dataset[0, index].reason
    finally:
        film.source.write_bytes(kept)
    assert "its twin" in reason
    assert film.source.name in reason


def test_twins_that_change_no_answer_are_refused(root):
    with pytest.raises(DataError, match=r"no question about a twin below .* has another"):
        data(root, twin_films=True).dataset("train")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"twin_films": "yes"}, r"data\.twin_films must be true or false, got 'yes'"),
        (
            {"twin_films": True, "counterfactual": None},
            r"reads none; set data\.counterfactual=true",
        ),
        ({"counterfactual": "yes"}, r"data\.counterfactual must be true or false, got 'yes'"),
        ({"counterfactual_share": 0}, r"data\.counterfactual_share must be above 0, got 0"),
        ({"counterfactual_share": 1}, r"data\.counterfactual_share must be below 1, got 1"),
    ],
)
def test_settings_that_say_no_share_are_refused(root, given, complaint):
    with pytest.raises(ConfigError, match=complaint):
        data(root, **given)


def test_rows_that_are_no_twins_and_a_missing_file_are_named(root):
    write(root, "counterfactual", "a")
    with pytest.raises(DataError, match=r"row 'counterfactual0' has no 'counterfactual_of'"):
        data(root).items("train")
    (root / "counterfactual.jsonl").unlink()
    with pytest.raises(DataError, match=r"there is no .*counterfactual\.jsonl; it has rows of"):
        data(root).items("train")


def test_twins_of_films_that_training_does_not_show_are_refused(root):
    write(root, "counterfactual", "a", **{**TWIN, "counterfactual_of": "other.mp4"})
    with pytest.raises(DataError, match=r"a twin of 'other\.mp4', which is no film of training"):
        data(root).items("train")
