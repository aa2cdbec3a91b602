"""The table of frame positions: a vector for each frame."""

import pytest
import torch

from mmavlm.core.errors import ConfigError
from mmavlm.model.frame_positions import FramePositions


def test_zeros_tell_no_frame_from_another_until_they_learn():
    assert not FramePositions(5, 8).first(5).any()


@pytest.mark.parametrize(("rows", "width"), [(120, 64), (7, 5), (1, 3)])
def test_sinusoids_tell_each_frame_from_every_other(rows, width):
    table = FramePositions(rows, width, "sinusoids").first(rows)
    apart = torch.cdist(table, table) + torch.eye(rows) * 9
    assert table.shape == (rows, width)
    assert apart.min() > 0.1


def test_neighbours_are_more_alike_than_frames_far_apart():
    table = FramePositions(100, 64, "sinusoids").first(100)
    nearest, far = ((table[n:] - table[:-n]).norm(dim=1).mean() for n in (1, 50))
    assert nearest < far


def test_a_stream_takes_the_rows_in_turn_and_then_the_last_one():
    positions = FramePositions(4, 8, "sinusoids")
    streamed = torch.cat([positions.at(t) for t in range(6)])
    assert torch.equal(streamed[:4], positions.first(4))
    assert torch.equal(streamed[4:], positions.weight[[3, 3]])


def test_more_frames_than_rows_name_both_numbers_and_the_remedy():
    with pytest.raises(ConfigError, match=r"4 frames .* has 3 rows; set vision.max_num_frames=4"):
        FramePositions(3, 8).first(4)


def test_an_unknown_start_lists_the_choices():
    with pytest.raises(ConfigError, match=r"position_init='ones' is unknown.*zeros, sinusoids"):
        FramePositions(3, 8, "ones")


def test_with_none_nothing_is_added_whatever_is_loaded_and_films_have_any_length():
    positions = FramePositions(4, 6, "none")
    positions.load_state_dict({"weight": torch.ones(4, 6)})
    assert not positions.first(9).any()
    assert not positions.at(9).any()
    assert not positions.weight.requires_grad
