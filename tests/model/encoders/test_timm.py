import pytest
import timm
import torch

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.interfaces import VisualEncoder
from mmavlm.model.encoders import TimmEncoder

NAME = "test_vit"  # timm's own small one
SIZE = 32


@pytest.fixture
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


def save(path, **how):
    torch.manual_seed(0)
    model = timm.create_model(NAME, pretrained=False, **how).eval()
    torch.save(model.state_dict(), path)
    return model


def test_it_is_a_visual_encoder():
    encoder = TimmEncoder(NAME, pretrained=False, image_size=SIZE)
    assert isinstance(encoder, VisualEncoder)
    assert (encoder.image_size, encoder.num_tokens, encoder.width) == (SIZE, 5, 64)


@torch.no_grad()
@pytest.mark.parametrize("classes", [1000, 0, 7])
def test_weights_come_from_a_file_with_or_without_a_classifier(classes, tmp_path, frames):
    model = save(tmp_path / "vit.pth", img_size=SIZE, num_classes=classes)
    encoder = TimmEncoder(NAME, checkpoint_path=str(tmp_path / "vit.pth"), image_size=SIZE)
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    expected = model.forward_features((frames / 255 - mean) / std)
    torch.testing.assert_close(encoder(frames), expected, rtol=1e-4, atol=1e-5)


def test_positions_are_resampled_for_another_image_size(tmp_path, frames):
    save(tmp_path / "vit.pth")
    encoder = TimmEncoder(NAME, checkpoint_path=str(tmp_path / "vit.pth"), image_size=SIZE)
    assert encoder(frames).shape == (3, 5, 64)


def test_the_image_size_is_the_models_own_by_default():
    assert TimmEncoder(NAME, pretrained=False).image_size == 160


def test_weights_take_the_dtype_asked_for(frames):
    encoder = TimmEncoder(NAME, pretrained=False, image_size=SIZE, dtype="bfloat16")
    assert encoder(frames).dtype == torch.bfloat16


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(ConfigError, match=r"'vit_base_patch16_clip_225', .* near it are"):
        TimmEncoder("vit_base_patch16_clip_225")
    with pytest.raises(ConfigError, match=r"'§', which timm .* timm.list_models"):
        TimmEncoder("§")


def test_an_unknown_tag_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no weights tagged 'opeani' .*vit_base_.*_224.openai"):
        TimmEncoder("vit_base_patch16_clip_224.opeani")


def test_features_that_are_no_tokens_are_refused():
    with pytest.raises(ConfigError, match=r"gives features of shape .* not tokens \(N,P,Dv\)"):
        TimmEncoder("test_resnet", pretrained=False)


def test_a_model_of_one_size_alone_is_refused_another():
    with pytest.raises(ConfigError, match=r"takes no encoder.image_size=64 .*leave it null"):
        TimmEncoder("test_resnet", pretrained=False, image_size=64)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint_path .*none.pth does not exist"):
        TimmEncoder(NAME, checkpoint_path=str(tmp_path / "none.pth"))


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match=r"bad.pth cannot be read .* it is damaged"):
        TimmEncoder(NAME, checkpoint_path=str(tmp_path / "bad.pth"))


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save({"blocks.0.something": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"do not fit VisionTransformer:\n.*missing"):
        TimmEncoder(NAME, checkpoint_path=str(tmp_path / "other.pth"))


def test_weights_the_hub_cannot_give_are_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"could not load test_vit.r160_in1k .*checkpoint_"):
        TimmEncoder("test_vit.r160_in1k")


def test_a_text_that_says_false_does_not_count_as_true():
    with pytest.raises(ConfigError, match=r"encoder\.pretrained must be true or false"):
        TimmEncoder(NAME, pretrained="false")
