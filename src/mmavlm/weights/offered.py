"""What the library's own conf/ offers: the parts and the pretrained weights that it names."""

from __future__ import annotations

import re
from functools import cache

from mmavlm.core.config_files import config_dir

# The groups whose parts make a model and read its data; what surrounds a run is not chosen by data.
ROOMS = (
    "activations", "aligned_frames", "alignment", "backbone", "compile", "contrast", "data",
    "encoder", "fusion", "heads", "llm", "memory", "optimizer", "prompt_tokenizer", "qformer",
    "remedy", "saliency", "sound", "sound_encoder", "stage", "temporal", "text_encoder", "vision",
)  # fmt: skip
_TARGET = re.compile(r"_target_: *(mmavlm(?:\.\w+)+)")
_PRETRAINED = re.compile(r"^ *(?:pretrained|name): *([\w.-]+(?:/[\w.-]+)?)", re.MULTILINE)


@cache
def offered_parts() -> frozenset[str]:
    """The targets that the rooms of a model and its data list in their yamls."""
    return frozenset(name for text in _texts(ROOMS) for name in _TARGET.findall(text))


@cache
def offered_weights() -> frozenset[str]:
    """The names of pretrained weights that the yamls of models and encoders give."""
    rooms = ("encoder", "llm", "model", "prompt_tokenizer", "sound_encoder", "text_encoder")
    return frozenset(name for text in _texts(rooms) for name in _PRETRAINED.findall(text))


def _texts(rooms: tuple[str, ...]) -> list[str]:
    files = [file for room in rooms for file in sorted((config_dir() / room).glob("*.yaml"))]
    return [file.read_text(encoding="utf-8") for file in files]
