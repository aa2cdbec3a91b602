"""Audio encoders of transformers, by folder or hub name: AST, Whisper, Wav2Vec2 and CLAP."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import ASTModel, ClapAudioModel, Wav2Vec2Model
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mmavlm.core.errors import ConfigError
from mmavlm.model.encoders.mel import ClapMel, KaldiFbank, UnitVariance, WhisperMel
from mmavlm.model.encoders.sound import FrozenSoundEncoder, samples_of
from mmavlm.weights.pretrained import (
    PretrainedFolder,
    as_dtype,
    load_strict,
    load_transformer,
    raise_if_different,
    require_kind,
)

RATE_HZ = 16_000


class AstSoundEncoder(FrozenSoundEncoder):
    """AST's patches of a log-mel spectrogram, 16×16 every 10 (Gong et al., Interspeech 2021).

    2 s in 204 frames give 12×19 patches behind two class tokens, on the grid that Video-LLaMA's
    ImageBind has. Of the position table, made for 10 s, the middle is cut out for shorter clips, as
    AST's authors do, or with `interpolate_positions` all of it is resampled. `pooled`: one token,
    the mean of the two class tokens.

    Raises:
        ConfigError: if there are fewer frames than a patch has, or on an unknown `dtype`.
        CheckpointError: if the weights are missing, damaged, or do not fit.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        clip_s: float = 2.0,
        frames: int = 204,
        pooled: bool = False,
        interpolate_positions: bool = False,
        dtype: str = "float32",
        chunk_size: int = 64,
        compile_backend: str | None = None,
    ) -> None:
        weights_dtype = as_dtype(dtype, "sound_encoder.dtype")
        folder = PretrainedFolder(pretrained)
        require_kind(folder, "audio-spectrogram-transformer")
        config: Any = folder.config
        if frames < config.patch_size:
            raise ConfigError(
                f"sound_encoder.frames is {frames}; a patch of AST has {config.patch_size}"
            )
        model, unused = load_transformer(
            ASTModel, pretrained, folder.with_weights(), dtype=weights_dtype
        )
        heads = [name for name in unused if not name.startswith("classifier.")]
        raise_if_different("ASTModel", pretrained, unexpected=heads)
        rows, old = model.embeddings.get_shape(config)
        columns = (frames - config.patch_size) // config.time_stride + 1
        super().__init__(
            rate_hz=RATE_HZ,
            clip_s=clip_s,
            features=KaldiFbank(RATE_HZ, config.num_mel_bins, frames),
            num_tokens=1 if pooled else 2 + rows * columns,
            width=config.hidden_size,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        table = model.embeddings.position_embeddings
        resized = resized_positions(
            table.detach(), 2, (rows, old), columns, interpolate=interpolate_positions
        )
        model.embeddings.position_embeddings = torch.nn.Parameter(resized)
        self.pooled = pooled
        self.model = model
        self.freeze()

    def tokens(self, inputs: Tensor) -> Tensor:
        """Features (N,frames,mels) → tokens (N,P,Da), class tokens first, low bands first."""
        found = self.model(inputs)
        return found.pooler_output[:, None] if self.pooled else found.last_hidden_state

    def transform(self) -> tuple[str, dict[str, Tensor]]:
        """That of all audio encoders, and which tokens are given."""
        settings, tensors = super().transform()
        return f"{settings} pooled={self.pooled}", tensors


class WhisperSoundEncoder(FrozenSoundEncoder):
    """Whisper's encoder, 50 tokens a second (Radford et al., 2022, section 2.2).

    It was trained on windows of 30 s, so each clip is filled up to that with silence; of the tokens
    those of the clip are given. A short clip costs as much as 30 s.

    Raises:
        ConfigError: if clips are longer than the window, or on an unknown `dtype`.
        CheckpointError: if the weights are missing, damaged, or do not fit.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        clip_s: float = 2.0,
        dtype: str = "float32",
        chunk_size: int = 8,
        compile_backend: str | None = None,
    ) -> None:
        weights_dtype = as_dtype(dtype, "sound_encoder.dtype")
        folder = PretrainedFolder(pretrained)
        require_kind(folder, "whisper")
        config: Any = folder.config
        frames = 2 * config.max_source_positions
        features = WhisperMel(config.num_mel_bins, frames)
        window_s = frames * features.spectrogram.hop / RATE_HZ
        if clip_s > window_s:
            raise ConfigError(
                f"sound_encoder.clip_s is {clip_s:g}; {pretrained} hears {window_s:g} s at most"
            )
        with torch.device("meta"):
            model = WhisperEncoder(config)
        state = folder.state_dict("encoder.", dtype=weights_dtype)
        load_strict(model, state, f"{pretrained}, encoder", assign=True)
        samples_a_token = 2 * features.spectrogram.hop
        super().__init__(
            rate_hz=RATE_HZ,
            clip_s=clip_s,
            features=features,
            num_tokens=math.ceil(samples_of(clip_s, RATE_HZ) / samples_a_token),
            width=config.d_model,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.model = model
        self.freeze()

    def tokens(self, inputs: Tensor) -> Tensor:
        """Features (N,mels,frames) → tokens (N,P,Da) in order of time."""
        return self.model(inputs).last_hidden_state[:, : self.num_tokens]


class Wav2Vec2SoundEncoder(FrozenSoundEncoder):
    """Wav2Vec2 on the samples themselves, 49 tokens a second (Baevski et al., 2020, section 2).

    `normalise`: clips get mean 0 and variance 1, as `do_normalize` of the weights' own settings
    says.

    Raises:
        ConfigError: on an unknown `dtype`, or if clips are too short for a token.
        CheckpointError: if the weights are missing, damaged, or do not fit.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        clip_s: float = 2.0,
        normalise: bool = True,
        dtype: str = "float32",
        chunk_size: int = 64,
        compile_backend: str | None = None,
    ) -> None:
        weights_dtype = as_dtype(dtype, "sound_encoder.dtype")
        folder = PretrainedFolder(pretrained)
        require_kind(folder, "wav2vec2")
        model, _ = load_transformer(
            Wav2Vec2Model,
            pretrained,
            folder.with_weights(),
            may_miss=("masked_spec_embed",),
            dtype=weights_dtype,
        )
        model.masked_spec_embed = None  # for training alone, and random where weights lack it
        num_tokens = int(model._get_feat_extract_output_lengths(samples_of(clip_s, RATE_HZ)))
        if num_tokens < 1:
            raise ConfigError(f"sound_encoder.clip_s is {clip_s}; too short for a token")
        super().__init__(
            rate_hz=RATE_HZ,
            clip_s=clip_s,
            features=UnitVariance() if normalise else torch.nn.Identity(),
            num_tokens=num_tokens,
            width=model.config.hidden_size,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.model = model
        self.freeze()

    def tokens(self, inputs: Tensor) -> Tensor:
        """Clips (N,samples) → tokens (N,P,Da) in order of time."""
        return self.model(inputs).last_hidden_state


class ClapSoundEncoder(FrozenSoundEncoder):
    """CLAP's audio tower, HTS-AT, whose features lie near those of texts (Wu et al., 2023).

    A clip is repeated up to 10 s, as CLAP was trained. 64 tokens, 2 bands by 32 stretches of time;
    `pooled`: their mean. `lowest_hz` is `frequency_min` of the weights' own settings.

    Raises:
        ConfigError: if clips are longer than 10 s, or on an unknown `dtype`.
        CheckpointError: if the weights are missing, damaged, or do not fit.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        clip_s: float = 2.0,
        pooled: bool = False,
        lowest_hz: float = 50.0,
        dtype: str = "float32",
        chunk_size: int = 32,
        compile_backend: str | None = None,
    ) -> None:
        weights_dtype = as_dtype(dtype, "sound_encoder.dtype")
        if clip_s > ClapMel.window_s:
            raise ConfigError(
                f"sound_encoder.clip_s is {clip_s:g}; CLAP hears {ClapMel.window_s} s at most"
            )
        folder = PretrainedFolder(pretrained)
        require_kind(folder, "clap")
        config: Any = folder.config
        audio = config.audio_config
        model = ClapAudioModel(audio)
        state = folder.state_dict("audio_model.", dtype=weights_dtype)
        load_strict(model, state, f"{pretrained}, audio_model", assign=True)
        # of weights with fusion, which hear longer sounds in four parts, all parts are the same
        self.parts = 4 if audio.enable_fusion else 1
        bands = ClapMel(audio.num_mel_bins, lowest_hz, "htk" if audio.enable_fusion else "slaney")
        last = len(audio.depths) - 1
        side = audio.spec_size // audio.patch_stride[0] // 2**last
        super().__init__(
            rate_hz=ClapMel.rate_hz,
            clip_s=clip_s,
            features=bands,
            num_tokens=1 if pooled else side * side,
            width=audio.patch_embeds_hidden_size * 2**last,
            chunk_size=chunk_size,
            compile_backend=compile_backend,
        )
        self.pooled = pooled
        self.model = model
        self.freeze()

    def tokens(self, inputs: Tensor) -> Tensor:
        """Features (N,1,1001,mels) → tokens (N,P,Da), band by band in order of time."""
        longer = torch.zeros(len(inputs), 1, dtype=torch.bool, device=inputs.device)
        found = self.model(inputs.expand(-1, self.parts, -1, -1), is_longer=longer)
        if self.pooled:
            return found.pooler_output[:, None]
        return rearrange(found.last_hidden_state, "n d b t -> n (b t) d")

    def transform(self) -> tuple[str, dict[str, Tensor]]:
        """That of all audio encoders, and which tokens are given."""
        settings, tensors = super().transform()
        return f"{settings} pooled={self.pooled}", tensors


def resized_positions(
    table: Tensor, first: int, grid: tuple[int, int], columns: int, *, interpolate: bool
) -> Tensor:
    """A table of positions (1,first+rows·old,D) for a grid (rows, old) of other `columns`.

    Positions before `first` belong to no patch and are kept. Of a longer table the middle is cut
    out, unless all of it is to be interpolated; a shorter one is resampled in any case.
    """
    rows, old = grid
    places = rearrange(table[:, first:], "1 (r c) d -> 1 d r c", r=rows)
    if columns <= old and not interpolate:
        start = (old - columns) // 2
        places = places[..., start : start + columns]
    else:
        places = F.interpolate(places.float(), (rows, columns), mode="bilinear").to(table)
    return torch.cat([table[:, :first], rearrange(places, "1 d r c -> 1 (r c) d")], dim=1)
