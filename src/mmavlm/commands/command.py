"""What is said of a command: what it does, its commonest lines, what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plain:
    """A setting of a command without a config, or a word that has its place instead of a key.

    `read` takes its text and raises ValueError for one that it cannot read. `choices` are all that
    it may be; an empty one means anything.
    """

    key: str
    says: str
    read: Callable[[str], Any] = str
    default: Any = None
    needed: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """What `mmavlm <verb>` does; `lines` are what follows the verb, `configs` files of conf/.

    A command without configs takes `words` in their order and `settings` by their keys. The first
    word may be given several times if there are `many`; `passes_on` says that it hands settings it
    does not know to the training.
    """

    does: str
    lines: tuple[str, ...]
    configs: tuple[str, ...] = ()
    module: str = ""  # below mmavlm, if it is not named as the verb
    words: tuple[Plain, ...] = ()
    settings: tuple[Plain, ...] = ()
    many: bool = False
    passes_on: bool = False
    notes: tuple[str, ...] = ()  # what help says beside lines and settings


def truth(text: str) -> bool:
    """`true` or `false`.

    Raises:
        ValueError: of anything else.
    """
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def home_path(text: str) -> Path:
    """A path, whose `~` is the home folder; shells spell it out at the start of a word alone."""
    return Path(text).expanduser()
