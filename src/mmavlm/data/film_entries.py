"""What the feature cache keeps in one file, and of films: all frames that a set takes of one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mmavlm.core.errors import VideoError
from mmavlm.core.medium import GridSampling, Kind, Medium
from mmavlm.data.encoder_cards import EncoderCard
from mmavlm.data.known_films import KnownFilms, identities
from mmavlm.data.sampling import frame_times, grid_times
from mmavlm.data.sources import FrameSource
from mmavlm.data.transforms import ClipTransform
from mmavlm.data.video import DECODING_VERSION

# Counts up when sampling or resizing give other frames for the same settings.
FRAMES_VERSION = 1
# Windows of one film share a file up to so many frames, which a process must hold at once.
MAX_FRAMES = 512

# start, end (infinite: to the end), frames of the grid for each way to sample it (or -1)
Choice = tuple[float, float, int, int]
Film = tuple[str, Path, Kind]  # its name, where it lies, and how it is read


@dataclass(frozen=True)
class Sampling:
    """How many frames are taken of a film, the rate of the frame grid, and how many a second.

    `sample_fps` None takes `num_frames` of each film; otherwise they are the most that are taken.
    """

    num_frames: int
    frame_fps: float
    sample_fps: float | None = None

    def most(self, start_s: float, end_s: float) -> int:
        """How many frames a stretch that is sampled by no grid has at most."""
        if self.sample_fps is None or math.isinf(end_s):
            return self.num_frames
        return min(self.num_frames, int((end_s - start_s) * self.sample_fps) + 1)

    def times(self, medium: Medium, source: FrameSource) -> list[float]:
        """The times that evaluation takes of a film; errors as of `frame_times`."""
        return frame_times(medium, source, self.num_frames, None, self.sample_fps)


@dataclass(frozen=True)
class FilmFrames:
    """Decoded frames of an entry: uint8 (N,3,S,S), times (N,), and where each stretch has its own.

    `rows` (R,T) int32 are indices of frames, a row for each stretch of the entry, -1 behind the
    last; stretches that could not be read have none, and `problems` says why. Of a sound, frames
    are clips, float32 (N,samples).
    """

    frames: Tensor
    times_s: Tensor
    rows: Tensor
    problems: tuple[str, ...] = ()


class Entry(Protocol):
    """What has a file of its own in a cache: `key` names it, and it holds up to `most_frames`."""

    @property
    def key(self) -> str:
        """What names the file."""

    @property
    def video_id(self) -> str:
        """The name of the film or sound."""

    @property
    def most_frames(self) -> int:
        """How many frames or clips it may hold."""

    @property
    def rows_shape(self) -> tuple[int, int]:
        """Stretches, and how many frames each takes at most."""

    def why_empty(self, row: int) -> str | None:
        """Why it is a fault that a stretch has no frame; None where it is none."""

    def decode(self, card: EncoderCard) -> FilmFrames:
        """What the encoder of a card takes; VideoError if it cannot be read."""


@dataclass(frozen=True)
class FilmEntry:
    """One file of the cache: stretches of one film, each with another choice of frames.

    `key` names the file. It is a hash over film (name, size and time of change), choices and
    sampling, so that whatever changes makes another entry. `identity` is what it says of the film.
    """

    stretches: tuple[Medium, ...]
    sampling: Sampling
    key: str
    identity: tuple[int | str, ...] = ()

    @property
    def video_id(self) -> str:
        """The film's name."""
        return self.stretches[0].medium_id

    @property
    def most_frames(self) -> int:
        """How many frames it may hold; exact for windows on a grid."""
        return _most_frames(list(map(choice, self.stretches)), self.sampling)

    @property
    def rows_shape(self) -> tuple[int, int]:
        """Stretches, and how many frames each takes at most."""
        return len(self.stretches), self.sampling.num_frames

    def why_empty(self, row: int) -> str:
        """What to do about a stretch of which the film gave no frame."""
        asked = self.stretches[row]
        return (
            f"{asked.source} gave no frames from {asked.start_s:g} s on when data.cache was "
            "filled; correct its start_s, or get the whole film"
        )

    def decode(self, card: EncoderCard) -> FilmFrames:
        """Its frames as evaluation sees them, each one decoded once.

        Raises:
            VideoError: if the film cannot be read, or no stretch lies within it.
        """
        source = FrameSource.of(self.stretches[0], self.sampling.frame_fps)
        times, problems = [], []
        for stretch in self.stretches:
            try:
                times.append(self.sampling.times(stretch, source))
            except VideoError as error:
                times.append([])
                problems.append(str(error))
        if not any(times):
            raise VideoError("; ".join(problems))
        union = np.unique(np.concatenate([np.asarray(t, np.float64) for t in times]))
        assert card.image_size is not None  # the card is of an encoder of pictures
        frames, times_s = source.read(union.tolist(), ClipTransform(card.image_size, None))
        rows = torch.full((len(times), self.sampling.num_frames), -1, dtype=torch.int32)
        for row, taken in zip(rows, times, strict=True):
            row[: len(taken)] = torch.from_numpy(np.searchsorted(union, taken))
        return FilmFrames(frames, times_s, rows, tuple(problems))


class FilmPlan:
    """The entries that hold the frames of `media`, and where each finds its own.

    Films that are `known` are taken to be as they were, until they are read; see `known_films`.
    """

    def __init__(
        self, media: Iterable[Medium], sampling: Sampling, known: KnownFilms | None = None
    ) -> None:
        self.known = known
        self.entries: list[FilmEntry] = []
        self._places: dict[tuple[Film, Choice], tuple[FilmEntry, int]] = {}
        films: dict[Film, dict[Choice, Medium]] = {}
        for medium in media:
            films.setdefault(_film(medium), {}).setdefault(choice(medium), medium)
        sources = [source for _, source, _ in films]
        found = identities(sources) if known is None else known.identities(sources)
        for (named, choices), told_of in zip(films.items(), found, strict=True):
            name, _, kind = named
            film = [name, *told_of, *([] if kind == "film" else [kind])]
            for group in _groups(sorted(choices), sampling):
                versions = [FRAMES_VERSION, DECODING_VERSION]
                told = [versions, film, sampling.num_frames, sampling.frame_fps, group]
                if sampling.sample_fps is not None:
                    told.append(sampling.sample_fps)
                key = hashlib.sha256(json.dumps(told).encode()).hexdigest()
                stretches = tuple(choices[c] for c in group)
                entry = FilmEntry(stretches, sampling, key, tuple(told_of))
                self.entries.append(entry)
                for row, chosen in enumerate(group):
                    self._places[named, chosen] = entry, row

    def place(self, medium: Medium) -> tuple[FilmEntry, int]:
        """The entry that holds a medium's frames, and which of its rows names them."""
        return self._places[_film(medium), choice(medium)]


def choice(medium: Medium) -> Choice:
    """What decides, beside film and sampling, which frames a medium has."""
    end_s = math.inf if medium.end_s is None else float(medium.end_s)
    return float(medium.start_s), end_s, _grid(medium, "windows"), _grid(medium, "segments")


def _grid(medium: Medium, sampling: GridSampling) -> int:
    """The frames of the grid that is sampled so, or -1."""
    return medium.grid.frames if medium.grid and medium.grid.sampling == sampling else -1


def _film(medium: Medium) -> Film:
    return medium.medium_id, medium.source, medium.kind


def _groups(choices: Sequence[Choice], sampling: Sampling) -> Iterator[list[Choice]]:
    """Neighbouring choices, together up to `MAX_FRAMES` frames, but at least one."""
    group: list[Choice] = []
    for chosen in choices:
        if group and _most_frames([*group, chosen], sampling) > MAX_FRAMES:
            yield group
            group = []
        group.append(chosen)
    yield group


def _most_frames(choices: Sequence[Choice], sampling: Sampling) -> int:
    """What the choices take at most, frames that they share on a grid counted once."""
    on_grid: set[float] = set()
    others = 0
    for start_s, end_s, grid_frames, _ in choices:
        if grid_frames < 0 or math.isinf(end_s) or sampling.sample_fps is not None:
            others += sampling.most(start_s, end_s)
        else:
            times_s = grid_times(
                start_s, end_s, sampling.num_frames, grid_frames, sampling.frame_fps
            )
            on_grid.update(times_s)
    return len(on_grid) + others
