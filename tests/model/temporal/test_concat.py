"""Every frame's query outputs, one behind the other: MA-LMM's code with its memory off."""

from functools import partial

import pytest
import torch
from small_films import QUERIES, VISUAL, VOCAB, WIDTH, build, inputs

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import TemporalAggregator, TextTokens
from mmavlm.model.memory import Fifo
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal import Concat, Wanted


@pytest.fixture
def concat():
    torch.manual_seed(0)
    qformer = partial(
        QFormer, width=WIDTH, layers=3, heads=4, hidden_width=40, dropout=0.0, max_text_tokens=16,
        init_std=0.3,
    )  # fmt: skip
    return Concat(qformer=qformer, visual_width=VISUAL, vocab_size=VOCAB, num_query_tokens=QUERIES)


def test_it_is_a_temporal_aggregator(concat):
    assert isinstance(concat, TemporalAggregator)
    assert concat.looks_at(7) == 7


def test_each_frame_is_read_as_a_film_of_its_own(concat):
    """A memory Q-Former on the same weights, shown one frame, has no past either."""
    alone = build(Fifo(0))
    alone.load_state_dict(concat.state_dict())
    tokens, prompt, mask = inputs(1, batch=2, frames=4, ragged=False)
    outputs = concat(tokens, prompt, mask).outputs
    for t in range(4):
        expected = alone(tokens[:, t : t + 1], prompt, mask[:, :1]).video_tokens
        torch.testing.assert_close(outputs[:, t], expected, atol=1e-5, rtol=1e-4)


def test_steps_and_streams_give_what_the_whole_film_gives(concat):
    tokens, prompt, mask = inputs(2, batch=2, frames=5, ragged=False)
    whole = concat(tokens, prompt, mask)
    state = concat.start(prompt, tokens[:, 0])
    for t, streamed in enumerate(concat.stream(prompt, tokens.unbind(1))):
        state = concat.step(state, tokens[:, t], mask[:, t])
        for one in (state, streamed):
            so_far = whole.outputs[:, : t + 1]
            torch.testing.assert_close(one.outputs, so_far, atol=1e-6, rtol=1e-5)
            assert concat.mask(one).all()
    assert concat.read(streamed).shape == (2, 5 * QUERIES, WIDTH)


def test_rows_of_different_length_have_a_mask(concat):
    tokens, prompt, _ = inputs(3, batch=2, frames=4, ragged=False)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    state = concat(tokens, prompt, mask)
    assert torch.equal(concat.mask(state), mask)
    text = TextTokens(prompt.ids[1:], prompt.mask[1:])
    alone = concat(tokens[1:, :2], text, mask[1:, :2])
    torch.testing.assert_close(state.outputs[1, :2], alone.outputs[0], atol=1e-6, rtol=1e-5)


def test_frames_looked_at_are_those_of_the_film_and_carry_gradient(concat):
    tokens, prompt, _ = inputs(4, batch=3, frames=5, ragged=False)
    mask = torch.arange(5) < torch.tensor([[5], [2], [1]])
    tokens.requires_grad_()
    state, looks = concat.look(
        tokens, prompt, mask, Wanted(1, middle=True, last=True, layers=(0, 1, 2))
    )
    assert [frames[m].tolist() for frames, m in zip(looks.frames, looks.mask, strict=True)] == [
        [0, 2, 4], [0, 1], [0],
    ]  # fmt: skip
    assert torch.equal(looks.outputs[0], state.outputs[0, [0, 2, 4]])
    assert looks.crossed.shape == (3, 3, 2, QUERIES, WIDTH)  # layer 1 has no cross-attention
    looks.outputs[0, 1].sum().backward()
    assert (tokens.grad.abs().sum((0, 2, 3)) > 0).tolist() == [False, False, True, False, False]
    state, looks = concat.look(tokens, prompt, mask, Wanted(2))
    assert state is None
    assert looks.crossed is None


def test_layers_that_are_not_there_and_no_queries_are_refused(concat):
    with pytest.raises(ConfigError, match=r"cross_layers names \[3\], but .* layers 0 to 2"):
        concat.check_layers((0, 3))
    with pytest.raises(ConfigError, match="num_query_tokens must be at least 1, got 0"):
        Concat(
            qformer=partial(QFormer, width=8, heads=2, layers=1, hidden_width=8),
            visual_width=4, vocab_size=4, num_query_tokens=0,
        )  # fmt: skip
