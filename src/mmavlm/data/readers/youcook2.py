"""YouCook2's recipes, to be narrated step by step while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.data.readers import json_files
from mmavlm.data.readers.annotations import read_object, split_of
from mmavlm.data.readers.dense_captions import CAPTIONS, FILM, DenseCaptionReader
from mmavlm.data.readers.rows import Row

DATABASE = "database"  # the key of the films in YouCook2's own file


class YouCook2Reader(DenseCaptionReader):
    """YouCook2's steps by film, of its own file or of MA-LMM's, as `DenseCaptionReader` has them.

    Its own file, `{"database": {film: {"subset", "annotations": [{"segment", "sentence"}]}}}`, has
    the splits training and validation; the captions of its test are secret, so validation stands in
    there. MA-LMM's files, a split each, have an entry for every step: `{"video", "start_time",
    "end_time", "caption"}`. (arXiv 1703.09788)

    Raises:
        ConfigError: if a setting cannot be.
    """

    keys = ("sentence", "segment")

    def rows(self, root: Path, split: str) -> Iterator[Row]:
        """A row for each film, with the list of its steps."""
        path = self.files.path(root, split)
        films = _of_database(path, split) if _has_database(path) else _of_steps(path)
        yield from films

    def items(self, row: Row, film: Callable[..., Medium], split: str) -> list[Item]:
        """The item of a film."""
        shown = film(row.text(FILM))
        steps = row.each(CAPTIONS, "step")
        if not steps:
            raise row.error(f"{CAPTIONS!r} is an empty list; give steps, or remove the film")
        return [self.narrated(shown.medium_id, shown, steps, split)]


def _has_database(path: Path) -> bool:
    return next((key for key, _ in json_files.entries(path)), None) == DATABASE


def _of_database(path: Path, split: str) -> Iterator[Row]:
    wanted, found = "train" if split == "train" else "val", False
    _, films = next(json_files.entries(path))
    if not isinstance(films, dict):
        raise DataError(f"{path}: {DATABASE!r} must be an object with a film under each name")
    for name, values in films.items():
        row = Row.of(path, f"film {name!r}", values)
        of = split_of(row.values.get("subset"))
        if of not in (wanted, None):
            continue
        found = True
        broken = row.broken or (None if of else "'subset' must be training, validation or testing")
        steps = row.values.get("annotations")
        yield Row(path, row.place, {FILM: name, CAPTIONS: steps} if not broken else {}, broken)
    if not found:
        raise DataError(f"{path} has no films of the {wanted} split; give another file")


def _of_steps(path: Path) -> Iterator[Row]:
    """The films of MA-LMM's entries, in the order in which they come."""
    films: dict[str, list[object]] = {}
    for _, row in read_object(path):
        if row.broken is not None:
            yield row
            continue
        try:
            name = row.text("video")
            start_s, end_s = row.stretch_s("start_time", "end_time")
            step = {"sentence": row.text("caption"), "segment": [start_s, end_s]}
        except DataError as error:
            yield Row(path, row.place, {}, str(error).removeprefix(f"{path}, {row.place}: "))
            continue
        films.setdefault(name, []).append(step)
    for name, steps in films.items():
        yield Row(path, f"film {name!r}", {FILM: name, CAPTIONS: steps})
