"""The folder of a made set, in which nothing of a user's own is written over."""

from __future__ import annotations

from pathlib import Path

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole

SET, MAKING = "set.json", ".making"  # at the end of making a set, and until then
TABLES = (
    "*.json", "*.jsonl", "captions/*", "questions/*", "searches/*", "order/*", "pope/*",
    "llamavid/*", "sound/*", "cuts/*",
)  # fmt: skip


def claim(root: Path) -> None:
    """Mark a folder as one in which a set is made, until `made` is called; it may go on later.

    Raises:
        ConfigError: if it holds tables that are of no made set.
    """
    if not any((root / name).is_file() for name in (SET, MAKING)):
        refuse_tables(root)
        write_whole(root / MAKING, b"")


def made(root: Path) -> None:
    """Take the mark off; `set.json` stands for it from now on."""
    (root / MAKING).unlink(missing_ok=True)


def refuse_tables(root: Path) -> None:
    """Refuse a folder with tables, which a set's own would be written over.

    Raises:
        ConfigError: naming one of them.
    """
    held = sorted(path for pattern in TABLES for path in root.glob(pattern))
    if held:
        more = f" and {len(held) - 1} more tables" if len(held) > 1 else ""
        raise ConfigError(
            f"{root} holds {held[0].relative_to(root)}{more}, which the movie generator did not "
            "make; give an empty folder, so that nothing is written over"
        )
