"""An answer while it is spoken: the text of the tokens generated so far."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from mmavlm.model.llm.answers import Answers

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what stands for a letter of which bytes are missing


class Heard(BaseStreamer):
    """Calls `listener` with the text so far whenever greedy generation makes it longer.

    A letter is told when all its tokens are there, and what may begin the answer's end when it does
    not. The last text is that of the answer.
    """

    def __init__(self, answers: Answers, listener: Callable[[str], None]) -> None:
        self._answers = answers
        self._listener = listener
        self._ids: list[int] = []
        self._told = ""

    def put(self, value: Tensor) -> None:
        """Take the next token (1,); what comes as (1,L) is what the answer goes on from."""
        if value.ndim > 1:
            return
        self._ids += value.tolist()
        text = self._answers.decode_begun(self._until_end()).rstrip(UNFINISHED)
        if text != self._told:
            self._told = text
            self._listener(text)

    def end(self) -> None:
        """Tell the text if its last letters were held back to the end."""
        if (text := self._answers.decode(self._until_end())) != self._told:
            self._listener(text)

    def _until_end(self) -> list[int]:
        return self._answers.until_end(self._ids)
