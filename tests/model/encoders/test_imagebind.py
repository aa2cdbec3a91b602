"""ImageBind's audio tower against its equations, written out on the names of its file."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import ASTFeatureExtractor

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.interfaces import SoundEncoder
from mmavlm.model.encoders import ImageBindSoundEncoder

CONF = Path(__file__).parents[3] / "conf/sound_encoder/imagebind.yaml"
WIDTH, BLOCKS, HEADS, OUTPUT = 24, 2, 4, 20
BEFORE, TRUNK, HEAD = (f"modality_{m}s.audio." for m in ("preprocessor", "trunk", "head"))
SCALE = "modality_postprocessors.audio.1.log_logit_scale"


def file_state():
    """Every name of the audio tower, and of another one, as the published file has them."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        f"{BEFORE}cls_token": (1, 1, WIDTH),
        f"{BEFORE}pos_embedding_helper.pos_embed": (1, 229, WIDTH),
        f"{BEFORE}rgbt_stem.proj.weight": (WIDTH, 1, 16, 16),
        f"{HEAD}2.weight": (OUTPUT, WIDTH),
        "modality_heads.vision.2.weight": (3, 3),
    }
    norms = [f"{BEFORE}rgbt_stem.norm_layer", f"{HEAD}0"]
    for n in range(BLOCKS):
        block = f"{TRUNK}blocks.{n}"
        norms += [f"{block}.norm_1", f"{block}.norm_2"]
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH),
            f"{block}.attn.in_proj_bias": (3 * WIDTH,),
            f"{block}.attn.bias_k": (1, 1, WIDTH),
            f"{block}.attn.bias_v": (1, 1, WIDTH),
            f"{block}.attn.out_proj.weight": (WIDTH, WIDTH),
            f"{block}.attn.out_proj.bias": (WIDTH,),
            f"{block}.mlp.fc1.weight": (4 * WIDTH, WIDTH),
            f"{block}.mlp.fc1.bias": (4 * WIDTH,),
            f"{block}.mlp.fc2.weight": (WIDTH, 4 * WIDTH),
            f"{block}.mlp.fc2.bias": (WIDTH,),
        }
    shapes |= {f"{norm}.{end}": (WIDTH,) for norm in norms for end in ("weight", "bias")}
    state = {n: 0.3 * torch.randn(shape, generator=generator) for n, shape in shapes.items()}
    return {**state, SCALE: torch.tensor(20.0).log()}


@pytest.fixture(scope="module")
def state():
    return file_state()


@pytest.fixture(scope="module")
def path(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("imagebind") / "imagebind_huge.pth"
    torch.save(state, path)
    return path


def sounds():
    return 0.1 * torch.randn(3, 32_000, generator=torch.Generator().manual_seed(1)) + 0.02


def embedding(w, picture):
    """One spectrogram (128,204) → its embedding of length 1, attention head by head."""
    w = {name: tensor.double() for name, tensor in w.items()}
    patches = F.conv2d(picture[None, None].double(), w[f"{BEFORE}rgbt_stem.proj.weight"], stride=10)
    x = _norm(w, f"{BEFORE}rgbt_stem.norm_layer", patches[0].flatten(1).T, 1e-5)
    x = torch.cat([w[f"{BEFORE}cls_token"][0], x]) + w[f"{BEFORE}pos_embedding_helper.pos_embed"][0]
    for n in range(BLOCKS):
        block = f"{TRUNK}blocks.{n}"
        y = _norm(w, f"{block}.norm_1", x, 1e-6)
        joint = y @ w[f"{block}.attn.in_proj_weight"].T + w[f"{block}.attn.in_proj_bias"]
        q, k, v = joint.chunk(3, dim=1)
        k = torch.cat([k, w[f"{block}.attn.bias_k"][0]])
        v = torch.cat([v, w[f"{block}.attn.bias_v"][0]])
        read = []
        for qh, kh, vh in zip(*(t.chunk(HEADS, dim=1) for t in (q, k, v)), strict=True):
            read.append(((qh @ kh.T) / (WIDTH // HEADS) ** 0.5).softmax(dim=1) @ vh)
        read = torch.cat(read, dim=1)
        x = x + read @ w[f"{block}.attn.out_proj.weight"].T + w[f"{block}.attn.out_proj.bias"]
        y = _norm(w, f"{block}.norm_2", x, 1e-6)
        hidden = F.gelu(y @ w[f"{block}.mlp.fc1.weight"].T + w[f"{block}.mlp.fc1.bias"])
        x = x + hidden @ w[f"{block}.mlp.fc2.weight"].T + w[f"{block}.mlp.fc2.bias"]
    out = w[f"{HEAD}2.weight"] @ _norm(w, f"{HEAD}0", x, 1e-6)[0]
    return out / out.square().sum().sqrt()


def _norm(w, name, x, eps):
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
    return (x - mean) / (variance + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def test_a_clip_gives_the_embedding_of_the_equations_at_length_1(state, path):
    encoder = ImageBindSoundEncoder(str(path), heads=HEADS)
    assert isinstance(encoder, SoundEncoder)
    assert (encoder.num_tokens, encoder.width, encoder.rate_hz) == (1, OUTPUT, 16_000)
    features = encoder.normalised(sounds())
    expected = torch.stack([embedding(state, clip.T) for clip in features]).float()
    found = encoder(sounds())[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert found.std(dim=0).mean() > 1e-4


def test_features_are_kaldis_with_the_mean_and_deviation_of_imagebind(path):
    clips = sounds()
    centred = clips - clips.mean(dim=1, keepdim=True)
    extractor = ASTFeatureExtractor(max_length=204, do_normalize=False, return_attention_mask=False)
    logs = [extractor(c.numpy(), sampling_rate=16_000)["input_values"][0] for c in centred]
    expected = (torch.stack([torch.as_tensor(log) for log in logs]) + 4.268) / 9.138
    found = ImageBindSoundEncoder(str(path), heads=HEADS).normalised(clips)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_its_config_builds_it(path):
    config = OmegaConf.load(CONF)
    config.weights, config.heads, config.dtype = str(path), HEADS, "float32"
    assert type(instantiate(config)) is ImageBindSoundEncoder


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (f"{TRUNK}blocks.1.attn.bias_k", None, rf"1 missing: {TRUNK}blocks.1.attn.bias_k"),
        (f"{HEAD}2.weight", None, rf"1 missing: {HEAD}2.weight"),
        (f"{HEAD}2.bias", (OUTPUT,), rf"1 unexpected: {HEAD}2.bias"),
        (f"{BEFORE}cls_token", (1, 1, 3), rf"1 of another shape: {BEFORE}cls_token \(1, 1, 3\)"),
    ],
)
def test_a_name_or_shape_that_does_not_fit_is_named(state, tmp_path, name, shape, message):
    changed = {n: t for n, t in state.items() if n != name}
    if shape is not None:
        changed[name] = torch.zeros(shape)
    torch.save(changed, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        ImageBindSoundEncoder(str(tmp_path / "a.pth"), heads=HEADS)


def test_no_file_is_fetched_and_the_licence_is_named(path, tmp_path):
    with pytest.raises(ConfigError, match=r"weights is null.*CC BY-NC-SA 4.0"):
        ImageBindSoundEncoder(None)
    with pytest.raises(CheckpointError, match=r"lost.pth does not exist.*CC BY-NC-SA 4.0"):
        ImageBindSoundEncoder(str(tmp_path / "lost.pth"))
    with pytest.raises(ConfigError, match=r"clip_s is 3; ImageBind hears 2 s"):
        ImageBindSoundEncoder(str(path), clip_s=3.0)
    with pytest.raises(ConfigError, match=r"heads is 5; give a divisor of the width 24"):
        ImageBindSoundEncoder(str(path), heads=5)
