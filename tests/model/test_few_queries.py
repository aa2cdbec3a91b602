import pytest
import torch
import torch.nn.functional as F

from mmavlm.model.few_queries import FewQueries


def random_inputs(rows=2, heads=3, queries=4, keys=9, width=5, dtype=torch.float32):
    torch.manual_seed(0)
    shapes = (queries, keys, keys)
    return [torch.randn(rows, heads, n, width, dtype=dtype) for n in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_it_equals_torchs_attention(dtype, masked):
    query, key, value = random_inputs(dtype=dtype)
    mask = torch.arange(9) < torch.tensor([[4], [9]]) if masked else None
    expected = F.scaled_dot_product_attention(
        query, key, value, attn_mask=None if mask is None else mask[:, None, None]
    )
    torch.testing.assert_close(FewQueries()(query, key, value, mask), expected)


def test_calls_of_different_length_do_not_disturb_each_other():
    attend = FewQueries()
    query, key, value = random_inputs()
    for length in (9, 2, 7, 9):
        parts = query, key[:, :, :length], value[:, :, :length]
        expected = F.scaled_dot_product_attention(*parts)
        torch.testing.assert_close(attend(*parts, None), expected)


def test_keys_that_do_not_lie_together_are_read_where_they_are():
    query, key, value = random_inputs()
    key, value = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (key, value))
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(FewQueries()(query, key, value, None), expected)


def test_dropout_leaves_out_that_share_of_the_keys():
    torch.manual_seed(0)
    query, key = torch.zeros(1, 1, 400, 2), torch.zeros(1, 1, 50, 2)
    value = torch.eye(50)[None, None]
    weights = FewQueries(dropout=0.3)(query, key, value, None)
    assert (weights == 0).float().mean() == pytest.approx(0.3, abs=0.02)
    assert weights.sum(-1).mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("height", [1, 200])  # of the scores: 200 is past what exp can take
def test_keys_in_stretches_are_attended_to_like_keys_in_one_piece(dtype, masked, height):
    frames, stretches = 3, [slice(0, 4), slice(4, 5), slice(5, 9)]
    queries = height * random_inputs(rows=2 * frames, dtype=dtype)[0].unflatten(0, (frames, 2))
    _, key, value = random_inputs(dtype=dtype)
    there = torch.tensor([[1, 0, 0, 1, 1, 0, 1, 0, 0], [1] * 9]).bool()  # some of every stretch
    mask = there if masked else None

    def banks(stretch):
        seen = None if mask is None else mask[:, stretch]
        return [((key[:, :, stretch], value[:, :, stretch]), seen)] * frames

    expected = torch.stack([FewQueries()(query, key, value, mask) for query in queries])
    ours = FewQueries().over_frames(queries, [banks(stretch) for stretch in stretches])
    rounding = height * 10 * torch.finfo(dtype).eps
    torch.testing.assert_close(ours, expected, atol=rounding, rtol=rounding)


def test_dropout_leaves_out_that_share_of_the_keys_of_every_stretch():
    torch.manual_seed(0)
    query, key = torch.zeros(1, 1, 1, 400, 50), torch.zeros(1, 1, 50, 50)
    value = torch.eye(50)[None, None]
    halves = [[((key[:, :, half], value[:, :, half]), None)] for half in (slice(25), slice(25, 50))]
    weights = FewQueries(dropout=0.3).over_frames(query, halves)
    assert (weights == 0).float().mean() == pytest.approx(0.3, abs=0.02)
    assert weights.sum(-1).mean() == pytest.approx(1, abs=0.02)
