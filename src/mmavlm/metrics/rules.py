"""By which rule an answer counts as right, and how texts are compared."""

from __future__ import annotations

from typing import Literal

Compare = Literal["whole", "first_word"]  # what of an answer is compared with the truth
Rule = Literal["whole", "first_word", "caption"]  # a caption is scored beside all references


def normalise_answer(text: str, compare: Compare = "whole") -> str:
    """The text as it is compared: lower case, no outer spaces, inner ones collapsed.

    With `compare` "first_word" an answer counts by its first word, as MSVD's and MSRVTT's do.
    """
    words = text.lower().split()
    return " ".join(words[:1] if compare == "first_word" else words)
