"""Neither a step of the frame loop nor a look at a frame waits for a value of a device."""

from functools import partial

import pytest
import torch
from small_films import QUERIES, STRATEGIES, VISUAL, VOCAB, WIDTH, build, inputs
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from mmavlm.model.memory import EpisodicCompressor, TokenMerging
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal import Average, ClipQFormer, Concat, VideoQFormer

EVERY_MEMORY = [*STRATEGIES, EpisodicCompressor(3), TokenMerging(3)]


def steps(module, frames, *, ragged):
    """Steps with tensors that have shapes and no values, after a start with real ones."""
    tokens, prompt, mask = inputs(0, 2, frames, ragged)
    state = module.start(prompt, tokens[:, 0])
    with FakeTensorMode(allow_non_fake_inputs=True):
        for t in range(frames):
            state = module.step(state, tokens[:, t].clone(), mask[:, t].clone())
    return state


@pytest.mark.parametrize("memory", EVERY_MEMORY, ids=lambda memory: type(memory).__name__)
@pytest.mark.parametrize("ragged", [False, True])
def test_a_step_without_gradient_waits_for_no_value(memory, ragged):
    with torch.no_grad():
        state = steps(build(memory, layers=2), 5, ragged=ragged)
    assert state.video_tokens.shape[0] == 2


@pytest.mark.parametrize("memory", EVERY_MEMORY, ids=lambda memory: type(memory).__name__)
def test_a_step_with_gradient_waits_for_no_value(memory):
    assert steps(build(memory, layers=2), 5, ragged=True).video_tokens.requires_grad


def aggregators():
    """What reads each frame by itself, small."""
    sizes = {"visual_width": VISUAL, "vocab_size": VOCAB, "num_query_tokens": QUERIES}
    q_former = partial(
        QFormer, width=WIDTH, layers=2, heads=4, hidden_width=40, dropout=0.0, max_text_tokens=16
    )
    small = {"width": WIDTH, "layers": 1, "heads": 4, "hidden_width": 40, "dropout": 0.0}
    return [
        Concat(qformer=q_former, **sizes),
        Average(qformer=q_former, **sizes),
        VideoQFormer(**sizes, **small, video_layers=1),
        ClipQFormer(**sizes, **small),
    ]


@pytest.mark.parametrize("which", range(4), ids=lambda n: type(aggregators()[n]).__name__)
def test_reading_each_frame_by_itself_waits_for_no_value(which):
    module = aggregators()[which]
    tokens, prompt, mask = inputs(0, 2, 4, ragged=True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = module(tokens.clone(), prompt, mask.clone())
        assert module.read(state).requires_grad
        module.mask(state)


def test_waiting_would_be_seen():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        bool(torch.ones(3).all())
