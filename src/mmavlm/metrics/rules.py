"""By which rule an answer counts as right, and how texts are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Compare = Literal["whole", "first_word"]  # what of an answer is compared with the truth
Rule = Literal["whole", "first_word", "caption"]  # a caption is scored beside all references


def normalise_answer(text: str, compare: Compare = "whole") -> str:
    """The text as it is compared: lower case, no outer spaces, inner ones collapsed.

    With `compare` "first_word" an answer counts by its first word, as MSVD's and MSRVTT's do.
    """
    words = text.lower().split()
    return " ".join(words[:1] if compare == "first_word" else words)


def is_right(
    answers: Sequence[str], truth: str, references: Sequence[str] = (), compare: Rule = "whole"
) -> bool | None:
    """Whether the best answer, the first, is right; None for captions, better or worse as they are.

    Without an answer it is wrong.
    """
    if compare == "caption":
        return None
    given = normalise_answer(answers[0], compare) if answers else ""
    return given in map(normalise_answer, (truth, *references))
