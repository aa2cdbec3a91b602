import pytest
import torch

from mmavlm.core.errors import ConfigError
from mmavlm.model.encoders import TinyTextEncoder

PROMPT = "what is the genre of the movie?"


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return TinyTextEncoder(width=32).eval()


def test_a_text_is_one_feature(encoder):
    assert encoder(["a comedy", f"{PROMPT} romance"]).shape == (2, encoder.width)


def test_a_text_in_a_batch_of_longer_ones_reads_as_alone(encoder):
    texts = ["comedy", f"{PROMPT} romance", ""]
    alone = torch.cat([encoder([text]) for text in texts])
    torch.testing.assert_close(encoder(texts), alone, rtol=1e-4, atol=1e-5)


def test_order_of_words_matters(encoder):
    first, second = encoder(["a man and a woman", "a woman and a man"])
    assert (first - second).abs().max() > 1e-3


def test_the_label_survives_a_long_prompt(encoder):
    short = TinyTextEncoder(width=32, max_length=16).eval()
    long = " ".join([PROMPT] * 20)
    assert not torch.equal(short([f"{long} comedy"]), short([f"{long} romance"]))


def test_every_parameter_learns(encoder):
    encoder(["a comedy", "a film"]).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match=r"text_encoder.width is 30 with text_encoder.heads 4"):
        TinyTextEncoder(width=30)
