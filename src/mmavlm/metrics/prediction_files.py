"""Files of predictions, a line an item, read row by row: none is ever held as a whole."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from mmavlm.core.errors import DataError
from mmavlm.core.files import written_whole
from mmavlm.core.keys import string_key
from mmavlm.metrics.prediction_rows import RowError, parse_row, row_line
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.rules import Rule

FILE = "predictions.jsonl"  # the name a run gives it
NAMED = 10  # so many rows that cannot be used are named, the others counted


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one JSON row an item, so that the file is there whole or not at all."""
    with written_whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(map(row_line, predictions))


def predictions_path(run: str | Path) -> Path:
    """The file with the predictions of a run, given its folder or the file itself.

    Raises:
        DataError: if there is none.
    """
    path = Path(run) / FILE if Path(run).is_dir() else Path(run)
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; give the folder of a run that was tested, or its {FILE}"
        )
    return path


def read_predictions(path: Path, rule: Rule | None = None) -> list[Prediction]:
    """All rows of a `PredictionFile`; raises as it does."""
    return list(PredictionFile(path, rule))


class PredictionFile:
    """The rows of a file that `write_predictions` wrote; `rule` stands in place of theirs.

    Each iteration reads the file once, and holds one row and eight bytes of each that was read.

    Raises:
        DataError: at the end of an iteration, if a row is broken, an item occurs twice, or a task
            has two rules, naming the lines; or if there are no rows.
    """

    def __init__(self, path: Path, rule: Rule | None = None) -> None:
        self.path = path
        self.rule = rule

    def __iter__(self) -> Iterator[Prediction]:
        found = _Found()
        for number, line in self._lines():
            try:
                row = parse_row(line, self.rule)
            except RowError as error:
                found.broken(number, str(error))
                continue
            found.take(number, row)
            yield row
        self._complain(found)

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Lines by number, without empty ones at the end of the file."""
        empty: list[tuple[int, str]] = []
        # not splitlines: a text may hold other ends of a line, such as U+2028
        with self.path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    empty.append((number, line))
                    continue
                yield from empty
                empty.clear()
                yield number, line

    def _complain(self, found: _Found) -> None:
        twice = found.twice()
        told = found.told + [(line, self._twice(line, earlier)) for line, earlier in twice[:NAMED]]
        named = [f"line {line}: {why}" for line, why in sorted(told)]
        named = [*named[:NAMED], *(f"line {line}: {why}" for line, why in found.mixed)][:NAMED]
        if count := found.count + len(twice):
            more = f"\n  and {count - NAMED} more" if count > NAMED else ""
            raise DataError(
                f"{self.path} has {count} rows that cannot be used; remove or mend them, or "
                "evaluate the checkpoint again:\n  " + "\n  ".join(named) + more
            )
        if not found.keys:
            raise DataError(f"{self.path} is empty; evaluate the checkpoint again")

    def _twice(self, line: int, earlier: int) -> str:
        rows = (text for number, text in self._lines() if number == line)
        return f"item {parse_row(next(rows), self.rule).item_id!r} was there in line {earlier}"


class _Found:
    """What is to be known of the rows read so far, to find those that cannot be used."""

    def __init__(self) -> None:
        self.keys, self.numbers = array("q"), array("q")  # of items, and their lines
        self.told: list[tuple[int, str]] = []  # the first broken lines, and why
        self.mixed: list[tuple[int, str]] = []  # the first whose rule is not that of their task
        self.count = 0  # of all of these
        self._rules: dict[str, Rule] = {}

    def broken(self, number: int, why: str) -> None:
        self.count += 1
        if len(self.told) < NAMED:
            self.told.append((number, why))

    def take(self, number: int, row: Prediction) -> None:
        self.keys.append(string_key(row.item_id))
        self.numbers.append(number)
        before = self._rules.setdefault(row.task, row.compare)
        if before != row.compare:
            self.count += 1
            why = f"task {row.task!r} is compared by {row.compare}, but by {before} before"
            if len(self.mixed) < NAMED:
                self.mixed.append((number, why))

    def twice(self) -> list[tuple[int, int]]:
        """Lines whose item was there before, and the first line that it was in."""
        keys, numbers = np.array(self.keys), np.array(self.numbers)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        earlier = first[inverse]
        again = np.flatnonzero(earlier != np.arange(len(keys)))
        return list(zip(numbers[again].tolist(), numbers[earlier[again]].tolist(), strict=True))


def missing_rows(rows: Mapping[str, int], metrics: Mapping[str, float]) -> list[str]:
    """What is said of tasks with fewer `rows`, given by task, than a run's metrics counted."""
    counted: dict[str, int] = {}
    for name, value in metrics.items():
        task, _, last = name.removeprefix("test/").rpartition("/")
        if not name.startswith("test/") or last not in ("count", "rank_count"):
            continue
        # benchmarks count, too, but under names of their own
        scored = {f"test/{task}/top1", f"test/{task}/rank_top1"} & set(metrics)
        if scored or task in rows:
            counted[task] = int(value)
    return [
        f"{rows.get(task, 0)} rows of task {task}, of which the run counted {count} items"
        for task, count in counted.items()
        if rows.get(task, 0) != count
    ]
