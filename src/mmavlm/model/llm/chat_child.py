"""The process that renders chat templates: lines of JSON on stdin and stdout (see `chat_process`).

It is run as a file, since the package around it imports much that is not needed here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_BYTES = 4 * 2**30  # of address space, imports included
MOST_CHARACTERS = 2**20  # of one rendered chat


def main() -> None:
    """Answer each request until stdin ends."""
    own = str(Path(__file__).parent)  # its modules are not to be imported by their bare names
    sys.path = [folder for folder in sys.path if folder != own]
    from transformers.utils.chat_template_utils import render_jinja_template

    answer = _answer_in_fork if hasattr(os, "fork") else _answer
    for line in sys.stdin.buffer:
        request = json.loads(line)
        text = answer(render_jinja_template, request)
        sys.stdout.buffer.write(text + b"\n")
        sys.stdout.buffer.flush()


def _answer_in_fork(render: Callable[..., Any], request: dict[str, Any]) -> bytes:
    """The answer of a copy of this process that the system ends at its limits."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _limit(request["limit_s"])
            os.write(write, _answer(render, request))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status == 0 and text:
        return text
    limit = f"it took more than {request['limit_s']} s, or too much memory"
    return json.dumps({"error": limit}).encode()


def _limit(limit_s: float) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    signal.setitimer(signal.ITIMER_REAL, limit_s)


def _answer(render: Callable[..., Any], request: dict[str, Any]) -> bytes:
    try:
        texts = []
        for turns, opens_answer in request["chats"]:
            (text,), _ = render(
                conversations=[turns],
                chat_template=request["template"],
                add_generation_prompt=opens_answer,
                **request["names"],
            )
            if len(text) > MOST_CHARACTERS:
                raise ValueError(f"it writes {len(text)} characters")
            texts.append(text)
        return json.dumps({"texts": texts}).encode()
    except Exception as error:  # whatever a template from elsewhere raises
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}).encode()


if __name__ == "__main__":
    main()
