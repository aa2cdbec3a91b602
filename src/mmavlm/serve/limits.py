"""What a served model takes of whoever talks with it."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from mmavlm.core.errors import MmavlmError
from mmavlm.core.settings import above_zero, whole_at_least

MB = 10**6


class RefusedError(MmavlmError):
    """Something that is not taken: `status` is what HTTP calls the reason."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What is taken at most: megabytes and minutes of a film, films, visits and questions at once.

    What a visitor brought is deleted after `keep_minutes` without a word, and an answer ends after
    `answer_s` seconds.

    Raises:
        ConfigError: if a number is out of range.
    """

    max_mb: float = 500
    max_minutes: float = 60
    max_films: int = 8
    max_visits: int = 32
    waiting: int = 16
    keep_minutes: float = 30
    answer_s: float = 300

    def __post_init__(self) -> None:
        above_zero(
            "",
            max_mb=self.max_mb,
            max_minutes=self.max_minutes,
            keep_minutes=self.keep_minutes,
            answer_s=self.answer_s,
        )
        whole_at_least("", 1, max_films=self.max_films, max_visits=self.max_visits)
        whole_at_least("", 0, waiting=self.waiting)

    @classmethod
    def of(cls, config: DictConfig) -> Limits:
        """Those of a config."""
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})

    @property
    def max_bytes(self) -> int:
        """How large a film may be."""
        return int(self.max_mb * MB)
