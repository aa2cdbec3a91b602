import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as V

from mmavlm.data.transforms import AREA, ASPECT, ClipTransform, crop_box

unit = st.floats(0, 1, exclude_max=True)


def picture(seed, height=48, width=64):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR))


@given(seed=st.integers(0, 50))
def test_one_crop_and_one_flip_hold_for_all_frames_of_a_clip(seed):
    transform = ClipTransform(32, np.random.default_rng(seed))
    frame = picture(0)
    shifted = (frame // 2).astype(np.uint8)
    first, again, other = transform(frame), transform(frame), transform(shifted)
    assert torch.equal(first, again)
    # halving commutes with crop and flip, up to rounding and clamping
    assert (first.float() / 2 - other.float()).abs().max() <= 2


def test_clips_differ_in_crop_and_half_of_them_are_mirrored():
    rng = np.random.default_rng(0)
    clips = [ClipTransform(32, rng) for _ in range(200)]
    assert len({tuple(clip.crop) for clip in clips}) == 200
    assert 70 < sum(clip.mirror for clip in clips) < 130


def test_a_mirrored_clip_is_the_other_one_turned_around():
    transform = ClipTransform(32, np.random.default_rng(0), crop=False)
    transform.mirror = False
    upright = transform(picture(1))
    transform.mirror = True
    assert torch.equal(transform(picture(1)), upright.flip(-1))
    assert not torch.equal(upright, upright.flip(-1))


@given(seed=st.integers(0, 50))
def test_a_crop_is_cut_out_before_it_is_resized(seed):
    transform = ClipTransform(32, np.random.default_rng(seed), flip=False)
    whole = torch.from_numpy(picture(1)).permute(2, 0, 1)
    expected = V.resized_crop(
        whole,
        *crop_box(48, 64, *transform.crop),
        [32, 32],
        V.InterpolationMode.BICUBIC,
        antialias=True,
    )
    assert torch.equal(transform(picture(1)), expected)


def test_crop_and_flip_can_be_left_out():
    for seed in range(20):
        transform = ClipTransform(32, np.random.default_rng(seed), crop=False, flip=False)
        assert torch.equal(transform(picture(2)), ClipTransform(32, None)(picture(2)))


@pytest.mark.parametrize("size", [(48, 64), (20, 24), (240, 180)])
def test_evaluation_equals_the_bicubic_resize_of_pillow(size):
    frame = picture(3, *size)
    expected = np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BICUBIC))
    frames = ClipTransform(32, None)(frame)
    assert frames.dtype == torch.uint8
    assert frames.shape == (3, 32, 32)
    difference = frames.permute(1, 2, 0).int() - torch.from_numpy(expected.copy()).int()
    assert difference.abs().max() <= 1


def test_overshoot_at_an_edge_is_clamped_not_wrapped_around():
    frame = np.zeros((16, 16, 3), dtype=np.uint8)
    frame[:, 8:] = 255
    exact = torch.from_numpy(frame).permute(2, 0, 1).double()
    exact = V.resize(exact, [32, 32], V.InterpolationMode.BICUBIC, antialias=True)
    assert exact.min() < -1, "the picture must overshoot"
    assert exact.max() > 256, "the picture must overshoot"
    frames = ClipTransform(32, None)(frame).double()
    assert (frames - exact.clamp(0, 255)).abs().max() <= 1


def test_pictures_that_are_views_can_be_transformed():
    frame = picture(4)
    turned = ClipTransform(32, None)(np.rot90(frame))
    assert torch.equal(turned, ClipTransform(32, None)(np.rot90(frame).copy()))


@given(st.integers(1, 400), st.integers(1, 400), unit, unit, unit, unit)
def test_a_crop_lies_inside_the_picture(height, width, area, aspect, top, left):
    y, x, h, w = crop_box(height, width, area, aspect, top, left)
    assert y >= 0
    assert x >= 0
    assert 1 <= h <= height - y
    assert 1 <= w <= width - x


@given(st.integers(100, 400), st.floats(0.8, 1.25), unit, unit)
def test_crops_keep_area_and_aspect_where_the_picture_has_room(height, shape, area, aspect):
    width = round(height * shape)
    _, _, h, w = crop_box(height, width, area, aspect, 0.5, 0.5)
    assert h * w <= AREA[1] * height * width * 1.02
    if h < height and w < width:
        assert h * w >= AREA[0] * height * width * 0.98
        assert ASPECT[0] * 0.98 <= w / h <= ASPECT[1] * 1.02
    expected = math.exp(math.log(ASPECT[0]) * (1 - aspect) + math.log(ASPECT[1]) * aspect)
    if h < height and w < width:
        assert w / h == pytest.approx(expected, rel=0.03)


@given(unit, unit)
def test_crops_reach_all_four_corners(area, aspect):
    corners = [(top, left) for top in (0.0, 1 - 1e-9) for left in (0.0, 1 - 1e-9)]
    for top, left in corners:
        y, x, h, w = crop_box(100, 100, area, aspect, top, left)
        assert y == (0 if top == 0 else 100 - h)
        assert x == (0 if left == 0 else 100 - w)
