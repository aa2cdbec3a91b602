"""What a model answered in a test, kept on disk, and a few items to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmavlm.core.batch import Batch
from mmavlm.core.files import written_whole
from mmavlm.metrics import Prediction, PredictionFile
from mmavlm.metrics.prediction_rows import parse_row
from mmavlm.metrics.predictions import FewOfEach
from mmavlm.stages.answer_file import AnswerFile, Place, Told
from mmavlm.stages.gathered_answers import gathered_files

SAMPLE_ITEMS = 4  # of each task, and so many more that were answered wrong
MOST_ITEMS = 32
SAMPLE_FRAMES = 6


class PredictionLog:
    """All predictions of a test, in a file, and the frames of a few items of each task.

    These are the first ones, and the first that were answered wrong beside them. In memory are
    those alone, and the answers to the batch at hand, `latest`, by item.

    A batch is begun, its answers are added, callbacks may add what they make of it, and it is
    closed. Where `file` holds batches of a test that was killed, they are given back as they were.
    `order` are the keys of the split's items in their order; without it rows stand as they came.
    """

    def __init__(
        self, file: AnswerFile | None = None, order: NDArray[np.int64] | None = None
    ) -> None:
        self.order = order
        self._file = file
        self.latest: dict[str, Prediction] = {}
        self.sampled: dict[str, Prediction] = {}
        self.frames: dict[str, list[NDArray[np.uint8]]] = {}
        self._few = FewOfEach(SAMPLE_ITEMS, MOST_ITEMS)
        self._before: dict[int, list[Place]] = defaultdict(list)
        for place in () if file is None else file.places:
            self._before[place.batch].append(place)
        self._others: list[AnswerFile] = []  # of other processes, when they are gathered
        self._written: Path | None = None
        self._batch = 0
        self._told: list[Told] = []  # of the batch at hand, before a kill
        self._begin_anew()

    @property
    def file(self) -> AnswerFile:
        """The file of this process; without a name where none was given."""
        self._file = self._file or AnswerFile.temporary()
        return self._file

    @property
    def _files(self) -> list[AnswerFile]:
        return [self.file, *self._others]

    def begin(self, batch: int) -> list[Told]:
        """Begin a batch; what was answered to it before a kill."""
        self.close()
        self._batch = batch
        self._told = [self.file.told(place) for place in self._before.get(batch, ())]
        self.latest = {}
        return self._told

    def extend(
        self, predictions: Sequence[Prediction], batch: Batch, loss: float = 0.0, of_set: str = ""
    ) -> None:
        """Add predictions, one for each row of `batch`, and their loss, of the set if mixed."""
        self._rows += predictions
        self._losses.append((of_set, loss, len(predictions)))
        for row, prediction in enumerate(predictions):
            self.latest[prediction.item_id] = prediction
            shown = batch.frames is not None and batch.films_of(row)
            if shown and self._few.wants(prediction.task, right=prediction.right):
                self.sampled[prediction.item_id] = prediction
                self.frames[prediction.item_id] = batch.pictures_of(row, SAMPLE_FRAMES)
                self.ask_again()

    def ask_again(self) -> None:
        """Have a test that goes on ask this batch once more: what is made of it is not kept."""
        self._again = True

    def keep(self, name: str, value: Any) -> None:
        """Keep what JSON can say of this batch beside its answers, under the name of a callback."""
        self._beside[name] = value

    def kept(self, name: str) -> list[Any]:
        """What was kept of this batch under a name before a kill."""
        return [told.beside[name] for told in self._told if name in told.beside]

    def close(self) -> None:
        """Write what was answered to the batch at hand, if anything was."""
        if self._rows:
            told = Told(self._rows, self._losses, self._beside)
            self.file.append(self._batch, told, again=self._again)
        self._begin_anew()

    def gather(self) -> None:
        """Bring the files of all processes together in the first one."""
        self.close()
        self._others = gathered_files(self.file)[1:]

    def read(self) -> Iterator[Prediction]:
        """The predictions that are there, each item once: all of them once they are gathered."""
        if self._written is not None:
            return iter(PredictionFile(self._written))
        return (parse_row(line.decode()) for line in self._lines())

    def write(self, path: Path) -> None:
        """Write one JSON row an item in the split's order; the file is there whole or not at all.

        Without a prediction none is written.
        """
        if not any(file.keys for file in self._files):
            return
        with written_whole(path) as partial, partial.open("wb") as file:
            file.writelines(self._lines())
        self._written = path

    def remove(self) -> None:
        """Remove the files that a test would go on from."""
        for path in [file.path for file in self._files if file.path is not None]:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # others may lie there
                path.parent.rmdir()

    def _lines(self) -> Iterator[bytes]:
        self.close()
        keys = np.concatenate([np.array(file.keys, np.int64) for file in self._files])
        rows = _once(keys, self.order)
        ends = np.cumsum([len(file.keys) for file in self._files])
        which = np.searchsorted(ends, rows, side="right")
        begins = np.concatenate([[0], ends[:-1]])
        for file, row in zip(which.tolist(), (rows - begins[which]).tolist(), strict=True):
            yield from self._files[file].lines([row])

    def _begin_anew(self) -> None:
        self._rows: list[Prediction] = []
        self._losses: list[tuple[str, float, int]] = []
        self._beside: dict[str, Any] = {}
        self._again = False


def _once(keys: NDArray[np.int64], order: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Which rows are the first of their item, in the order of the items, or as they came."""
    _, first = np.unique(keys, return_index=True)
    if order is None:
        return np.sort(first)
    sorter = np.argsort(order, kind="stable")
    places = sorter[np.searchsorted(order, keys[first], sorter=sorter)]
    found: NDArray[np.int64] = first[np.argsort(places, kind="stable")]
    return found
