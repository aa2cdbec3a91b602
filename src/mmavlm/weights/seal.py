"""Seals on stored settings: which checkpoints this user's own runs wrote, on any of their machines.

A checkpoint names places (`data.root`, `pretrained`), and its owner wants to evaluate it without
naming them again. A file from elsewhere must not name places at all. The seal, an HMAC under a key
that lies in the user's state folder and in no checkpoint, tells the two apart.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

SEAL = "seal"
KEY_BYTES = 32


def sealed(run: Mapping[str, Any]) -> dict[str, Any]:
    """The stored settings of a run with a seal, or without one if no key can be kept."""
    key = _key()
    bare = {name: value for name, value in run.items() if name != SEAL}
    return bare if key is None else {**bare, SEAL: _digest(bare, key)}


def is_own(run: Mapping[str, Any]) -> bool:
    """Whether this user's key sealed exactly these settings."""
    seal, key = run.get(SEAL), _key()
    if not isinstance(seal, str) or key is None:
        return False
    return hmac.compare_digest(seal.encode(), _digest(run, key).encode())


def _digest(run: Mapping[str, Any], key: bytes) -> str:
    said = {name: run.get(name) for name in ("config", "overrides")}
    text = json.dumps(said, sort_keys=True, default=str)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def key_file() -> Path:
    """Where the user's key lies: mmavlm/seal.key in `$XDG_STATE_HOME`, or in ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "mmavlm" / "seal.key"


def _key() -> bytes | None:
    try:
        path = key_file()
        if not path.is_file():
            _write_key(path)
        key = path.read_bytes()
    except (OSError, RuntimeError) as error:  # no home, or one that cannot be written
        log.debug("checkpoints are not sealed: %s", error)
        return None
    return key if len(key) == KEY_BYTES else None


def _write_key(path: Path) -> None:
    """Write a new key unless another process is first; nobody ever reads half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links: the last writer wins
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
