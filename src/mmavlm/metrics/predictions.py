"""What a model answered to one item, and files with a row for each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.files import written_whole
from mmavlm.core.interfaces import Answer
from mmavlm.metrics.rules import Rule, is_right

if TYPE_CHECKING:
    from mmavlm.core.batch import Batch

FILE = "predictions.jsonl"  # the name a run gives it
NAMED = 10  # so many rows that cannot be used are named, the others counted


@dataclass(frozen=True)
class Prediction:
    """Generated answers and ranked classes (either may be empty), best first, for one item.

    `references` are all texts that count as right, the truth among them; `compare` is the rule by
    which the generated answers are scored. Where a question brings options, `answers` are those
    named by what was `said`.
    """

    item_id: str
    video_id: str
    task: str
    prompt: str
    truth: str
    answers: list[Answer]
    ranking: list[Answer]
    references: list[str]
    compare: Rule = "whole"
    said: list[str] = field(default_factory=list)

    @property
    def best(self) -> str:
        """The best answer, a generated one before a ranked one; "" where there is none."""
        answers = self.answers or self.ranking
        return answers[0].text if answers else ""

    @property
    def right(self) -> bool | None:
        """Whether the best answer is right, a generated one before a ranked one; see `is_right`."""
        answers = [answer.text for answer in self.answers or self.ranking]
        return is_right(answers, self.truth, self.references, self.compare)

    @classmethod
    def of(
        cls,
        batch: Batch,
        row: int,
        answers: list[Answer],
        ranking: list[Answer],
        compare: Rule = "whole",
        said: Sequence[str] = (),
    ) -> Prediction:
        """The prediction for one row of a batch."""
        talk = batch.conversations[row]
        return cls(
            item_id=batch.item_id[row],
            video_id=batch.video_id[row],
            task=batch.task[row],
            prompt=talk.prompt,
            truth=talk.target,
            answers=answers,
            ranking=ranking,
            references=list(batch.references[row] if batch.references else [talk.target]),
            compare=compare,
            said=list(said),
        )


def check_rule(rule: str, key: str) -> Rule:
    """The rule, if there is such a one.

    Raises:
        ConfigError: naming the setting `key`, if there is none.
    """
    if rule not in get_args(Rule):
        known = ", ".join(get_args(Rule))
        raise ConfigError(f"{key}={rule!r} is unknown; choose one of {known}")
    return cast(Rule, rule)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one JSON row an item, so that the file is there whole or not at all."""
    with written_whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in predictions:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


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
    """The rows of a file that `write_predictions` wrote; `rule` stands in place of theirs.

    Raises:
        DataError: if a row is broken, an item occurs twice, or a task has two rules, naming the
            lines; or if there are no rows.
    """
    found: dict[str, Prediction] = {}
    lines: dict[str, int] = {}
    broken: list[str] = []
    # not splitlines: a text may hold other ends of a line, such as U+2028
    content = path.read_text(encoding="utf-8-sig", errors="replace").rstrip().split("\n")
    for number, line in enumerate(content if content != [""] else [], start=1):
        try:
            row = _parsed(line, rule)
        except _RowError as error:
            broken.append(f"line {number}: {error}")
            continue
        if row.item_id in found:
            earlier = lines[row.item_id]
            broken.append(f"line {number}: item {row.item_id!r} was there in line {earlier}")
        found.setdefault(row.item_id, row)
        lines.setdefault(row.item_id, number)
    broken += _mixed(found.values(), lines)
    if broken:
        more = f"\n  and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        raise DataError(
            f"{path} has {len(broken)} rows that cannot be used; remove or mend them, or evaluate "
            "the checkpoint again:\n  " + "\n  ".join(broken[:NAMED]) + more
        )
    if not found:
        raise DataError(f"{path} is empty; evaluate the checkpoint again")
    return list(found.values())


def missing_rows(predictions: Sequence[Prediction], metrics: Mapping[str, float]) -> list[str]:
    """What is said of tasks of which there are fewer rows than a run's metrics counted."""
    rows = Counter(row.task for row in predictions)
    counted: Counter[str] = Counter()
    for name, value in metrics.items():
        task, _, last = name.removeprefix("test/").rpartition("/")
        if not name.startswith("test/") or last not in ("count", "rank_count"):
            continue
        # benchmarks count, too, but under names of their own
        scored = {f"test/{task}/top1", f"test/{task}/rank_top1"} & set(metrics)
        if scored or task in rows:
            counted[task] = int(value)
    return [
        f"{rows[task]} rows of task {task}, of which the run counted {count} items"
        for task, count in counted.items()
        if rows[task] != count
    ]


class _RowError(Exception):
    """Why a row cannot be used."""


def _parsed(line: str, rule: Rule | None) -> Prediction:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _RowError(f"no JSON ({error})" if line.strip() else "empty") from None
    if not isinstance(values, dict):
        raise _RowError(f"expected an object, got {type(values).__name__}")
    texts = {
        key: _text(values.get(key), key)
        for key in ("item_id", "video_id", "task", "prompt", "truth")
    }
    answers, ranking = (_answers(values.get(key), key) for key in ("answers", "ranking"))
    if not answers and not ranking:
        raise _RowError(f"item {texts['item_id']!r} has no answer")
    said = values.get("said") or []
    if not isinstance(said, list):
        raise _RowError(f"'said' must be a list of texts, got {said!r}")
    if said and not answers:
        raise _RowError(f"item {texts['item_id']!r} has 'said', but no 'answers' it was read as")
    references = values.get("references")
    if not isinstance(references, list) or not references:
        raise _RowError(f"'references' must be a list of texts, got {references!r}")
    compare: Any = rule or values.get("compare")
    if compare not in get_args(Rule):
        known = ", ".join(get_args(Rule))
        raise _RowError(f"'compare' must be one of {known}, got {compare!r}; or say rule=whole")
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
        raise _RowError(f"{key!r} must be a text, got {value!r}")
    return value


def _answers(values: Any, key: str) -> list[Answer]:
    if not isinstance(values, list):
        raise _RowError(f"{key!r} must be a list of answers, got {values!r}")
    answers = []
    for value in values:
        log_prob = value.get("log_prob") if isinstance(value, dict) else None
        if not isinstance(log_prob, float | int) or isinstance(log_prob, bool):
            raise _RowError(f"{key!r} must hold text and log_prob, got {value!r}")
        try:
            number = float(log_prob)
        except OverflowError:
            raise _RowError("'log_prob' is a number beyond all floats") from None
        answers.append(Answer(_text(value.get("text"), "text"), number))
    return answers


def _mixed(predictions: Iterable[Prediction], lines: Mapping[str, int]) -> list[str]:
    """Rows whose rule is not that of the first row of their task."""
    rules: dict[str, Rule] = {}
    return [
        f"line {lines[row.item_id]}: task {row.task!r} is compared by {row.compare}, "
        f"but by {rules[row.task]} before"
        for row in predictions
        if rules.setdefault(row.task, row.compare) != row.compare
    ]
