"""Texts of annotations, cleaned up as MA-LMM does."""

from __future__ import annotations

import re

_CAPTION_SIGNS = re.compile(r"[.!\"()*#:;~]")


def clean_caption(text: str, max_words: int = 50) -> str:
    r"""Lower case, `. ! " ( ) * # : ; ~` and runs of space to one space, at most `max_words` words.

    The clean-up MA-LMM applies to prompts, answers and captions.
    """
    return " ".join(_CAPTION_SIGNS.sub(" ", text.lower()).split()[:max_words])
