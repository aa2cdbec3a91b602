"""What stands around the turns of a conversation that goes on while a film runs.

Where frames, questions and answers come one by one, nobody can tokenise all of them as one text. So
each turn is written by itself: what the chat template puts in front of it, what it says, and what
the template puts behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from mmavlm.core.errors import ConfigError
from mmavlm.core.turns import ROLES, Role

# Which turns stand beside each other is all that a template may look at.
_SAMPLE: tuple[Role, ...] = (
    *("system", "user", "stream", "assistant", "stream", "user", "user", "stream"),
    *("assistant", "user", "stream"),
)
Written = Callable[[Sequence[Role], bool], list[str]]
_NOTHING: Mapping[Role, str] = dict.fromkeys(ROLES, "")


@dataclass(frozen=True)
class AroundTurns:
    """What is written in front of a turn (`opening`) and behind it (`closing`), by its role.

    `front` stands in front of the first turn. Without a chat template all of it is empty.
    """

    opening: Mapping[Role, str] = field(default_factory=lambda: _NOTHING)
    closing: Mapping[Role, str] = field(default_factory=lambda: _NOTHING)
    front: Mapping[Role, str] = field(default_factory=lambda: _NOTHING)

    def pieces(self, roles: Sequence[Role]) -> list[str]:
        """The texts around turns of these roles, one more than there are turns."""
        found = [self.front[roles[0]] + self.opening[roles[0]]]
        for before, role in pairwise(roles):
            found.append(self.closing[before] + self.opening[role])
        return [*found, self.closing[roles[-1]]]


def around_turns(written: Written) -> AroundTurns:
    """What a chat template writes around each turn, whatever stands beside it.

    `written` gives the pieces of text around turns of some roles; asked to, it opens the turn of
    the assistant behind them.

    Raises:
        ConfigError: if the template does not write turns one by one, or knows no streams.
    """
    asked, shown = written(["user"], False), written(["user", "stream"], False)
    told = written(["user", "stream", "assistant"], False)
    again = written(["user", "stream", "user"], False)
    system = written(["system", "user"], False)
    alone = written(["stream"], False)
    opening: dict[Role, str] = {
        "user": again[2].removeprefix(shown[2]),
        "stream": shown[1].removeprefix(asked[1]),
        "assistant": told[2].removeprefix(shown[2]),
        "system": system[0],
    }
    opens = written(["user", "stream"], True)[2].removeprefix(shown[2])
    if not opening["assistant"].startswith(opens):
        opening["assistant"] = opens
    closing: dict[Role, str] = {
        "user": asked[1],
        "stream": shown[2],
        "assistant": told[3],
        "system": system[1].removesuffix(opening["user"]),
    }
    front: dict[Role, str] = {
        "user": asked[0].removesuffix(opening["user"]),
        "stream": alone[0].removesuffix(opening["stream"]),
        "assistant": "",
        "system": "",
    }
    around = AroundTurns(opening, closing, front)
    _check(around, written(_SAMPLE, False))
    return around


def _check(around: AroundTurns, sample: list[str]) -> None:
    """Refuse a template that writes a turn in several ways, or a stream as an answer."""
    if around.pieces(_SAMPLE) != sample:
        raise ConfigError(
            "llm.chat_template writes turns in another way where others stand beside them, and a "
            "stream of frames has to be written turn by turn; choose llm.chat_template=chatml, or "
            "none"
        )
    if around.opening["stream"] == around.opening["assistant"] != "":
        raise ConfigError(
            f"llm.chat_template opens a stream of frames with {around.opening['stream']!r}, as it "
            "opens an answer; choose llm.chat_template=chatml, or none"
        )
