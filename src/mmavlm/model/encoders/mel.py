"""Features of clips as audio encoders were trained on them: in torch, a batch at a time."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank

# Of AudioSet, as AST and ImageBind take them; twice the deviation gives values of deviation ½.
AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974


class KaldiFbank(nn.Module):
    """Log-mel energies as Kaldi's `fbank` computes them (HTK-compatible, no energy, no dither).

    Windows of 25 ms (Hann) every 10 ms, each without its mean and pre-emphasised by 0.97. The mean
    of the clip is taken away first, as ImageBind does. Clips are cut to `frames` frames, or filled
    up with zeros, and (x − mean) / (2·std) of AudioSet is given (AST, section 2.1).
    """

    mean, twice_std = AUDIOSET_MEAN, 2 * AUDIOSET_STD
    filters: Tensor
    window: Tensor

    def __init__(self, rate_hz: int = 16_000, mels: int = 128, frames: int = 204) -> None:
        super().__init__()
        self.rate_hz, self.mels, self.frames = rate_hz, mels, frames
        self.length, self.hop = rate_hz * 25 // 1000, rate_hz // 100
        self.fft = 1 << (self.length - 1).bit_length()
        with warnings.catch_warnings():  # with 128 bands the lowest are narrower than a bin
            warnings.filterwarnings("ignore", "At least one mel filter has all zero values")
            filters = mel_filter_bank(
                self.fft // 2 + 1, mels, 20.0, rate_hz / 2, rate_hz,
                mel_scale="kaldi", triangularize_in_mel_space=True,
            )  # fmt: skip
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        window = torch.hann_window(self.length, periodic=False)
        self.register_buffer("window", window, persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (N,samples) float32 → (N,frames,mels) float32."""
        clips = clips - clips.mean(dim=1, keepdim=True)
        clips = F.pad(clips, (0, max(self.length - clips.shape[1], 0)))
        windows = clips.unfold(1, self.length, self.hop)[:, : self.frames]
        windows = windows - windows.mean(dim=2, keepdim=True)
        before = torch.cat([windows[..., :1], windows[..., :-1]], dim=2)
        spectrum = torch.fft.rfft((windows - 0.97 * before) * self.window.float(), self.fft)
        energies = spectrum.abs().square() @ self.filters.float()
        logs = energies.clamp(min=torch.finfo(torch.float32).eps).log()
        padded = F.pad(logs, (0, 0, 0, self.frames - logs.shape[1]))
        return (padded - self.mean) / self.twice_std

    def extra_repr(self) -> str:
        """All that the features depend on."""
        return f"rate_hz={self.rate_hz}, mels={self.mels}, frames={self.frames}"


class ImageBindMel(KaldiFbank):
    """As `KaldiFbank`, with the rounded mean and deviation of ImageBind's code."""

    mean, twice_std = -4.268, 9.138


class MelSpectrogram(nn.Module):
    """Mel energies (N,mels,frames) of centred Hann windows; `bank` goes to `mel_filter_bank`."""

    filters: Tensor
    window: Tensor

    def __init__(self, rate_hz: int, mels: int, fft: int, hop: int, **bank: Any) -> None:
        super().__init__()
        self.settings = f"rate_hz={rate_hz}, mels={mels}, fft={fft}, hop={hop}, {bank}"
        self.fft, self.hop = fft, hop
        filters = mel_filter_bank(fft // 2 + 1, mels, sampling_rate=rate_hz, **bank)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(fft), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (N,samples) float32 → (N,mels,frames) float32, at least 1e-10."""
        window = self.window.float()
        spectrum = torch.stft(clips, self.fft, self.hop, window=window, return_complex=True)
        return (self.filters.float().T @ spectrum.abs().square()).clamp(min=1e-10)

    def extra_repr(self) -> str:
        """All that the energies depend on."""
        return self.settings


class WhisperMel(nn.Module):
    """Log-mel features as Whisper takes them, of clips filled up with silence to `frames`."""

    def __init__(self, mels: int = 80, frames: int = 3000) -> None:
        super().__init__()
        self.frames = frames
        self.spectrogram = MelSpectrogram(
            16_000, mels, 400, 160,
            min_frequency=0.0, max_frequency=8000.0, norm="slaney", mel_scale="slaney",
        )  # fmt: skip

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (N,samples) float32 → (N,mels,frames) float32."""
        filled = F.pad(clips, (0, self.frames * self.spectrogram.hop - clips.shape[1]))
        logs = self.spectrogram(filled)[..., :-1].log10()
        loudest = logs.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(logs, loudest - 8.0) + 4.0) / 4.0

    def extra_repr(self) -> str:
        """All that the features depend on beside the spectrogram."""
        return f"frames={self.frames}"


class ClapMel(nn.Module):
    """Mel energies in dB as CLAP takes them, of clips repeated up to 10 s and then silence."""

    rate_hz, window_s = 48_000, 10

    def __init__(
        self, mels: int = 64, lowest_hz: float = 50.0, scale: Literal["slaney", "htk"] = "slaney"
    ) -> None:
        super().__init__()
        self.spectrogram = MelSpectrogram(
            self.rate_hz, mels, 1024, 480,
            min_frequency=lowest_hz, max_frequency=14_000.0, mel_scale=scale,
            norm="slaney" if scale == "slaney" else None,
        )  # fmt: skip

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (N,samples) float32 → (N,1,1001,mels) float32."""
        samples = self.rate_hz * self.window_s
        repeated = clips.repeat(1, samples // clips.shape[1])
        filled = F.pad(repeated, (0, samples - repeated.shape[1]))
        return 10 * self.spectrogram(filled).log10().transpose(1, 2)[:, None]


class UnitVariance(nn.Module):
    """Clips of mean 0 and variance 1, as most of Wav2Vec2's weights expect them."""

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (N,samples) float32 → the same shape."""
        variance, mean = torch.var_mean(clips, dim=1, keepdim=True, correction=0)
        return (clips - mean) / (variance + 1e-7).sqrt()
