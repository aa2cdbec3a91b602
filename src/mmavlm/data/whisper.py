"""Whisper as a recogniser of speech, by a folder or hub name (Radford et al., 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mmavlm.core.errors import CheckpointError, first_line
from mmavlm.data.subtitles import Subtitle
from mmavlm.weights.pretrained import PretrainedFolder, require_kind

LEAST_LOG_PROB = -2.0  # below it LLaMA-VID leaves a segment out


class WhisperRecognizer:
    """What Whisper hears, window by window of 30 s.

    The last segment of a window may be cut off by its end, so the next window begins where that
    segment does. Segments whose tokens have a mean log-probability below `least_log_prob` are left
    out. `language` is a code such as `en`; None lets the model decide for each window.

    Raises:
        CheckpointError: if there is no such folder, or it holds no complete Whisper.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        language: str | None = None,
        least_log_prob: float = LEAST_LOG_PROB,
        device: str = "cpu",
    ) -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        folder = PretrainedFolder(pretrained)
        require_kind(folder, "whisper")
        try:
            path = folder.with_weights()
            self.processor = WhisperProcessor.from_pretrained(path)
            self.model = WhisperForConditionalGeneration.from_pretrained(path).to(device).eval()
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{pretrained} holds no complete Whisper ({first_line(error)}); give a folder with "
                "model, tokenizer and feature extractor, as save_pretrained writes them"
            ) from error
        self.rate_hz: int = self.processor.feature_extractor.sampling_rate
        self.window = self.processor.feature_extractor.n_samples
        self.least_log_prob = least_log_prob
        self.told: dict[str, Any] = {} if language is None else {"language": language}

    def __call__(self, samples: Tensor) -> list[Subtitle]:
        """Samples (n,) float32 from −1 to 1, `rate_hz` a second → segments, in their seconds."""
        found: list[Subtitle] = []
        at = 0
        while at < len(samples):
            heard = self._heard(samples[at : at + self.window])
            following = at + self.window
            again = round(heard[-1]["start"] * self.rate_hz) if len(heard) > 1 else 0
            # less than a second of progress could go on for ever
            if following < len(samples) and again >= self.rate_hz:
                heard, following = heard[:-1], at + again
            found += self._kept(heard, at / self.rate_hz)
            at = following
        return found

    @torch.inference_mode()
    def _heard(self, window: Tensor) -> list[dict[str, Any]]:
        """The segments of a window, with start and end in its seconds, tokens and scores."""
        given = self.processor.feature_extractor(
            window.numpy(), sampling_rate=self.rate_hz, return_tensors="pt",
            return_attention_mask=True,
        ).to(self.model.device)  # fmt: skip
        heard = self.model.generate(
            **given, return_timestamps=True, return_segments=True, return_dict_in_generate=True,
            output_scores=True, **self.told,
        )  # fmt: skip
        (segments,) = heard["segments"]
        return [{**s, "start": float(s["start"]), "end": float(s["end"])} for s in segments]

    def _kept(self, heard: list[dict[str, Any]], at_s: float) -> Iterator[Subtitle]:
        for segment in heard:
            text = self.processor.tokenizer.decode(segment["tokens"], skip_special_tokens=True)
            if text.strip() and mean_log_prob(segment) >= self.least_log_prob:
                yield Subtitle(at_s + segment["start"], at_s + segment["end"], text.strip())


def mean_log_prob(segment: dict[str, Any]) -> float:
    """The mean log-probability of a segment's tokens, as Whisper gave them."""
    tokens, scores = segment["tokens"], segment["result"]["scores"]
    ends = len(segment["result"]["sequences"]) - len(scores)
    first = max(segment["idxs"][0] - ends, 0)
    steps = torch.stack(list(scores[first : first + len(tokens)])).float()
    of_tokens = steps.log_softmax(-1).gather(-1, tokens[: len(steps), None].to(steps.device))
    return float(of_tokens.mean())
