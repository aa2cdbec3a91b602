"""Signals that end a run: noted as they come, heeded where nothing is lost."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], None]

HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Signals:
    """Which of `HEEDED` has come since `listen`: its number, 0 for none.

    Handlers are those of the whole process; who called `listen` sees to it that the ones before
    return (Lightning does so at the end of a fit).
    """

    def __init__(self) -> None:
        self.number = 0

    def listen(self) -> None:
        """Note signals from now on; a second Ctrl-C raises KeyboardInterrupt."""
        for number in HEEDED:
            handle(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        again = "; Ctrl-C again ends it at once" if number == signal.SIGINT else ""
        name = signal.Signals(number).name
        log.warning("%s: the run ends after its next optimizer step%s", name, again)


def handle(number: int, handler: Handler) -> None:
    """Let `handler` take a signal, if this is the thread that may say so."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


def exit_at_once(number: int, frame: FrameType | None = None) -> None:
    """End the process where there is nothing to save.

    Raises:
        SystemExit: with the status of a process ended by that signal.
    """
    raise SystemExit(exit_status(number))


@contextmanager
def ended_as_asked() -> Iterator[None]:
    """Let a run that was asked to end do so where Lightning fails to tidy up behind it.

    A signal may come while loaders start or stop; Lightning then asks for their length and ends in
    that fault instead.

    Raises:
        SystemExit, KeyboardInterrupt: what is raised inside, in place of a fault that follows it.
    """
    try:
        yield
    except Exception as fault:
        asked: BaseException | None = fault
        while isinstance(asked, Exception):
            asked = asked.__context__
        if not isinstance(asked, (SystemExit, KeyboardInterrupt)):
            raise
        log.info("a fault while the run was ended: %s", fault)
        raise asked from None


def exit_status(number: int) -> int:
    """What a shell reports of a process that a signal ended: 143 for SIGTERM, 130 for Ctrl-C."""
    return 128 + number


def requeue_job() -> None:
    """Ask SLURM to start this job once more, if the process is part of one."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if not re.fullmatch(r"[0-9_]+", job):
        return
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        log.warning("scontrol requeue %s failed: %s", job, done.stderr.strip())
    else:
        log.info("requeued as job %s", job)
