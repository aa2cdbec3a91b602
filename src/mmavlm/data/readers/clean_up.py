"""Texts of annotations, cleaned up as MA-LMM does."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CAPTION_SIGNS = re.compile(r"[.!\"()*#:;~]")


_SPACED = {ord(sign): " " for sign in '.!"()*#:;~\t\r\v\f\x1c\x1d\x1e\x1f'}


def clean_captions(texts: Sequence[str], max_words: int = 50) -> list[str]:
    """What `clean_caption` makes of each text; all are changed at once, a line each."""
    joined = "\n".join(texts)
    if joined.count("\n") != len(texts) - 1:  # one has lines of its own
        return [clean_caption(text, max_words) for text in texts]
    lines = joined.lower().translate(_SPACED)
    if not lines.isascii() and not lines.replace("\n", "").isprintable():  # others may be space
        return [" ".join(line.split()[:max_words]) for line in lines.split("\n")]
    while "  " in lines:
        lines = lines.replace("  ", " ")
    cleaned = map(str.strip, lines.split("\n"))
    return [
        text if text.count(" ") < max_words else " ".join(text.split()[:max_words])
        for text in cleaned
    ]


def clean_caption(text: str, max_words: int = 50) -> str:
    r"""Lower case, `. ! " ( ) * # : ; ~` and runs of space to one space, at most `max_words` words.

    The clean-up MA-LMM applies to prompts, answers and captions.
    """
    return " ".join(_CAPTION_SIGNS.sub(" ", text.lower()).split()[:max_words])
