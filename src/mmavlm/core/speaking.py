"""When a model that watches a film speaks, by the scores of its frames (MMDuet, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean, pstdev
from typing import Any, Literal, get_args

from mmavlm.core.errors import ConfigError
from mmavlm.core.settings import at_least, names, whole_at_least
from mmavlm.core.streams import INFORMATIVE

By = Literal["probability", "sum", "zscore"]
BYS = get_args(By)
HEADS = (INFORMATIVE,)


@dataclass(frozen=True, slots=True)
class Listening:
    """What a rule carries from frame to frame.

    `spoke_s` is when it spoke last; `summed` the totals since then; `recent` the last totals;
    `held` that it waits for the total to fall.
    """

    spoke_s: float | None = None
    summed: float = 0.0
    recent: tuple[float, ...] = ()
    held: bool = False


SILENT = Listening()


@dataclass(frozen=True)
class SpeakingRule:
    """Speak at a frame of which the scores of `heads` sum to a total that is large enough.

    That is, `by`:
      probability: the total exceeds `threshold`;
      sum: the totals since the last time it spoke sum to more than `threshold`;
      zscore: the total exceeds mean + threshold·deviation of the last `history` totals before it.
        Until there are so many it is silent.
    For `pause_s` after it spoke it is silent. With `release` it is so, too, until the total has
    been as low as that: one rise of the scores is one reply.

    Raises:
        ConfigError: if a setting is no such number, or there is no such way.
    """

    threshold: float
    pause_s: float = 0.0
    heads: tuple[str, ...] = HEADS
    by: By = "probability"
    release: float | None = None
    history: int = 20

    def __post_init__(self) -> None:
        at_least("speak", float("-inf"), threshold=self.threshold, release=self.release)
        at_least("speak", 0, pause_s=self.pause_s)
        whole_at_least("speak", 2, history=self.history)
        if self.by not in BYS:
            raise ConfigError(f"speak.by={self.by!r} is unknown; choose {', '.join(BYS)}")
        if not self.heads or isinstance(self.heads, str):
            raise ConfigError(f"speak.heads={self.heads!r}; give a list of heads, [{INFORMATIVE}]")
        if len(set(self.heads)) < len(self.heads):
            raise ConfigError(f"speak.heads={[*self.heads]} names a head twice; name each once")

    @classmethod
    def of(cls, settings: Any) -> SpeakingRule:
        """The rule of settings by name, as a config or a file of scores has them.

        Raises:
            ConfigError: if a setting is unknown or missing, or see above.
        """
        if not isinstance(settings, Mapping):
            raise ConfigError(f"speak={settings!r} is no rule; give speak.threshold=0.5 and others")
        known = {one.name for one in fields(cls)}
        if unknown := sorted(set(settings) - known):
            raise ConfigError(f"speak.{unknown[0]} is unknown; choose {', '.join(sorted(known))}")
        if settings.get("threshold") is None:
            raise ConfigError("speak.threshold is not set; give a number, such as 0.5")
        return cls(**{**settings, "heads": tuple(names(settings.get("heads", HEADS)))})

    @property
    def in_words(self) -> str:
        """When it speaks, in words."""
        total = " + ".join(self.heads)
        said = {
            "probability": f"where {total} exceeds {self.threshold:g}",
            "sum": f"where {total}, summed since it spoke, exceeds {self.threshold:g}",
            "zscore": f"where {total} is {self.threshold:g} deviations above the mean of the last "
            f"{self.history} frames",
        }[self.by]
        pause = f", at least {self.pause_s:g} s after it spoke" if self.pause_s else ""
        fall = f", once it has been {self.release:g} or less" if self.release is not None else ""
        return said + pause + fall

    def step(self, state: Listening, time_s: float, total: float) -> tuple[Listening, bool]:
        """Whether to speak at a frame, by the total of its scores, and what is carried on."""
        if self.by == "probability":
            high = total > self.threshold
        elif self.by == "sum":
            state = replace(state, summed=state.summed + total)
            high = state.summed > self.threshold
        else:
            high = self._stands_out(state.recent, total)
            state = replace(state, recent=(*state.recent, total)[-self.history :])
        if state.held and self.release is not None and total <= self.release:
            state = replace(state, held=False)
        paused = state.spoke_s is not None and time_s - state.spoke_s < self.pause_s
        if not high or paused or state.held:
            return state, False
        held = self.release is not None
        return replace(state, spoke_s=time_s, summed=0.0, held=held), True

    def times_s(self, times_s: Sequence[float], totals: Sequence[float]) -> list[float]:
        """When it speaks in a film with frames at `times_s`, by the totals of their scores."""
        state, spoken = SILENT, []
        for time_s, total in zip(times_s, totals, strict=True):
            state, speaks = self.step(state, time_s, total)
            if speaks:
                spoken.append(time_s)
        return spoken

    def _stands_out(self, recent: Sequence[float], total: float) -> bool:
        if len(recent) < self.history:
            return False
        mean = fmean(recent)
        return total > mean + self.threshold * pstdev(recent, mean)
