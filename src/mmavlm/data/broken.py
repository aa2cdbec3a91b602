"""How many videos of a split may be broken before a run stops."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import reduce
from operator import or_

from mmavlm.core.errors import DataError
from mmavlm.data.names import Names

log = logging.getLogger(__name__)

LISTED = 10
SEPARATOR = ": "  # between the name of a video and what is wrong with it


class BrokenBudget:
    """Counts the distinct broken or missing videos of each split against its distinct videos.

    `add` names every broken video once in the log and raises above the budget. Counts are those of
    this process: a rank sees the videos it reads, and every rank all that are missing.
    """

    def __init__(self, max_broken: float) -> None:
        self.max_broken = max_broken
        self.videos: dict[str, Names] = {}
        self.reasons: dict[str, str] = {}

    def expect(self, split: str, videos: Names | Iterable[str]) -> None:
        """Say which videos a split has."""
        self.videos[split] = videos if isinstance(videos, Names) else Names.of(videos)

    def add(self, broken: Iterable[str]) -> None:
        """Take `"video_id: reason"` entries, as a batch carries them.

        Raises:
            DataError: listing the broken videos of a split, once their share exceeds `max_broken`.
        """
        entries = dict(self._parted(entry) for entry in broken)
        fresh = {name: why for name, why in entries.items() if name not in self.reasons}
        self.reasons |= fresh
        for name, why in list(fresh.items())[:LISTED]:
            log.warning("broken video %s left out: %s", name, why)
        if len(fresh) > LISTED:
            log.warning("… and %d more broken videos left out", len(fresh) - LISTED)
        for split, videos in self.videos.items():
            lost = videos.among(self.reasons)
            if len(lost) > self.max_broken * len(videos):
                raise self._exceeded(split, lost, len(videos))

    def summary(self) -> str:
        """One line for the end of a run."""
        total = reduce(or_, self.videos.values(), Names.of(()))
        return f"{len(self.reasons)} of {len(total)} videos broken or missing"

    def _parted(self, entry: str) -> tuple[str, str]:
        """Video and reason; a video's name may itself hold a colon."""
        name = self.named(entry) or entry.partition(SEPARATOR)[0]
        return name, entry[len(name) + len(SEPARATOR) :]

    def named(self, entry: str) -> str | None:
        """The longest name of a known video that an entry begins with."""
        end = entry.rfind(SEPARATOR)
        while end >= 0:
            if any(entry[:end] in videos for videos in self.videos.values()):
                return entry[:end]
            end = entry.rfind(SEPARATOR, 0, end + len(SEPARATOR) - 1)
        return None

    def _exceeded(self, split: str, lost: list[str], videos: int) -> DataError:
        listed = "\n  ".join(f"{name}: {self.reasons[name]}" for name in lost[:LISTED])
        more = f"\n  … and {len(lost) - LISTED} more" if len(lost) > LISTED else ""
        return DataError(
            f"{len(lost)} of {videos} {split} videos are broken or missing, more than "
            f"data.max_broken={self.max_broken:g} allows:\n  {listed}{more}\n"
            "mend or remove them (`python -m mmavlm.check data=… decode=true` lists all), "
            "or raise data.max_broken"
        )
