"""How many bytes of activations a training step of a model holds, from its sizes (`footprint`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from mmavlm.core.footprint import (
    FilmSizes,
    Phase,
    encoded_phase,
    encoder_phase,
    fusion_phase,
    layers_phase,
    look_phase,
    memory_phase,
    peak,
    trace_phase,
)
from mmavlm.core.interfaces import ReadsPatches

if TYPE_CHECKING:
    from mmavlm.model.backbone import VideoLanguageModel
    from mmavlm.model.branches import Branch

# Of a sample while features are computed: windows of 25 ms every 10 ms, in five single-precision
# copies (centred, shifted, pre-emphasised, weighted, their spectrum).
WINDOW_BYTES = 50


def of_step(
    model: VideoLanguageModel,
    rows: int,
    frames: int,
    prompt_tokens: int = 32,
    answer_tokens: int = 32,
    chunk: int | None = None,
    clips: int = 8,
) -> int:
    """About how many bytes of activations a training step holds at once (see `footprint`).

    Each row has a film of so many frames, and, if the model hears, a sound of so many clips. Texts
    are taken to have so many tokens; mixed precision takes up to half of it less. With `chunk`, so
    many rows are aligned at a time.
    """
    aligned = model.alignment.frames if model.alignment is not None else None
    first = aligned.prefix(frames) if aligned is not None else 0
    if model.llm is None and aligned is not None and not aligned.beyond_first:
        frames = first
    film = FilmSizes(rows, frames, model.vision.encoder.num_tokens, model.vision.encoder.width)
    longest = model.vision.frame_positions.num_embeddings
    qformer = model.vision.temporal.sizes(prompt_tokens, at_most=longest)
    # Features of the cache come without an encoder, in half precision.
    dtype = getattr(model.vision.encoder, "dtype", torch.float16)
    frames_at_once = getattr(model.vision.encoder, "chunk_size", 0)
    phases = [encoder_phase(film, frames_at_once, dtype.itemsize)]
    if chunk is not None:
        phases = [encoded_phase(film, frames_at_once, dtype.itemsize)]
        film = replace(film, rows=min(rows, chunk))
        phases.append(encoder_phase(film, 0, 0))
    if model.vision.fusion.reads_guide:
        phases.append(fusion_phase(film))
    if model.llm is not None or (aligned is not None and aligned.beyond_first):
        temporal, seen = model.vision.temporal, film
        if isinstance(temporal, ReadsPatches):  # of some frames, or of the slots of a memory
            seen = replace(film, frames=temporal.looks_at(frames))
            llm_width = 0 if model.llm is None else model.llm.width
            phases.append(temporal.phase(seen, qformer, llm_width))
        with_gradient = temporal.backprop_frames or seen.frames
        phases.append(memory_phase(seen, qformer, with_gradient))
    if model.llm is not None:
        tokens = model.vision.num_tokens(frames)
        if model.sound is not None:
            phases += _sound_phases(model.sound, rows, clips)
            tokens += model.sound.num_tokens(clips)
        phases += model.llm.phases(rows, tokens, prompt_tokens, answer_tokens)
    if model.alignment is not None and aligned is not None:
        phases.append(trace_phase(replace(film, frames=first), qformer))
        if aligned.uses_middle:
            phases.append(look_phase(film, qformer, film.frames // 2))
        if model.alignment.text_encoder is not None:
            texts = film.rows * (prompt_tokens + answer_tokens)
            phases.append(layers_phase(model.alignment.get_submodule("text_encoder"), texts))
    return peak(phases)


def _sound_phases(sound: Branch, rows: int, clips: int) -> list[Phase]:
    """Features and tokens of clips, and one look of the audio Q-Former at those of all clips."""
    encoder = sound.encoder
    heard = FilmSizes(rows, clips, encoder.num_tokens, encoder.width)
    at_once = replace(heard, frames=1, tokens=clips * encoder.num_tokens)
    dtype = getattr(encoder, "dtype", torch.float16)
    chunk = getattr(encoder, "chunk_size", 0)
    encoded = encoder_phase(heard, chunk, dtype.itemsize)
    windows = min(chunk, rows * clips) * getattr(encoder, "samples", 0) * WINDOW_BYTES
    return [
        replace(encoded, moment=max(encoded.moment, windows)),
        memory_phase(at_once, sound.temporal.sizes(0, at_most=clips), with_gradient=1),
    ]
