import pytest
import torch
from torch import nn

from mmavlm.core.errors import ConfigError
from mmavlm.model.encoders import TinyEncoder


def frames(count=7):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)


@pytest.fixture
def encoder():
    return TinyEncoder()


def test_nothing_in_it_learns_or_leaves_eval_mode(encoder):
    parent = nn.Sequential(encoder, nn.Linear(64, 2)).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    parent(frames()).sum().backward()
    assert all(p.grad is None for p in encoder.parameters())


def test_tokens_carry_no_gradient_to_the_frames(encoder):
    assert not encoder(frames().float().requires_grad_()).requires_grad


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_chunks_change_nothing(encoder, chunk_size):
    torch.testing.assert_close(TinyEncoder(chunk_size=chunk_size)(frames()), encoder(frames()))


def test_what_learns_behind_it_may_keep_the_tokens_for_its_gradient(encoder):
    norm = nn.LayerNorm(encoder.width)
    norm(encoder(frames())).square().sum().backward()
    assert norm.weight.grad.any()


def test_a_compiled_encoder_gives_the_same_tokens(encoder):
    compiled = TinyEncoder(chunk_size=3, compile_backend="aot_eager")
    for count in (7, 3, 8):
        torch.testing.assert_close(compiled(frames(count)), encoder(frames(count)))


def test_an_unknown_compiler_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"compile_backend='fast' is unknown.*inductor"):
        TinyEncoder(compile_backend="fast")


def test_no_frames_give_no_tokens(encoder):
    assert encoder(frames(0)).shape == (0, encoder.num_tokens, encoder.width)


def test_bytes_and_floats_of_the_same_range_are_the_same(encoder):
    assert torch.equal(encoder(frames()), encoder(frames().float()))


def test_fingerprint_tells_weights_and_transforms_apart():
    kinds = [TinyEncoder(), TinyEncoder(seed=1), TinyEncoder(image_size=32)]
    moved = TinyEncoder()
    moved.std.mul_(2)
    kinds += [moved, TinyEncoder().to(torch.bfloat16)]
    prints = [encoder.fingerprint for encoder in kinds]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 64 for text in prints)


def test_fingerprint_ignores_how_many_frames_run_at_once(encoder):
    assert TinyEncoder(chunk_size=3).fingerprint == encoder.fingerprint


def test_fingerprint_follows_weights_that_are_loaded(encoder):
    before = encoder.fingerprint
    encoder.load_state_dict(TinyEncoder(seed=1).state_dict())
    assert encoder.fingerprint != before
    assert encoder.fingerprint == TinyEncoder(seed=1).fingerprint


def test_fingerprint_is_computed_once(encoder, monkeypatch):
    first = encoder.fingerprint
    monkeypatch.setattr(encoder, "_hash", lambda: pytest.fail("hashed again"))
    assert encoder.fingerprint == first


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 64, 64), (3, 64, 64)])
def test_frames_of_another_shape_are_refused(encoder, shape):
    with pytest.raises(ConfigError, match=r"takes frames \(N,3,64,64\), got .*data.image_size=64"):
        encoder(torch.zeros(shape))


def test_an_empty_chunk_is_refused():
    with pytest.raises(ConfigError, match=r"encoder.chunk_size is 0; give 1 frame or more"):
        TinyEncoder(chunk_size=0)
