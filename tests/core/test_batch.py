from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.batch import Batch
from mmavlm.core.conversation import Conversation
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Shown, Turn


def talk(*names):
    """A conversation that shows the films of these names, one after the other."""
    media = tuple(Medium(medium_id=name, source=Path(name)) for name in names)
    turn = Turn("user", (*(Shown(number) for number in range(len(media))), f"what of {names}?"))
    return Conversation((turn, Turn("assistant", ("nothing",), learned=True)), media)


def batch_of(*media_rows, frames=3):
    """Conversations about films by their rows; every pixel, time and label says whose it is."""
    count = max((row + 1 for rows in media_rows for row in rows), default=0)
    conversations = [talk(*map(str, rows)) for rows in media_rows]
    numbers = torch.arange(count)
    size = (count, frames if count else 0)
    return Batch(
        conversations=conversations,
        media_rows=list(media_rows),
        frames=numbers.to(torch.uint8).view(-1, 1, 1, 1, 1).expand(count, frames, 3, 2, 2)
        if count
        else None,
        frame_mask=torch.ones(size, dtype=torch.bool),
        timestamps_s=numbers[:, None].expand(size).float(),
        item_id=[f"i{number}" for number in range(len(media_rows))],
        task=["open"] * len(media_rows),
        label=torch.arange(len(media_rows)),
    )


def pair():
    return batch_of((0,), (1,), frames=4)


def test_to_moves_every_tensor_and_leaves_the_texts():
    batch = pair()
    moved = batch.to("meta")
    assert {moved.frames.device.type, moved.frame_mask.device.type, moved.label.device.type} == {
        "meta"
    }
    assert moved.conversations == batch.conversations
    assert batch.frames.device.type == "cpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": None}, r"frame_mask must be \(M,T\)=\(0, 0\), got \(2, 4\)"),
        ({"features": torch.zeros(2, 4, 5, 6)}, "at most one of frames and features"),
        ({"frames": torch.zeros(2, 4, 3, 8, 8)}, r"frames must be uint8 \(M,T,3,H,W\).*float32"),
        ({"frame_mask": torch.ones(2, 3, dtype=torch.bool)}, r"frame_mask must be .*\(2, 3\)"),
        ({"frame_mask": torch.ones(2, 4)}, "frame_mask must be bool, got torch.float32"),
        ({"conversations": [talk("0")]}, "conversations must have C=2 entries, got 1"),
        ({"media_rows": [(0,)]}, "media_rows must have C=2 entries, got 1"),
        ({"references": [("a",)]}, "references must have C=2 entries, got 1"),
        ({"label": torch.zeros(3)}, r"label must be \(C,\)=\(2,\), got \(3,\)"),
        ({"frames": None, "features": torch.zeros(2, 4, 6)}, r"features must be \(M,T,P,Dv\)"),
        ({"media_rows": [(0,), (2,)]}, r"about 1 media has them in the rows \(2,\) of 2"),
        ({"media_rows": [(0,), (-1,)]}, r"about 1 media has them in the rows \(-1,\) of 2"),
        ({"media_rows": [(0,), (0, 1)]}, r"about 1 media has them in the rows \(0, 1\) of 2"),
    ],
)
def test_what_does_not_fit_together_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(pair(), **changes)


@st.composite
def batches(draw):
    """Up to four conversations about up to four films, which they may share, and some of them."""
    films = range(draw(st.integers(0, 4)))
    rows = st.lists(st.sampled_from(films), max_size=3).map(tuple) if films else st.just(())
    batch = batch_of(*draw(st.lists(rows, min_size=1, max_size=4)))
    return batch, draw(st.lists(st.integers(0, len(batch) - 1), max_size=5))


@given(batches())
def test_some_conversations_of_a_batch_keep_what_they_show_and_nothing_else(drawn):
    batch, which = drawn
    some = batch.rows(which)
    assert some.item_id == [batch.item_id[i] for i in which]
    assert some.label.tolist() == [batch.label.tolist()[i] for i in which]
    # a film's name is the number of its row, which its pixels and times say, too
    for conversation, rows in zip(some.conversations, some.media_rows, strict=True):
        names = [int(medium.medium_id) for medium in conversation.media]
        assert [int(some.frames[row].unique()) for row in rows] == names
        assert [int(some.timestamps_s[row, 0]) for row in rows] == names
    shown = {row for i in which for row in batch.media_rows[i]}
    assert len(some.frame_mask) == len(shown)


@given(batches())
def test_views_lead_to_the_row_of_each_film_in_the_order_in_which_they_are_shown(drawn):
    batch, _ = drawn
    films, guides, replies = batch.views
    assert films == [row for rows in batch.media_rows for row in rows]
    assert guides == [c.prompt for c in batch.conversations for _ in c.media]
    assert replies == ["nothing"] * len(films)
    for number, rows in enumerate(batch.media_rows):
        assert batch.film_of(number) == (rows[0] if len(rows) == 1 else None)


def test_a_film_that_two_conversations_show_is_one_row_and_stays_one():
    batch = batch_of((0, 1), (1,), (2,))
    some = batch.rows([1, 0])
    assert some.media_rows == [(0,), (1, 0)]
    assert some.frames.shape[0] == 2
    assert batch.rows(slice(1, 3)).media_rows == [(0,), (1,)]


def test_conversations_about_nothing_have_no_films():
    batch = batch_of((), ())
    assert (batch.frames, batch.features, batch.views) == (None, None, ([], [], []))
    assert batch.rows([1]).frame_mask.shape[0] == 0
    assert batch.video_id == batch.item_id
    assert batch_of((), (0,)).rows([0]).frames.shape[0] == 0


def test_pictures_are_spread_over_the_real_frames_of_the_first_film():
    batch = batch_of((1, 0), (), frames=5)
    mask = torch.tensor([[True] * 5, [True] * 4 + [False]])
    frames = torch.arange(10, dtype=torch.uint8).view(2, 5, 1, 1, 1).expand(2, 5, 3, 2, 2)
    batch = replace(batch, frames=frames, features=None, frame_mask=mask)
    assert [int(picture[0, 0, 0]) for picture in batch.pictures_of(0, 2)] == [5, 8]
    assert [picture.shape for picture in batch.pictures_of(0, 9)] == [(2, 2, 3)] * 4
    assert batch.pictures_of(1, 9) == []
    assert replace(batch, frames=None, features=frames.float()[..., 0]).pictures_of(0, 2) == []
