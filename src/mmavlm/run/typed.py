"""What a user types while a film runs: questions, and commands that stop it and let it go on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import TextIOWrapper
from typing import TextIO

from mmavlm.core.errors import MmavlmError
from mmavlm.core.nearest import nearest
from mmavlm.data.live import LiveFrame

HELP = "type a question at any time; /stop holds the film, /go lets it go on, /quit ends"
COMMANDS = ("stop", "go", "quit", "help")


class Typed:
    """Lines typed in a thread of their own; they never make the film wait.

    `ask` takes what is no command, `note` what is to be told.
    """

    def __init__(
        self, ask: Callable[[str], None], note: Callable[[str], None], lines: TextIO | None = None
    ) -> None:
        self._ask, self._note = ask, note
        self._lines = sys.stdin if lines is None else lines
        if isinstance(self._lines, TextIOWrapper):
            self._lines.reconfigure(errors="replace")  # one bad byte would end what can be typed
        self._runs, self._ended = threading.Event(), False
        self._runs.set()
        note(HELP)
        self.thread = threading.Thread(target=self._read, name="typed lines", daemon=True)
        self.thread.start()

    def gated(self, frames: Iterable[LiveFrame]) -> Iterator[LiveFrame]:
        """The frames as they come, none while the film is held, and none after /quit."""
        coming = iter(frames)
        while True:
            self._runs.wait()
            frame = None if self._ended else next(coming, None)
            if frame is None:
                return
            yield frame

    def _read(self) -> None:
        with suppress(ValueError):  # of a closed standard input
            for line in self._lines:
                try:
                    self._follow(line.strip())
                except MmavlmError as error:
                    self._note(f"error: {error}")
        self._runs.set()  # nobody is left who could let a film go on that is held

    def _follow(self, line: str) -> None:
        if not line:
            return
        if not line.startswith("/"):
            self._ask(line)
            return
        name = line[1:]
        if name not in COMMANDS:
            near = " or ".join(f"/{n}" for n in nearest(name, COMMANDS)) or "/help"
            self._note(f"/{name} is no command; did you mean {near}?")
        elif name == "help":
            self._note(HELP)
        elif name == "stop":
            self._runs.clear()
        else:
            self._ended = self._ended or name == "quit"
            self._runs.set()
