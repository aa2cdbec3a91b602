"""How many videos of a run may be broken before it stops."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mmavlm.errors import DataError

log = logging.getLogger(__name__)


class BrokenBudget:
    """Counts the distinct broken videos of a run against a share of all its videos.

    `add` names every broken video once in the log and raises above the budget.
    """

    def __init__(self, max_broken: float, videos: int = 0) -> None:
        self.max_broken = max_broken
        self.videos = videos
        self.reasons: dict[str, str] = {}

    def add(self, broken: Iterable[str]) -> None:
        """Take `"video_id: reason"` entries, as a batch carries them.

        Raises:
            DataError: listing the broken videos, once their share exceeds `max_broken`.
        """
        for entry in broken:
            video_id, _, reason = entry.partition(": ")
            if video_id not in self.reasons:
                self.reasons[video_id] = reason
                log.warning("broken video %s left out: %s", video_id, reason)
        if len(self.reasons) > self.max_broken * self.videos:
            listed = "\n  ".join(f"{name}: {why}" for name, why in list(self.reasons.items())[:10])
            more = f"\n  … and {len(self.reasons) - 10} more" if len(self.reasons) > 10 else ""
            raise DataError(
                f"{len(self.reasons)} of {self.videos} videos are broken or missing, more than "
                f"data.max_broken={self.max_broken:g} allows:\n  {listed}{more}\n"
                "mend or remove them (`python -m mmavlm.check data=… decode=true` lists all), "
                "or raise data.max_broken"
            )

    def summary(self) -> str:
        """One line for the end of a run."""
        return f"{len(self.reasons)} of {self.videos} videos broken or missing"
