"""Keeps keys and passwords out of what is shown of a run."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from typing import Any

HIDDEN = "***"
# Words of a setting's or variable's name, cut at signs: `api_key` and WANDB_API_KEY are secret,
# `num_query_tokens`, `cache_keys` and `tokenizer` are not.
SECRET_WORDS = {
    "token", "secret", "secrets", "password", "passwd", "passphrase", "apikey", "credentials",
    "auth", "authorization",
}  # fmt: skip
SECRET_PAIRS = {("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key")}
SHORTEST = 8  # a variable's value below this is too common a text to be hidden wherever it stands
IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:]*:[^\s/]+(?=@)")
# Who asks, and what: a password may hold any sign, so all up to the last @ is hidden.
USER, QUERY = (
    re.compile(r"(?<=:/)[^/].*(?=@)|(?<=://).+(?=@)", re.DOTALL),
    re.compile(r"\?.*", re.DOTALL),
)
KNOWN = re.compile(r"\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[bp]-|AKIA)[A-Za-z0-9_-]{12,}")


def is_secret(name: str) -> bool:
    """Whether the name of a setting or variable says that its value is a secret."""
    words = re.split(r"[^a-z0-9]+", name.rpartition(".")[2].lower())
    return bool(SECRET_WORDS & {*words}) or bool(SECRET_PAIRS & {*pairwise(words)})


def redacted(value: Any, name: str = "") -> Any:
    """`value`, a setting called `name`, without secrets: texts, and dicts and lists of any depth.

    A secret is what a name calls so, a password in an address, a key in a known form, and the
    value of an environment variable that is called so.
    """
    if isinstance(value, dict):
        return {key: redacted(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, name) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    if value and is_secret(name):
        return HIDDEN
    text = KNOWN.sub(HIDDEN, IN_ADDRESS.sub(HIDDEN, str(value)))
    for secret in sorted(secrets_of_environment().values(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def redacted_address(address: str) -> str:
    """An address without user, password and query, whatever they are called."""
    return str(redacted(QUERY.sub(f"?{HIDDEN}", USER.sub(HIDDEN, address))))


def redacted_argument(argument: str) -> str:
    """A word of a command line, `key=value` or any other, without secrets."""
    key, given, value = argument.partition("=")
    return f"{key}={redacted(value, key)}" if given else str(redacted(argument))


def secrets_of_environment() -> dict[str, str]:
    """The environment's variables whose names say that their values are secrets."""
    return {
        name: value
        for name, value in os.environ.items()
        if (is_secret(name) or name.upper().endswith("KEY")) and len(value) >= SHORTEST
    }
