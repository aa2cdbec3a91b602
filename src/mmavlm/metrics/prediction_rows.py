"""A prediction as a line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, get_args

from mmavlm.core.interfaces import Answer
from mmavlm.metrics.predictions import Prediction
from mmavlm.metrics.rules import Rule


class RowError(Exception):
    """Why a row cannot be used."""


def row_line(row: Prediction) -> str:
    """The line of a prediction in a file, with its end."""
    return json.dumps(asdict(row, dict_factory=_stored), ensure_ascii=False) + "\n"


def _stored(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """A value as it stands in a file: whether an answer was cut is of the moment it was given."""
    return {name: value for name, value in fields if name != "cut"}


def parse_row(line: str, rule: Rule | None = None) -> Prediction:
    """The prediction that `row_line` made a line of; `rule` stands in place of its own.

    Raises:
        RowError: if it is none.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RowError(f"no JSON ({error})" if line.strip() else "empty") from None
    if not isinstance(values, dict):
        raise RowError(f"expected an object, got {type(values).__name__}")
    texts = {
        key: _text(values.get(key), key)
        for key in ("item_id", "video_id", "task", "prompt", "truth")
    }
    answers, ranking = (_answers(values.get(key), key) for key in ("answers", "ranking"))
    if not answers and not ranking:
        raise RowError(f"item {texts['item_id']!r} has no answer")
    said = values.get("said") or []
    if not isinstance(said, list):
        raise RowError(f"'said' must be a list of texts, got {said!r}")
    if said and not answers:
        raise RowError(f"item {texts['item_id']!r} has 'said', but no 'answers' it was read as")
    references = values.get("references")
    if not isinstance(references, list) or not references:
        raise RowError(f"'references' must be a list of texts, got {references!r}")
    compare: Any = rule or values.get("compare")
    if compare not in get_args(Rule):
        known = ", ".join(get_args(Rule))
        raise RowError(f"'compare' must be one of {known}, got {compare!r}; or say rule=whole")
    return Prediction(
        **texts,
        answers=answers,
        ranking=ranking,
        references=[_text(text, "references") for text in references],
        compare=compare,
        said=[_text(text, "said") for text in said],
    )


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{key!r} must be a text, got {value!r}")
    return value


def _answers(values: Any, key: str) -> list[Answer]:
    if not isinstance(values, list):
        raise RowError(f"{key!r} must be a list of answers, got {values!r}")
    answers = []
    for value in values:
        log_prob = value.get("log_prob") if isinstance(value, dict) else None
        if not isinstance(log_prob, float | int) or isinstance(log_prob, bool):
            raise RowError(f"{key!r} must hold text and log_prob, got {value!r}")
        try:
            number = float(log_prob)
        except OverflowError:
            raise RowError("'log_prob' is a number beyond all floats") from None
        answers.append(Answer(_text(value.get("text"), "text"), number))
    return answers
