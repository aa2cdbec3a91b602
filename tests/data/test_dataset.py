from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.streams import labels_of
from mmavlm.core.turns import FrameLabels, Shown, Turn
from mmavlm.data.collate import collate
from mmavlm.data.dataset import BrokenItem, VideoDataset
from mmavlm.data.probe import probe
from mmavlm.data.probe_index import ProbeIndex
from mmavlm.data.transforms import ClipTransform
from mmavlm.data.video import read_frames


def item(source, name="q", **settings):
    return Item.question(
        item_id=name,
        video_id=source.stem,
        source=source,
        prompt=f"what of {name}?",
        target=f"answer {name}",
        task="open",
        **settings,
    )


def dataset(*items, **settings):
    return VideoDataset(items, **{"num_frames": 8, "image_size": 32, **settings})


def test_evaluation_reads_evenly_spaced_whole_frames(make_clip):
    path = make_clip(frames=30)
    (sample,) = dataset(item(path), num_frames=4)
    times_s = [probe(path).times_s[k] for k in np.linspace(0, 29, 4).round().astype(int)]
    expected, expected_s = read_frames(path, times_s, ClipTransform(32, None))
    assert torch.equal(sample.films[0].frames, expected)
    torch.testing.assert_close(sample.films[0].timestamps_s, expected_s)


def test_training_draws_anew_each_epoch_and_the_same_for_the_same_seed(make_clip):
    path = make_clip(frames=30)
    settings = {"train": True, "num_frames": 4}
    data, same = (dataset(item(path), item(path), seed=5, **settings) for _ in range(2))
    other = dataset(item(path), item(path), seed=6, **settings)
    assert torch.equal(data[3, 0].films[0].frames, same[3, 0].films[0].frames)
    assert torch.equal(data[3, 0].films[0].timestamps_s, same[3, 0].films[0].timestamps_s)
    for sample in (data[4, 0], data[3, 1], other[3, 0]):
        assert not torch.equal(data[3, 0].films[0].frames, sample.films[0].frames)


@pytest.mark.parametrize("settings", [{}, {"train": True}, {"keep_frames": True}])
def test_so_many_frames_a_second_are_taken_from_the_start_on(make_clip, settings):
    long, short = item(make_clip(frames=30)), item(make_clip("b.mp4", 3))
    part = item(long.film.source, start_s=1.0, end_s=2.2)
    data = dataset(long, part, short, num_frames=5, sample_fps=2.0, crop=False, **settings)
    times_s = [[round(t, 4) for t in s.films[0].timestamps_s.tolist()] for s in data]
    assert times_s == [[0.0, 0.5, 1.0, 1.5, 2.0], [1.0, 1.5], [0.0]]
    assert [frames for frames, _ in data.lengths()] == [5, 2, 1]


def test_a_film_of_uneven_frames_keeps_their_times(make_clip):
    pts = [0, 130, 300, 310, 900, 1250, 1700]
    path = make_clip("uneven.mkv", 7, pts=pts)
    (sample,) = dataset(item(path), sample_fps=4.0, num_frames=100)
    assert [round(1000 * t) for t in sample.films[0].timestamps_s.tolist()] == [
        0, 130, 310, 900, 1250,
    ]  # fmt: skip


def test_streams_have_their_frames_when_films_are_read(make_clip):
    film = Medium(medium_id="a", source=make_clip(frames=30))
    stream = Turn(
        "stream",
        (Shown(0),),
        until_s=1.2,
        labels=(FrameLabels("informative", ((0.6, 1.2),)),),
    )
    turns = (
        Turn("user", ("Tell me.",)),
        stream,
        Turn("assistant", ("Now.",), learned=True),
        replace(stream, until_s=None, labels=(FrameLabels("informative"),)),
    )
    talk = Conversation(turns, (film,))
    items = [Item(item_id=name, conversation=talk, task="t") for name in "ab"]
    batch = collate([*dataset(*items, num_frames=100, sample_fps=2.0)])
    for told, times_s in zip(batch.conversations, batch.timestamps_s, strict=True):
        assert [turn.parts[0].frames for turn in told.turns[1::2]] == [(0, 4), (4, 6)]
        assert labels_of(told.turns[1], times_s.tolist()) == {"informative": [0, 0, 1, 1]}
        assert labels_of(told.turns[3], times_s.tolist()) == {"informative": [0, 0]}
    assert batch.rows([1]).conversations == batch.conversations[1:]


def test_a_stream_of_which_nothing_is_shown_breaks_its_item_alone(make_clip):
    film = Medium(medium_id="a", source=make_clip(frames=30))
    early = Turn("stream", (Shown(0),), until_s=0.0)
    talk = Conversation((early, Turn("user", ("Why?",)), Turn("assistant", ("So.",))), (film,))
    (broken,) = dataset(Item(item_id="x", conversation=talk, task="t"))
    assert "item 'x': its streams cannot be shown" in broken.reason


def test_a_plain_index_is_that_of_epoch_0(make_clip):
    data = dataset(item(make_clip(frames=30)), train=True)
    assert torch.equal(data[0].films[0].frames, data[0, 0].films[0].frames)


def test_a_stretch_of_a_film_gives_frames_of_that_stretch(make_clip):
    (sample,) = dataset(item(make_clip(frames=30), start_s=1.0, end_s=1.5))
    torch.testing.assert_close(
        sample.films[0].timestamps_s, torch.tensor([1.0, 1.1, 1.2, 1.3, 1.4])
    )


def test_kept_frames_are_decoded_once_and_still_mirrored(make_clip):
    path = make_clip(frames=30)
    data = dataset(item(path), train=True, crop=False, keep_frames=True)
    whole = dataset(item(path))[0].films[0].frames
    seen = [data[epoch, 0].films[0].frames for epoch in range(12)]
    mirrored = [torch.equal(frames, whole.flip(-1)) for frames in seen]
    upright = [torch.equal(frames, whole) for frames in seen]
    assert any(mirrored)
    assert any(upright)
    assert all(m != u for m, u in zip(mirrored, upright, strict=True))
    assert len(data.kept) == 1


def test_kept_frames_and_random_crops_exclude_each_other(tmp_path):
    message = r"data\.keep_frames=true keeps whole pictures.*set data\.crop=false, or data\.keep"
    with pytest.raises(ConfigError, match=message):
        dataset(item(tmp_path / "a.mp4"), train=True, keep_frames=True)


def test_a_broken_film_is_named_with_its_reason(tmp_path):
    (tmp_path / "a.mp4").touch()
    (broken,) = dataset(item(tmp_path / "a.mp4"))
    assert isinstance(broken, BrokenItem)
    assert broken.reason == f"{tmp_path / 'a.mp4'} is empty (0 bytes)"


@pytest.mark.parametrize("indexed", [True, False])
def test_a_film_that_vanishes_while_training_is_named(make_clip, tmp_path, indexed):
    path = make_clip(frames=10)
    index = ProbeIndex(tmp_path / "index", tmp_path) if indexed else None
    data = dataset(item(path), train=True, index=index)
    assert not isinstance(data[0, 0], BrokenItem)
    path.unlink()
    assert data[1, 0].reason == f"{path} does not exist"


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("frames", [12, 45])
def test_a_film_replaced_by_one_of_another_length_is_read_as_it_is_now(
    make_clip, tmp_path, indexed, frames
):
    path = make_clip("a.mp4", 30)
    index = ProbeIndex(tmp_path / "index", tmp_path) if indexed else None
    data = dataset(item(path), index=index)
    before = data[0].films[0].timestamps_s
    make_clip("a.mp4", frames)
    (now,) = dataset(item(path))
    assert torch.equal(data[0].films[0].frames, now.films[0].frames)
    assert torch.equal(data[0].films[0].timestamps_s, now.films[0].timestamps_s)
    assert float(now.films[0].timestamps_s[-1]) != float(before[-1])


def test_a_mistake_in_the_code_is_not_taken_for_a_broken_film(make_clip):
    data = dataset(item(make_clip(frames=5)), num_frames="many")
    with pytest.raises(TypeError):
        data[0]


def test_batches_are_padded_at_the_end_and_masked(make_clip):
    long = item(make_clip("long.mp4", 30), "a", label=3)
    short = item(make_clip("short.mp4", 3), "b")
    samples = list(dataset(long, short))
    batch = collate(samples)
    assert batch.frames.shape == (2, 8, 3, 32, 32)
    assert batch.frame_mask.tolist() == [[True] * 8, [True] * 3 + [False] * 5]
    assert torch.equal(batch.frames[1, :3], samples[1].films[0].frames)
    assert torch.equal(batch.timestamps_s[1, :3], samples[1].films[0].timestamps_s)
    assert not batch.frames[1, 3:].any()
    assert not batch.timestamps_s[1, 3:].any()
    assert (batch.item_id, batch.video_id) == (["a", "b"], ["long", "short"])
    assert (batch.prompt, batch.target) == (["what of a?", "what of b?"], ["answer a", "answer b"])
    assert batch.label.tolist() == [3, -1]
    assert batch.broken == ()


def test_broken_items_are_named_not_replaced(make_clip, tmp_path):
    (tmp_path / "bad.mp4").touch()
    good = make_clip("good.mp4", 5)
    samples = list(dataset(item(tmp_path / "bad.mp4", "x"), item(good, "y")))
    batch = collate(samples)
    assert batch.item_id == ["y"]
    assert torch.equal(batch.frames[0], samples[1].films[0].frames)
    assert batch.broken == (f"bad: {tmp_path / 'bad.mp4'} is empty (0 bytes)",)


def test_a_batch_of_broken_items_alone_has_no_rows(tmp_path):
    items = [item(tmp_path / f"{name}.mp4", name) for name in "ab"]
    batch = collate(list(dataset(*items)))
    assert len(batch) == 0
    assert (batch.frames, batch.features, batch.frame_mask.shape) == (None, None, (0, 0))
    assert batch.label.shape == (0,)
    assert [entry.partition(": ")[0] for entry in batch.broken] == ["a", "b"]


def shown(*media, name="q", answer="nothing"):
    """An item that shows the media one after the other and asks about all."""
    turn = Turn("user", (*(Shown(number) for number in range(len(media))), f"what of {name}?"))
    talk = Conversation((turn, Turn("assistant", (answer,), learned=True)), media)
    return Item(item_id=name, conversation=talk, task="open")


def medium(path, **settings):
    return Medium(medium_id=path.stem, source=path, **settings)


@pytest.fixture
def media(make_clip, tmp_path):
    """A long film, a short one, and a picture."""
    Image.new("RGB", (20, 10), (200, 0, 0)).save(tmp_path / "red.png")
    films = [medium(make_clip("long.mp4", 30)), medium(make_clip("short.mp4", 3))]
    return [*films, medium(tmp_path / "red.png", kind="picture")]


def test_a_batch_has_a_row_for_each_medium_of_its_conversations(media):
    long, short, red = media
    items = [shown(long, short, name="two"), shown(name="none"), shown(red, name="picture"),
             shown(long, long, name="twice")]  # fmt: skip
    batch = collate(list(dataset(*items)))
    assert batch.media_rows == [(0, 1), (), (2,), (3, 4)]
    assert batch.frame_mask.sum(1).tolist() == [8, 3, 1, 8, 8]
    alone = [dataset(shown(film))[0].films[0] for film in (long, short, red, long, long)]
    for row, film in enumerate(alone):
        assert torch.equal(batch.frames[row, : len(film.frames)], film.frames)
        assert torch.equal(batch.timestamps_s[row, : len(film.frames)], film.timestamps_s)
    assert batch.frames[2, 0].float().mean((1, 2)).tolist() == [200, 0, 0]
    assert batch.conversations == [item.conversation for item in items]
    assert batch.video_id == ["long", "none", "red", "long"]


def test_the_first_film_of_an_item_is_drawn_as_if_it_were_alone(media):
    long, short, _ = media
    both, alone = (dataset(shown(*m), train=True)[3, 0] for m in ((long, short), (long,)))
    assert torch.equal(both.films[0].frames, alone.films[0].frames)
    assert torch.equal(both.films[0].timestamps_s, alone.films[0].timestamps_s)


def test_a_batch_that_shows_nothing_has_no_frames():
    batch = collate(list(dataset(shown(name="a"), shown(name="b"), train=True)))
    assert (batch.frames, batch.features, batch.frame_mask.shape) == (None, None, (0, 0))
    assert (batch.media_rows, batch.target) == ([(), ()], ["nothing", "nothing"])


def test_an_item_of_which_any_medium_is_broken_is_named_by_that_medium(media, tmp_path):
    (tmp_path / "bad.mp4").touch()
    long, bad = media[0], medium(tmp_path / "bad.mp4")
    (broken,) = dataset(shown(long, bad))
    batch = collate([broken])
    assert batch.broken == (f"bad: {bad.source} is empty (0 bytes)",)
    assert len(batch) == 0


def test_a_stretch_that_a_film_does_not_have_is_told_with_its_item(media):
    late = replace(media[0], start_s=60.0)
    (broken,) = dataset(shown(media[1], late, name="late"))
    assert broken.reason.startswith(f"item 'late': {late.source} lasts 3.000 s, but is asked about")


def test_a_sound_is_refused_and_its_item_named(tmp_path):
    sound = Medium(medium_id="s", source=tmp_path / "s.wav", kind="sound")
    with pytest.raises(
        DataError, match=r"item 'q' lets the sound .*s\.wav be heard, but no sounds"
    ):
        dataset(shown(sound))


def test_lengths_are_the_longest_film_and_the_words_of_all_turns(media):
    long, short, red = media
    items = [shown(long, short), shown(short, red), shown(red, answer="a b c"), shown()]
    assert dataset(*items).lengths().tolist() == [[8, 4], [3, 4], [1, 6], [0, 4]]


def test_an_item_says_where_all_that_it_shows_lies(media):
    long, short, _ = media
    data = dataset(shown(long, short), shown(name="nothing"))
    assert data.source(0) == f"{long.source}, {short.source}"
    assert data.source(1) == "nothing"
