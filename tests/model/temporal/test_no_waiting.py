"""A step of the frame loop asks for no value, which on a GPU the host would have to wait for."""

import pytest
import torch
from small_films import STRATEGIES, build, inputs
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException

from mmavlm.model.memory import EpisodicCompressor, TokenMerging

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


def test_waiting_would_be_seen():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        bool(torch.ones(3).all())
