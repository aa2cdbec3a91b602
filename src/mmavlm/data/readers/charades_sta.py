"""Charades-STA: sentences, and from when to when films show them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mmavlm.data.looked_at import look_at
from mmavlm.data.readers.grounding import GroundingReader
from mmavlm.data.readers.json_files import encoding_of
from mmavlm.data.readers.rows import Row

LINE = re.compile(r"\s*(\S+)\s+(\S+)\s+(\S+?)\s*##(.*)", re.DOTALL)


class CharadesSTAReader(GroundingReader):
    """Lines `FILM start stop##sentence` of a .txt file, or rows as `GroundingReader` reads them.

    (arXiv 1705.02101)

    Raises:
        ConfigError: if a setting cannot be.
    """

    def rows(self, root: Path, split: str) -> Iterator[Row]:
        """The rows of a split's file."""
        path = self.files.path(root, split)
        if path.suffix.lower() != ".txt":
            yield from super().rows(root, split)
            return
        with look_at(path).open(encoding=encoding_of(path), errors="surrogateescape") as file:
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    yield _row(path, f"line {number}", line)


def _row(path: Path, place: str, line: str) -> Row:
    found = LINE.fullmatch(line.rstrip())
    if found is None:
        why = f"is {line.rstrip()[:80]!r}; expected FILM start stop##sentence"
        return Row(path, place, {}, why)
    video, start, stop, sentence = found.groups()
    values = {"video": video, "query": sentence.strip(), "timestamps": [[start, stop]]}
    return Row(path, place, values)
