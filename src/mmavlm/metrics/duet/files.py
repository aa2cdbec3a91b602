"""Files of watched films and of their truth: our format, written and read; published ones, read."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from mmavlm.core.errors import DataError
from mmavlm.core.files import written_whole
from mmavlm.metrics.duet.published import (
    PublishedPrediction,
    PublishedQuestion,
    QVHighlightsRow,
)
from mmavlm.metrics.duet.watched import EventTruth, HighlightTruth, Truth, Watched

WORDS = {  # of pydantic → of JSON
    **dict.fromkeys(("Input should", "Value should", "Tuple should"), "must"),
    "valid tuple": "list",
    "valid string": "text",
}
NAMED = 10  # so many rows that cannot be used are named, the others counted

Value = TypeVar("Value", Watched, EventTruth, HighlightTruth)
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def watched_file(split: str) -> str:
    """The name by which a run leaves the films of a split as they were watched."""
    return f"watched_{split}.jsonl"


def truth_file(split: str, of_set: str = "") -> str:
    """The name by which a run leaves what is true of a split, or of one set of a mix."""
    return f"truth_{split}{of_set and '_'}{of_set}.jsonl"


def write_values(path: Path, values: Iterable[Watched | Truth]) -> None:
    """Write one JSON row a value, so that the file is there whole or not at all."""
    with written_whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(asdict(value), ensure_ascii=False, allow_nan=False) + "\n")


def read_watched(path: Path) -> list[Watched]:
    """Watched films from a file in our format or in MMDuet's (`model_response_list`).

    Older files of the latter, with `video_time` and the probabilities of no and yes, are
    understood.

    Raises:
        DataError: if there is no such file, it holds nothing, or a row cannot be used; each such
            row is named by its line or entry.
    """
    return _read(path, _watched)


def read_events(path: Path) -> list[EventTruth]:
    """Truth from a file in our format or in that of MMDuet's tests (Charades-STA, YouCook2, MAGQA).

    Raises:
        DataError: see `read_watched`.
    """
    return _read(path, _events)


def read_highlights(path: Path) -> list[HighlightTruth]:
    """Truth from a file in our format or of QVHighlights' rows.

    Raises:
        DataError: see `read_watched`.
    """
    return _read(path, _highlights)


def truth_of(row: Mapping[str, Any]) -> Truth:
    """Truth from a row in our format, as readers give it.

    Raises:
        ValueError: if it is none.
    """
    return _of(HighlightTruth, row) if "clips" in row else _of(EventTruth, row)


class _RowError(ValueError):
    """Why a row cannot be used."""


def _watched(row: Mapping[str, Any]) -> Watched:
    if "model_response_list" in row or "debug_data" in row:
        return PublishedPrediction.model_validate(row).watched()
    return _of(Watched, row)


def _events(row: Mapping[str, Any]) -> EventTruth:
    if "saliency_scores" in row or "ratings" in row:
        raise _RowError("is of highlights, which are scored by task=highlights")
    return _of(EventTruth, row) if "events" in row else _published(PublishedQuestion, row).truth()


def _highlights(row: Mapping[str, Any]) -> HighlightTruth:
    if "events" in row or "timestamps" in row or "answer" in row:
        raise _RowError("has spans and no ratings of clips; choose the task that it is of")
    return _of(HighlightTruth, row) if "clips" in row else _published(QVHighlightsRow, row).truth()


Form = TypeVar("Form", bound=BaseModel)


def _published(form: type[Form], row: Mapping[str, Any]) -> Form:
    return form.model_validate(row)


def _of(form: type[Value], row: Mapping[str, Any]) -> Value:
    return TypeAdapter(form).validate_python(row)


def _read(path: Path, parse: Callable[[Mapping[str, Any]], Value]) -> list[Value]:
    found: dict[str, Value] = {}
    places: dict[str, str] = {}
    broken: list[str] = []
    for place, row in _rows(path):
        try:
            if isinstance(row, _RowError):
                raise row
            if not isinstance(row, dict):
                raise _RowError(f"must be a JSON object, got {_short.repr(row)}")
            value = parse(row)
        except ValidationError as error:
            broken.append(f"{place}: {_complaint(error)}")
        except ValueError as error:
            broken.append(f"{place}: {error}")
        else:
            if value.question_id in found:
                earlier = places[value.question_id]
                broken.append(f"{place}: question {value.question_id!r} was there in {earlier}")
            found.setdefault(value.question_id, value)
            places.setdefault(value.question_id, place)
    if broken:
        more = f"\n  and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        raise DataError(
            f"{path} has {len(broken)} rows that cannot be used; remove or mend them:\n  "
            + "\n  ".join(broken[:NAMED])
            + more
        )
    if not found:
        raise DataError(f"{path} is empty; give a file with a row for each question")
    return list(found.values())


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a JSON list, or of lines of JSON, each with its place."""
    if not path.is_file():
        raise DataError(f"{path} is no file; give one with a row for each question")
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error}); save it as UTF-8") from None
    if text.startswith("["):
        rows = _parsed(text)
        if isinstance(rows, _RowError):
            raise DataError(f"{path} {rows}")
        yield from ((f"entry {number}", row) for number, row in enumerate(rows, start=1))
        return
    # not splitlines: a text may hold other ends of a line, such as U+2028
    for number, line in enumerate(text.split("\n") if text else [], start=1):
        yield f"line {number}", _parsed(line)


def _parsed(text: str) -> Any:
    """The JSON value of a text, or why there is none."""
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except _RowError as error:
        return error
    except (ValueError, RecursionError) as error:
        return _RowError(f"is not JSON ({error})" if text.strip() else "is empty")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        again = next(key for key in keys if keys.count(key) > 1)
        raise _RowError(f"has the key {again!r} twice; leave one")
    return found


def _complaint(error: ValidationError) -> str:
    """The first thing wrong with a row, in a sentence."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"key {place!r} is missing"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"key {place!r} is unknown; remove it"
    said = first["msg"].removeprefix("Value error, ")
    for theirs, ours in WORDS.items():
        said = said.replace(theirs, ours)
    if first["type"] == "value_error" and isinstance(first["input"], dict):
        return f"{place} {said}".strip()
    return f"{place!r} {said}, got {_short.repr(first['input'])}"
