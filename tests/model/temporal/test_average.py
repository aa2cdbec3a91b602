"""The mean over frames, beside what each frame alone gives."""

from functools import partial

import pytest
import torch
from small_films import QUERIES, VISUAL, VOCAB, WIDTH, inputs

from mmavlm.core.interfaces import TemporalAggregator
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal import Average, Concat, Wanted

QFORMER = partial(
    QFormer, width=WIDTH, layers=3, heads=4, hidden_width=40, dropout=0.0, max_text_tokens=16,
    init_std=0.3,
)  # fmt: skip


@pytest.fixture(scope="module")
def both():
    """The mean, and on the same weights each frame by itself."""
    torch.manual_seed(0)
    settings = {"visual_width": VISUAL, "vocab_size": VOCAB, "num_query_tokens": QUERIES}
    average, concat = (kind(qformer=QFORMER, **settings) for kind in (Average, Concat))
    concat.load_state_dict(average.state_dict())
    return average, concat


def test_it_is_a_temporal_aggregator_of_one_look(both):
    assert isinstance(both[0], TemporalAggregator)
    assert both[0].looks_at(7) == 1


@torch.no_grad()
def test_it_is_the_mean_of_the_looks_at_real_frames(both):
    average, concat = both
    tokens, prompt, _ = inputs(1, batch=2, frames=4, ragged=False)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    state = average(tokens, prompt, mask)
    alone = concat(tokens, prompt, mask).outputs
    for row, length in enumerate((4, 2)):
        expected = alone[row, :length].mean(dim=0)
        torch.testing.assert_close(average.read(state)[row], expected, atol=1e-5, rtol=1e-5)
    assert average.mask(state) is None


@torch.no_grad()
def test_streams_and_looks_give_what_the_film_so_far_gives(both):
    average, _ = both
    tokens, prompt, mask = inputs(2, batch=2, frames=5, ragged=False)
    so_far = [average.read(average(tokens[:, : t + 1], prompt, mask[:, : t + 1])) for t in range(5)]
    for t, state in enumerate(average.stream(prompt, tokens.unbind(1))):
        torch.testing.assert_close(average.read(state), so_far[t], atol=1e-5, rtol=1e-5)
    _, looks = average.look(tokens, prompt, mask, Wanted(2, middle=True, last=True))
    assert looks.frames[0].tolist() == [0, 1, 2, 4]
    for column, t in enumerate((0, 1, 2, 4)):
        torch.testing.assert_close(looks.outputs[:, column], so_far[t], atol=1e-5, rtol=1e-5)
