"""Chat templates rendered in processes of their own, with little time and memory.

A template comes with a downloaded tokenizer. It is a program: transformers keeps it in a sandbox,
where it can reach nothing, but it may still run for ever or fill the memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from mmavlm.core.errors import ConfigError

CHILD = Path(__file__).with_name("chat_child.py")
LIMIT_S = 5  # to render the chats of one template
START_S = 300  # to start and import transformers as well, on a machine that is very busy
# No torch, no pools of threads, whose stacks would count as memory.
CHILD_ENVIRONMENT = {"USE_TORCH": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def rendered(
    template: str, special_tokens: Mapping[str, Any], chats: Sequence[tuple[Any, bool]]
) -> list[str]:
    """Each chat (its turns, and whether it opens the assistant's turn) as the template writes it.

    Raises:
        ConfigError: if the template fails, takes too long, or writes or holds too much.
    """
    names = {key: value for key, value in special_tokens.items() if isinstance(value, str)}
    request = {"template": template, "names": names, "chats": chats, "limit_s": LIMIT_S}
    answer = _ask(json.dumps(request))
    if "error" in answer:
        roles = [turn["role"] for turn in chats[0][0]]
        turns = "a user's turn" if roles == ["user"] else f"turns of {', '.join(roles)}"
        raise ConfigError(
            f"llm.chat_template cannot be applied to {turns} ({answer['error']}); choose another, "
            "or none"
        )
    return list(answer["texts"])


def _ask(request: str) -> dict[str, Any]:
    """The answer of the child, which a child that died is replaced for."""
    child = _child()
    if child.poll() is not None:
        _child.cache_clear()
        child = _child()
    guard = threading.Timer(START_S, child.kill)
    guard.start()
    try:
        stdin, stdout = cast(IO[str], child.stdin), cast(IO[str], child.stdout)
        stdin.write(f"{request}\n")
        stdin.flush()
        return json.loads(stdout.readline())
    except (OSError, ValueError):
        child.kill()
        return {"error": "the process that renders it ended without an answer"}
    finally:
        guard.cancel()


@lru_cache(maxsize=1)
def _child() -> subprocess.Popen[str]:
    """The process that has imported transformers; it ends with this one, which holds its stdin."""
    return subprocess.Popen(
        [sys.executable, str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, **CHILD_ENVIRONMENT},
        start_new_session=True,  # Ctrl-C is for this process
    )
