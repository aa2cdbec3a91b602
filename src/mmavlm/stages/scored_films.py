"""Films that a run is tested on: what is true of them, and scores by what validation chose."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmavlm.core.errors import DataError
from mmavlm.core.files import write_whole
from mmavlm.metrics.duet.files import truth_file, write_values
from mmavlm.metrics.duet.tasks import Result, Seen, scored, task_of
from mmavlm.metrics.duet.watched import Truth, Watched

log = logging.getLogger(__name__)

Films = Mapping[str, Mapping[str, Watched]]  # split → question → what was watched of it
Truths = Mapping[str, Mapping[str, Sequence[Truth]]]  # split → task of items → what is true of them
SetOf = Callable[[str], str]  # name of a task or question → the set of a mix it is of, or ""


def score_films(films: Films, truths: Truths, set_of: SetOf) -> dict[str, Result]:
    """The result of each set of the test, "" where none are mixed.

    Settings are chosen on the validation split. A set that cannot be scored so is named in the log.
    """
    known = {split: _by_set(truths.get(split, {}), set_of) for split in ("val", "test")}
    results = {}
    for name, tasks in known["test"].items():
        told = f"the test of {name}" if name else "the test"
        if len(tasks) > 1:
            several = ", ".join(sorted(tasks))
            log.warning("%s is of several tasks and not scored: %s", told, several)
            continue
        (task,) = tasks
        seen = {
            split: Seen(
                [film for key, film in films[split].items() if set_of(key) == name],
                of_split.get(name, {}).get(task, []),
            )
            for split, of_split in known.items()
        }
        try:
            result = _scored(task, seen["test"], seen["val"])
        except DataError as error:
            log.warning("%s is not scored by task=%s: %s", told, task, error)
            continue
        results[name] = result
        for remark in result.pairs.remarks():
            log.warning("%s: %s", told, remark)
    return results


def _scored(task: str, tested: Seen, validated: Seen) -> Result:
    if not validated.watched or not validated.truths:
        raise DataError(
            "no film of the validation split was watched, so no setting can be chosen; choose one "
            "on other films: mmavlm.evaluate predictions=… val_predictions=… val_truth=…"
        )
    return scored(task, tested, validated)


def write_films(folder: Path, truths: Truths, results: Mapping[str, Result], set_of: SetOf) -> None:
    """Write what is true of each set, `truth_<split>.jsonl`, and its result, `duet.json`.

    Of a mix the names of files end in those of sets.
    """
    for split, of_split in truths.items():
        for name, tasks in _by_set(of_split, set_of).items():
            true = [truth for of_task in tasks.values() for truth in of_task]
            write_values(folder / truth_file(split, name), true)
    for name, result in results.items():
        text = f"{json.dumps(result.summary, indent=2)}\n"
        write_whole(folder / f"duet{name and '_'}{name}.json", text.encode())


def _by_set(
    truths: Mapping[str, Sequence[Truth]], set_of: SetOf
) -> dict[str, dict[str, list[Truth]]]:
    """Set → task it is scored by → what is true."""
    found: dict[str, dict[str, list[Truth]]] = {}
    for task, of_task in truths.items():
        tasks = found.setdefault(set_of(task), {})
        tasks.setdefault(task_of(task, of_task), []).extend(of_task)
    return found
