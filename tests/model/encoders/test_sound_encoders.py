import re
import shutil
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ASTModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.interfaces import SoundEncoder
from mmavlm.model.encoders import (
    AstSoundEncoder,
    ClapSoundEncoder,
    TinySoundEncoder,
    Wav2Vec2SoundEncoder,
    WhisperSoundEncoder,
)
from mmavlm.model.encoders.sound_pretrained import resized_positions

CONF = Path(__file__).parents[3] / "conf/sound_encoder"
LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
WHISPER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 50,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
CLAP_AUDIO = {
    "patch_embeds_hidden_size": 8, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
    "hidden_size": 64, "enable_fusion": False,
}  # fmt: skip
WAV2VEC2 = LAYERS | {
    "vocab_size": 20, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
CLAP_TEXT = LAYERS | {"vocab_size": 50}
KINDS = {
    "ast": (AstSoundEncoder, lambda: ASTForAudioClassification(ASTConfig(**LAYERS)), 230),
    "whisper": (
        WhisperSoundEncoder,
        lambda: WhisperForConditionalGeneration(WhisperConfig(**WHISPER)),
        100,
    ),
    "wav2vec2": (Wav2Vec2SoundEncoder, lambda: Wav2Vec2ForCTC(Wav2Vec2Config(**WAV2VEC2)), 99),
    "clap": (
        ClapSoundEncoder,
        lambda: ClapModel(ClapConfig(audio_config=CLAP_AUDIO, text_config=CLAP_TEXT)),
        64,
    ),
}
PRETRAINED = tuple(KINDS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, (_, build, _) in KINDS.items():
        torch.manual_seed(0)
        model = build().eval()
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.std() < 0.05:
                nn.init.normal_(parameter, std=0.1)
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(made[name])
    return made


def make(name, folders, **settings):
    if name == "tiny":
        return TinySoundEncoder(**settings)
    return KINDS[name][0](str(folders[name]), **settings)


def clips_for(encoder, count=3):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(count, round(encoder.clip_s * encoder.rate_hz), generator=generator)


@pytest.mark.parametrize("name", ["tiny", *PRETRAINED])
def test_tokens_have_the_shape_that_the_encoder_says(name, folders):
    encoder = make(name, folders)
    tokens = encoder(clips_for(encoder))
    assert tokens.shape == (3, encoder.num_tokens, encoder.width)
    assert tokens.isfinite().all()
    assert tokens.std(dim=0).mean() > 1e-4, "all clips give the same tokens"
    assert isinstance(encoder, SoundEncoder)
    if name != "tiny":
        assert encoder.num_tokens == KINDS[name][2]


@pytest.mark.parametrize("name", ["tiny", *PRETRAINED])
def test_it_stays_frozen_in_eval_mode_and_what_is_behind_it_may_learn(name, folders):
    encoder = make(name, folders)
    parent = nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in parent.parameters())
    norm = nn.LayerNorm(encoder.width)
    norm(encoder(clips_for(encoder))).square().sum().backward()
    assert norm.weight.grad.any()


@pytest.mark.parametrize("name", ["tiny", *PRETRAINED])
def test_chunks_change_nothing(name, folders):
    encoder, chunked = make(name, folders), make(name, folders, chunk_size=2)
    clips = clips_for(encoder)
    torch.testing.assert_close(chunked(clips), encoder(clips), atol=1e-5, rtol=1e-4)
    assert chunked.fingerprint == encoder.fingerprint
    assert encoder(clips[:0]).shape == (0, encoder.num_tokens, encoder.width)


@pytest.mark.parametrize("name", ["tiny", *PRETRAINED])
def test_clips_of_another_length_are_refused(name, folders):
    encoder = make(name, folders)
    with pytest.raises(ConfigError, match=rf"2 s at {encoder.rate_hz} Hz, got \(2, 100\)"):
        encoder(torch.zeros(2, 100))
    with pytest.raises(ConfigError, match=r"sound_encoder.chunk_size is 0; give 1 clip"):
        make(name, folders, chunk_size=0)
    with pytest.raises(ConfigError, match=r"sound_encoder.clip_s is 0"):
        make(name, folders, clip_s=0.0)


@pytest.mark.parametrize("name", ["tiny", *PRETRAINED])
def test_fingerprint_tells_weights_and_settings_apart(name, folders):
    first = make(name, folders)
    changed = make(name, folders)
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    others = [changed, make(name, folders, clip_s=1.5)]
    if name in ("ast", "clap"):
        others.append(make(name, folders, pooled=True))
    prints = {encoder.fingerprint for encoder in (first, *others)}
    assert len(prints) == 1 + len(others)
    assert make(name, folders).fingerprint == first.fingerprint


@pytest.mark.parametrize("name", PRETRAINED)
def test_weights_that_lack_a_tensor_are_refused_by_its_name(name, folders, tmp_path):
    folder = tmp_path / name
    shutil.copytree(folders[name], folder)
    weights = load_file(folder / "model.safetensors")
    layer = re.compile(r"(audio|encoder).*layers?\.1\..*weight$")
    lost = next(key for key in weights if layer.search(key) and "text_model" not in key)
    kept = {key: tensor for key, tensor in weights.items() if key != lost}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing: \S*layers?\.1\."):
        KINDS[name][0](str(folder))


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_folder_of_another_kind_is_refused(name, folders):
    other = "whisper" if name != "whisper" else "ast"
    with pytest.raises(CheckpointError, match=r"expected '"):
        KINDS[name][0](str(folders[other]))


@pytest.mark.parametrize("name", ["tiny", *PRETRAINED])
def test_its_config_builds_it(name, folders):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    if name != "tiny":
        config.pretrained, config.dtype = str(folders[name]), "float32"
    encoder = instantiate(config)
    assert type(encoder) is type(make(name, folders))
    assert encoder(clips_for(encoder)).shape[1:] == (encoder.num_tokens, encoder.width)


def test_every_config_of_the_group_is_tried():
    assert {file.stem for file in CONF.glob("*.yaml")} == {"tiny", "imagebind", *PRETRAINED}


def test_ast_is_that_of_transformers_on_a_whole_window(folders):
    encoder = make("ast", folders, clip_s=10.24, frames=1024)
    clips = clips_for(encoder, 2)
    centred = clips - clips.mean(dim=1, keepdim=True)
    extractor = ASTFeatureExtractor()
    features = extractor([c.numpy() for c in centred], sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = ASTModel.from_pretrained(folders["ast"]).eval()(**features)
    torch.testing.assert_close(encoder(clips), expected.last_hidden_state, atol=1e-3, rtol=1e-3)
    pooled = make("ast", folders, clip_s=10.24, frames=1024, pooled=True)
    torch.testing.assert_close(pooled(clips)[:, 0], expected.pooler_output, atol=1e-3, rtol=1e-3)


def test_whisper_is_that_of_transformers_on_a_clip_filled_up_to_30_s(folders):
    encoder = make("whisper", folders)
    clips = clips_for(encoder, 2)
    extractor = WhisperFeatureExtractor()
    features = extractor([c.numpy() for c in clips], sampling_rate=16_000, return_tensors="pt")
    model = WhisperForConditionalGeneration.from_pretrained(folders["whisper"]).eval()
    with torch.no_grad():
        expected = model.model.encoder(features["input_features"]).last_hidden_state
    torch.testing.assert_close(encoder(clips), expected[:, :100], atol=1e-3, rtol=1e-3)


def test_wav2vec2_is_that_of_transformers(folders):
    encoder = make("wav2vec2", folders, normalise=False)
    clips = clips_for(encoder, 2)
    model = Wav2Vec2ForCTC.from_pretrained(folders["wav2vec2"]).eval()
    with torch.no_grad():
        expected = model.wav2vec2(clips).last_hidden_state
    torch.testing.assert_close(encoder(clips), expected, atol=1e-4, rtol=1e-3)


def test_clap_is_that_of_transformers(folders):
    encoder = make("clap", folders)
    clips = clips_for(encoder, 2)
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc")
    features = extractor([c.numpy() for c in clips], sampling_rate=48_000, return_tensors="pt")
    model = ClapModel.from_pretrained(folders["clap"]).eval()
    with torch.no_grad():
        expected = model.audio_model(**features)
    last = expected.last_hidden_state.flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder(clips), last, atol=1e-3, rtol=1e-3)
    pooled = make("clap", folders, pooled=True)(clips)[:, 0]
    torch.testing.assert_close(pooled, expected.pooler_output, atol=1e-3, rtol=1e-3)


def test_claps_weights_with_fusion_hear_short_clips_too(tmp_path):
    torch.manual_seed(0)
    audio = CLAP_AUDIO | {"enable_fusion": True}
    ClapModel(ClapConfig(audio_config=audio, text_config=CLAP_TEXT)).save_pretrained(tmp_path)
    encoder = ClapSoundEncoder(str(tmp_path))
    assert encoder(clips_for(encoder)).shape == (3, 64, 64)


@pytest.mark.parametrize(("columns", "interpolate"), [(19, False), (19, True), (120, False)])
def test_positions_are_cut_or_resampled_row_by_row(columns, interpolate):
    """A table linear in row and column stays so, whichever way it is resized."""
    rows, old = 12, 101
    values = 1000.0 * torch.arange(rows)[:, None] + torch.arange(old)
    table = torch.cat([torch.tensor([-1.0, -2.0]), values.flatten()])[None, :, None]
    found = resized_positions(table, 2, (rows, old), columns, interpolate=interpolate)
    assert found[0, :2, 0].tolist() == [-1.0, -2.0]
    grid = found[0, 2:, 0].view(rows, columns)
    torch.testing.assert_close(grid.diff(dim=0), torch.full((rows - 1, columns), 1000.0))
    step = old / columns if interpolate or columns > old else 1.0
    torch.testing.assert_close(grid[0, 2:-2].diff(), torch.full((columns - 5,), step))
    assert grid[0].mean() == pytest.approx(50, abs=1)


def test_positions_of_as_many_columns_stay(folders):
    table = torch.randn(1, 2 + 12 * 101, 4)
    assert torch.equal(resized_positions(table, 2, (12, 101), 101, interpolate=False), table)


@pytest.mark.parametrize("interpolate", [False, True])
def test_ast_takes_clips_shorter_than_its_table(folders, interpolate):
    encoder = make("ast", folders, clip_s=1.0, frames=96, interpolate_positions=interpolate)
    assert encoder.num_tokens == 2 + 12 * 9
    assert encoder(clips_for(encoder)).shape == (3, 110, 32)
    with pytest.raises(ConfigError, match=r"frames is 10; a patch of AST has 16"):
        make("ast", folders, frames=10)


def test_clips_longer_than_an_encoder_hears_are_refused(folders):
    with pytest.raises(ConfigError, match=r"clip_s is 31; .* hears 30 s at most"):
        make("whisper", folders, clip_s=31.0)
    with pytest.raises(ConfigError, match=r"clip_s is 11; CLAP hears 10 s at most"):
        make("clap", folders, clip_s=11.0)


def test_tiny_follows_its_seed_alone():
    torch.manual_seed(1)
    first = TinySoundEncoder(seed=3)
    torch.manual_seed(2)
    clips = clips_for(first)
    assert torch.equal(TinySoundEncoder(seed=3)(clips), first(clips))
    assert TinySoundEncoder(seed=4).fingerprint != first.fingerprint


def test_tiny_tells_pitches_and_times_apart():
    encoder = TinySoundEncoder()
    t_s = torch.arange(32_000) / 16_000
    low, high = ((0.3 * torch.sin(2 * torch.pi * hz * t_s)) for hz in (200, 3000))
    early = low * (t_s < 1)
    tokens = encoder(torch.stack([low, high, early])).unflatten(1, (4, 4))  # bands, times
    changed = (tokens[0] - tokens[1]).norm(dim=-1)
    assert changed[0].min() > 1, "the lowest band hears 200 Hz and not 3000"
    later = (tokens[0] - tokens[2]).norm(dim=-1)
    assert later[0, 3] > 3 * later[0, 0]
