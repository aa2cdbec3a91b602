"""The line that installs an optional part, with and without a clone of the repository."""

from __future__ import annotations


def install(extra: str) -> str:
    """How to install an extra of pyproject.toml."""
    return f"pip install 'mmavlm[{extra}]' (in a clone: pip install -e '.[{extra}]')"


def needs_extra(what: str, packages: str, extra: str) -> str:
    """What to say where `what` takes packages that are not installed, and an extra brings them."""
    return f"{what} needs {packages}, not installed here; to install: {install(extra)}"
