"""When, how long, by which command and from which code a run was made."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

from mmavlm.core.redaction import redacted_argument
from mmavlm.run.outcome import Outcome

GIT_TIMEOUT_S = 5


def facts(run: Outcome, earlier: Sequence[Outcome] = ()) -> dict[str, str]:
    """What a report says of a run and of those before it; the command is without secrets."""
    notes = {name: text for r in (*earlier, run) for name, text in r.notes.items()}
    since = " since it was resumed" if run.resumed else ""
    known = {
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        **notes,
        "took": shown_duration(max(r.duration_s for r in (run, *earlier))) + since,
        "command": shlex.join(map(redacted_argument, run.command)),
        "seed": str(run.config.seed),
        "commit": commit(Path.cwd()),
        "mmavlm": version("mmavlm"),
        "torch": f"{torch.__version__}, Python {platform.python_version()}, {sys.platform}",
    }
    return {name: text for name, text in known.items() if text}


def shown_duration(seconds: float) -> str:
    """Seconds as 42 s, 3 min 5 s, 2 h 7 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def commit(folder: Path) -> str:
    """The commit of the git repository a folder lies in, with + if files were changed, or ""."""
    git = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no git, or a repository too large to be asked
    return found.stdout.strip() if found.returncode == 0 else ""
