"""Speech recognition: a film's sound → what is said in it, as a transcript beside the film."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pysubs2
import torch
from torch import Tensor

from mmavlm.core.errors import VideoError
from mmavlm.core.files import write_whole
from mmavlm.data.sound import SoundSource
from mmavlm.data.subtitles import SUFFIXES, Subtitle

FORMATS = ("json", "srt")
PART_S = 600.0  # decoded at once: at the film's own rate, sound takes several times the memory


class SpeechRecognizer(Protocol):
    """What hears texts in samples."""

    rate_hz: int

    def __call__(self, samples: Tensor) -> Sequence[Subtitle]:
        """Samples (n,) float32 from −1 to 1, `rate_hz` a second → segments, in their seconds."""


def transcript_of(film: Path) -> Path | None:
    """The subtitles that lie beside a film under its name, or None."""
    beside = (film.with_suffix(suffix) for suffix in SUFFIXES)
    return next((path for path in beside if path.is_file()), None)


def transcribe(film: Path, recognizer: SpeechRecognizer) -> list[Subtitle] | None:
    """What is said in a film, in order of time and within its sound; None of a silent film.

    Segments without a text, or behind the end, are left out.

    Raises:
        VideoError: naming path and reason, if the sound cannot be decoded.
    """
    source = SoundSource(film, recognizer.rate_hz)
    if source.duration_s * recognizer.rate_hz < 1:
        return None
    end_s = source.duration_s
    samples = torch.cat(
        [
            source.clips(1, min(PART_S, end_s - at_s), at_s, min(at_s + PART_S, end_s)).clips[0]
            for at_s in np.arange(0, end_s, PART_S).tolist()
        ]
    )
    heard = (
        Subtitle(max(start_s, 0.0), min(stop_s, end_s), " ".join(text.split()))
        for start_s, stop_s, text in recognizer(samples)
    )
    return sorted(said for said in heard if said.text and said.start_s < said.end_s)


def write_transcript(film: Path, said: Sequence[Subtitle], kind: str = "json") -> Path:
    """Write what is said beside a film, as `.json` or `.srt`, complete or not at all.

    Raises:
        OSError: if the folder cannot be written.
    """
    segments = [{"start": s.start_s, "end": s.end_s, "text": s.text} for s in said]
    path = film.with_suffix(f".{kind}")
    if kind == "srt":
        content = pysubs2.load_from_whisper(segments).to_string("srt")
    else:
        content = json.dumps({"segments": segments}, ensure_ascii=False, indent=1)
    write_whole(path, content.encode())
    return path


def films_of(paths: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    """The films that are named, and those of folders, searched deep, in order of their names.

    Raises:
        VideoError: if a path does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob("*"))
            found += [film for film in inside if film.suffix.lower() in suffixes and film.is_file()]
        elif path.is_file():
            found.append(path)
        else:
            raise VideoError(f"{path} does not exist; name a film, or a folder of films")
    return list(dict.fromkeys(found))
