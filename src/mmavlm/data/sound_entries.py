"""What the feature cache keeps of sounds: the clips of one stretch, in a file of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from mmavlm.core.medium import Medium
from mmavlm.data.encoder_cards import EncoderCard
from mmavlm.data.feature_cache import FeatureCache
from mmavlm.data.film_entries import FilmFrames
from mmavlm.data.known_films import identity
from mmavlm.data.sound import Clips, ClipSettings, SoundSource

# Counts up when cutting, mixing or resampling give other clips for the same settings.
CLIPS_VERSION = 1

Stretch = tuple[str, Path, float, float | None]  # the sound's name, where it lies, start, end


@dataclass(frozen=True)
class SoundEntry:
    """One file of the cache: the real clips of a stretch of a sound, none where it is silent.

    A stretch has a file of its own, so that damage in one takes no other with it. `key` names the
    file. It is a hash over sound (name, size and time of change), stretch and clip settings.
    """

    medium: Medium
    settings: ClipSettings
    key: str

    @classmethod
    def of(cls, medium: Medium, settings: ClipSettings) -> SoundEntry:
        """The entry of a medium, by the file that lies there now."""
        name, source, *stretch = _stretch(medium)
        told = ["sound", CLIPS_VERSION, name, identity(source), stretch, settings]
        return cls(medium, settings, hashlib.sha256(json.dumps(told).encode()).hexdigest())

    @property
    def video_id(self) -> str:
        """The sound's name."""
        return self.medium.medium_id

    @property
    def rows_shape(self) -> tuple[int, int]:
        """One row, of as many clips as are taken of a sound."""
        return 1, self.settings.clips

    @property
    def most_frames(self) -> int:
        """How many clips it may hold."""
        return self.settings.clips

    def why_empty(self, row: int) -> str | None:
        """None: a film without sound is an entry too."""
        return None

    def decode(self, card: EncoderCard) -> FilmFrames:
        """Its real clips (N,samples) and when they start.

        Raises:
            VideoError: if the sound cannot be read.
        """
        rate_hz, count, clip_s = self.settings
        source = SoundSource(self.medium.source, rate_hz)
        clips, times_s, mask = source.clips(count, clip_s, self.medium.start_s, self.medium.end_s)
        rows = torch.where(mask, torch.arange(count), -1).int()
        return FilmFrames(clips[mask], times_s[mask].float(), rows[None])


class SoundPlan:
    """The entries that hold the clips of `media`, and which is whose; none without settings."""

    def __init__(self, media: Iterable[Medium], settings: ClipSettings | None) -> None:
        self._entries: dict[Stretch, SoundEntry] = {}
        if settings is not None:
            stretches = {_stretch(medium): medium for medium in media}
            self._entries = {at: SoundEntry.of(m, settings) for at, m in stretches.items()}

    @property
    def entries(self) -> list[SoundEntry]:
        """One for each stretch."""
        return list(self._entries.values())

    def place(self, medium: Medium) -> SoundEntry:
        """The entry that holds a medium's clips."""
        return self._entries[_stretch(medium)]


class CachedSounds:
    """The features of a set's sounds, as a dataset reads them."""

    def __init__(self, cache: FeatureCache, plan: SoundPlan) -> None:
        self.cache = cache
        self.plan = plan

    def read(self, medium: Medium) -> Clips:
        """The tokens (S,P,Da) of a medium's clips, zeros where there is no sound.

        Raises:
            VideoError: if the entry is missing or damaged.
        """
        entry = self.plan.place(medium)
        found, found_s = self.cache.read(entry, 0)
        count, real = entry.settings.clips, len(found)
        features = found.new_zeros(count, *found.shape[1:])
        features[:real] = found
        times_s = torch.zeros(count, dtype=torch.float64)
        times_s[:real] = found_s
        return Clips(features, times_s, torch.arange(count) < real)


def _stretch(medium: Medium) -> Stretch:
    end_s = None if medium.end_s is None else float(medium.end_s)
    return medium.medium_id, medium.source, float(medium.start_s), end_s
