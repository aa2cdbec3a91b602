"""LLaMA-VID's and MovieLLM's pickles of features → files that runs read.

Of each pickle come two files of its name: `.safetensors`, which takes the place of the film, and
`.json`, what is said in it. Pickles are read without running what they name; nothing else in
mmavlm reads any.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.files import write_whole
from mmavlm.data.feature_pickles import read_film_pickle
from mmavlm.data.film_features import SUFFIX, write_film_features

PLACEHOLDER = "<image>"


def convert_features(
    pickles: Sequence[Path], folder: Path, fps: float = 1.0, placeholder: str = PLACEHOLDER
) -> Iterator[str]:
    """Write the two files of each pickle, one after the other, and say what they hold.

    Raises:
        ConfigError: if `fps` is no rate, or two pickles have one name.
        DataError: naming the pickle, if it is none, or has another number of placeholders.
    """
    if not (math.isfinite(fps) and 0 < fps <= 240):
        raise ConfigError(f"fps={fps:g} is no rate of frames; give 1 as LLaMA-VID has")
    names = [path.stem for path in pickles]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"several pickles are called {', '.join(sorted(twice))}; convert apart")
    for path in pickles:
        yield convert_film(path, folder, fps, placeholder)


def convert_film(path: Path, folder: Path, fps: float, placeholder: str = PLACEHOLDER) -> str:
    """Write the two files of a pickle, and say what they hold.

    Raises:
        DataError: naming the pickle, if it is none, or has another number of placeholders.
    """
    film = read_film_pickle(path)
    segments = spoken(film.text, len(film.features), fps, placeholder, path)
    features = folder / f"{path.stem}{SUFFIX}"
    # first, so that a film is never there without what is said in it
    said = json.dumps({"segments": segments}, ensure_ascii=False, indent=1)
    write_whole(features.with_suffix(".json"), said.encode())
    write_film_features(features, film.features, fps)
    frames, tokens, width = film.features.shape
    return f"{features}: {frames} frames of {tokens}×{width}, {len(segments)} subtitles"


def spoken(
    text: str, frames: int, fps: float, placeholder: str, path: Path
) -> list[dict[str, float | str]]:
    """What stands behind the placeholders of frames, as segments of a transcript.

    What is said behind frame k lies between it and the next frame; what stands before the first
    frame is put behind it.

    Raises:
        DataError: if there is not one placeholder a frame.
    """
    before, *behind = text.split(placeholder)
    if len(behind) != frames:
        raise DataError(
            f"{path} has {frames} frames and {len(behind)} placeholders {placeholder!r}; expected "
            "one each (placeholder=… says how they are spelt)"
        )
    behind[0] = f"{before} {behind[0]}"
    said = ((k, " ".join(words.split())) for k, words in enumerate(behind))
    # files of subtitles count milliseconds: 1 less keeps the end before the next frame
    return [
        {
            "start": math.ceil(1000 * k / fps) / 1000,
            "end": (math.floor(1000 * (k + 1) / fps) - 1) / 1000,
            "text": words,
        }
        for k, words in said
        if words
    ]
