"""A film of which only features are left serves as the film would."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from damage import flip
from mmavlm import cache, train
from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.items import Item
from mmavlm.data.collate import collate
from mmavlm.data.dataset import BrokenItem, VideoDataset
from mmavlm.data.film_features import FORMAT, write_film_features
from mmavlm.data.sources import FrameSource
from support import SMALL, tiny_backbone

OWN = [
    "experiment=own_videos", *SMALL, "data.root=data", "data.crop=false", "data.flip=false",
    "data.subtitles=true",
]  # fmt: skip


def tokens(frames=3, encoder=None):
    shape = (encoder.num_tokens, encoder.width) if encoder else (4, 8)
    return torch.randn(frames, *shape, generator=torch.Generator().manual_seed(0)).half()


def kept(path, features=None, fps=1.0):
    write_film_features(path, tokens() if features is None else features, fps)
    return path


def item(source):
    return Item.question(
        item_id=source.stem, video_id=source.stem, source=source, prompt="why?", target="so",
        task="open",
    )  # fmt: skip


def dataset(*sources):
    return VideoDataset(list(map(item, sources)), num_frames=4, image_size=32)


@pytest.fixture
def stories(tmp_path):
    """A set of one film in each split, of which features of the tiny encoder's sizes are left."""
    root, encoder = tmp_path / "data", tiny_backbone().vision.encoder
    for split in ("train", "val", "test"):
        row = {"video": f"{split}.safetensors", "prompt": "why?", "answer": "so"}
        kept(root / f"{split}.safetensors", tokens(3, encoder))
        (root / f"{split}.json").write_text('[{"start": 1, "end": 1.9, "text": "Hello."}]')
        (root / f"{split}.jsonl").write_text(json.dumps(row))
    return root


def test_the_cache_takes_features_as_they_are(run, stories, tmp_path):
    held = load_file(stories / "train.safetensors")["features"]
    assert run(cache, *OWN, "data.cache=cache") == 0
    files = (tmp_path / "cache").glob("*/*/*.safetensors")
    entries = [load_file(path)["features"] for path in files]
    assert len(entries) == 3
    assert all(torch.equal(entry, held) for entry in entries)


@pytest.mark.slow
@pytest.mark.parametrize("cached", ["data.cache=cache", "data.cache=null"])
def test_a_run_trains_on_features_with_a_cache_and_without(run, stories, cached):
    assert run(train, *OWN, cached, "hydra.run.dir=run") == 0


def test_features_of_another_encoder_are_refused_by_their_sizes(run, stories, capsys):
    kept(stories / "val.safetensors")
    assert run(cache, *OWN, "data.cache=cache", "splits=[val]") == 1
    assert "a film's features are (3, 4, 8), but this encoder gives" in capsys.readouterr().err
    batch = collate(list(dataset(stories / "val.safetensors")))
    with pytest.raises(ConfigError, match="4 tokens of width 8 a frame, but TinyEncoder gives"):
        tiny_backbone().watch(batch)


def test_a_batch_of_pictures_and_features_is_refused(tmp_path, make_clip):
    samples = list(dataset(kept(tmp_path / "a.safetensors"), make_clip("b.mp4", 5)))
    with pytest.raises(ConfigError, match=r"float16 \(4, 8\) and torch.uint8 .*set data.cache"):
        collate(samples)


def test_a_film_of_features_has_times_and_a_length_but_no_pictures(tmp_path):
    source = FrameSource(kept(tmp_path / "a.safetensors", fps=2.0))
    assert source.times_s.tolist() == [0, 0.5, 1]
    assert source.duration_s == 1.5
    assert FrameSource(kept(tmp_path / "one.safetensors", tokens(1))).duration_s == 1
    with pytest.raises(VideoError, match="holds features of a film and no pictures"):
        list(source.pictures([0.0]))


def test_a_damaged_frame_is_found_when_it_is_read_and_the_others_are_not_touched(tmp_path):
    path = kept(tmp_path / "a.safetensors", tokens(8))
    flip(path, 0.99, 8)
    source = FrameSource(path)
    assert torch.equal(source.read([0.0, 1.0], None)[0], tokens(8)[:2])
    with pytest.raises(VideoError, match="checksum of a frame's features is another"):
        source.read([7.0], None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"times_s": torch.tensor([0.0, 2, 1])}, "do not ascend from 0"),
        ({"times_s": torch.tensor([1.0, 2, 3])}, "do not ascend from 0"),
        ({"times_s": torch.arange(2.0)}, "expected times_s F32"),
        ({"features": tokens().float()}, "expected times_s F32"),
        ({"features": tokens()[:, 0].clone()}, "expected times_s F32"),
        ({"more": torch.zeros(1)}, "expected times_s F32"),
    ],
)
def test_a_file_of_something_else_is_a_broken_film_that_is_named(tmp_path, change, reason):
    path = kept(tmp_path / "a.safetensors")
    save_file({**load_file(path), **change}, path, {"format": FORMAT})
    (broken,) = dataset(path)
    assert isinstance(broken, BrokenItem)
    assert reason in broken.reason
    assert str(path) in broken.reason


def test_a_file_that_is_none_of_ours_cut_short_or_missing_is_named(tmp_path):
    other, short = tmp_path / "weights.safetensors", kept(tmp_path / "a.safetensors")
    save_file({"weight": torch.zeros(2)}, other)
    short.write_bytes(short.read_bytes()[:-8])
    for path, reason in (
        (other, FORMAT),
        (short, "no features"),
        (tmp_path / "b.safetensors", "not exist"),
    ):
        with pytest.raises(VideoError, match=reason):
            FrameSource(path).read([0.0], None)


def test_others_may_read_what_they_may_read_of_any_new_file(tmp_path):
    (tmp_path / "other").touch()
    path = kept(tmp_path / "a.safetensors")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("features", [tokens(0), tokens()[0], tokens() * torch.inf])
def test_what_is_no_film_is_not_written(tmp_path, features):
    with pytest.raises(DataError):
        kept(tmp_path / "a.safetensors", features)
    assert not list(tmp_path.iterdir())
