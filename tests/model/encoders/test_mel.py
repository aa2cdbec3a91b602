import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor, ClapFeatureExtractor, WhisperFeatureExtractor

from mmavlm.model.encoders.mel import ClapMel, KaldiFbank, UnitVariance, WhisperMel


def clips(rate_hz=16_000, seconds=2.0):
    """Noise of three loudnesses, with silence and a constant in it, and an offset."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, round(rate_hz * seconds), generator=generator)
    made = noise * torch.tensor([0.1, 0.001, 0.5])[:, None] + 0.01
    made[1, 5000:9000] = 0
    made[2, 2000:3000] = 0.3
    return made


def arrays(made):
    return [clip.numpy() for clip in made]


@pytest.mark.parametrize(("seconds", "frames"), [(2.0, 204), (2.0, 100), (0.3, 64), (3.0, 1024)])
def test_fbank_is_that_of_ast_without_the_mean_of_the_clip(seconds, frames):
    made = clips(seconds=seconds)
    centred = arrays(made - made.mean(dim=1, keepdim=True))
    extractor = ASTFeatureExtractor(max_length=frames)
    expected = [extractor(clip, sampling_rate=16_000)["input_values"][0] for clip in centred]
    found = KaldiFbank(frames=frames)(made)
    assert found.shape == (3, frames, 128)
    torch.testing.assert_close(found, torch.from_numpy(np.stack(expected)), atol=1e-3, rtol=0)


def test_a_clip_shorter_than_a_window_gives_one_frame():
    found = KaldiFbank(frames=4)(torch.ones(1, 10))
    assert found.shape == (1, 4, 128)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("mels", [80, 128])
def test_whispers_features_are_those_of_its_extractor(mels):
    made = clips()
    extractor = WhisperFeatureExtractor(feature_size=mels)
    expected = extractor(arrays(made), sampling_rate=16_000, return_tensors="pt")
    found = WhisperMel(mels)(made)
    torch.testing.assert_close(found, expected["input_features"], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("truncation", "scale"), [("rand_trunc", "slaney"), ("fusion", "htk")])
@pytest.mark.parametrize("seconds", [2.0, 3.7])
def test_claps_features_are_those_of_its_extractor(truncation, scale, seconds):
    made = clips(48_000, seconds)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation=truncation)
    expected = extractor(arrays(made), sampling_rate=48_000, return_tensors="pt")["input_features"]
    found = ClapMel(scale=scale)(made)
    torch.testing.assert_close(found, expected[:, :1].float(), atol=1e-3, rtol=1e-3)


def test_clips_of_unit_variance_have_it_and_silence_stays_finite():
    made = torch.cat([clips(), torch.zeros(1, 32_000)])
    found = UnitVariance()(made)
    assert found[:3].mean(dim=1).abs().max() < 1e-4
    torch.testing.assert_close(found[0].var(correction=0), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert not found[3].any()


@pytest.mark.parametrize("features", [KaldiFbank(), WhisperMel(), ClapMel(), UnitVariance()])
def test_a_clip_in_a_batch_reads_as_alone(features):
    made = clips()
    alone = torch.cat([features(clip[None]) for clip in made])
    torch.testing.assert_close(features(made), alone, atol=1e-4, rtol=1e-4)
