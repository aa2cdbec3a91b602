import time

import pytest
import torch
import torch.nn.functional as F

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import VisualEncoder
from mmavlm.model.encoders import TinyEncoder


def frames(count, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def explained(inputs, targets):
    """The share of the targets' variance a linear map of the inputs explains on unseen rows."""
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    half = len(inputs) // 2
    weights = torch.linalg.lstsq(inputs[:half], targets[:half]).solution
    residual = targets[half:] - inputs[half:] @ weights
    return 1 - (residual.var() / targets[half:].var()).item()


def test_it_is_a_visual_encoder():
    assert isinstance(TinyEncoder(), VisualEncoder)


@pytest.mark.parametrize(("size", "patch", "width"), [(64, 8, 64), (32, 16, 32), (30, 5, 8)])
def test_there_is_a_token_of_unit_variance_for_each_patch(size, patch, width):
    encoder = TinyEncoder(image_size=size, patch_size=patch, width=width)
    tokens = encoder(frames(3, size))
    assert tokens.shape == (3, (size // patch) ** 2, width)
    assert tokens.shape[1:] == (encoder.num_tokens, encoder.width)
    assert tokens.var().item() == pytest.approx(1, abs=0.05)


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = TinyEncoder(seed=5)
    torch.manual_seed(2)
    assert torch.equal(first(frames(2)), TinyEncoder(seed=5)(frames(2)))
    assert not torch.equal(first(frames(2)), TinyEncoder(seed=6)(frames(2)))


def test_the_number_of_threads_does_not_change_the_fingerprint():
    threads = torch.get_num_threads()
    prints = set()
    for count in (1, 2):
        torch.set_num_threads(count)
        prints.add(TinyEncoder().fingerprint)
    torch.set_num_threads(threads)
    assert len(prints) == 1


def test_what_a_patch_shows_and_where_it_is_can_be_read_back():
    colours = torch.rand(100, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = TinyEncoder()(F.interpolate(255 * colours, size=64)).flatten(0, 1)
    assert explained(tokens, colours.flatten(2).mT.flatten(0, 1)) > 0.9
    place = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).repeat(100, 1)
    assert explained(tokens, place) > 0.7


def test_256_frames_take_well_under_a_second():
    encoder, video = TinyEncoder(), frames(256)
    encoder(video)
    start = time.perf_counter()
    encoder(video)
    assert time.perf_counter() - start < 0.5


def test_patches_that_do_not_tile_the_image_are_refused():
    with pytest.raises(ConfigError, match=r"encoder.patch_size 7 does not divide .*image_size 64"):
        TinyEncoder(patch_size=7)


def test_a_width_that_is_no_multiple_of_four_is_refused():
    with pytest.raises(ConfigError, match=r"encoder.width is 30; choose a multiple of 4"):
        TinyEncoder(width=30)
