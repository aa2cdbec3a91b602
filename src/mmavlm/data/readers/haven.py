"""HAVEN: questions by cause and aspect of hallucination, each put in several ways."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import read_list
from mmavlm.data.readers.benchmark import FilmsInFolder, right_letter, yes_or_no
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.values import shown
from mmavlm.data.sources import film_at

if TYPE_CHECKING:
    from mmavlm.metrics.benchmarks import Benchmark

FORMS = {"Binary-choice": "binary", "Multiple-choice": "choice"}
JUDGED = "Short-answer"
CAUSES = {
    "Conflict with prior": "prior",
    "In-context conflict": "context",
    "Capability deficiency": "capability",
}
ASPECTS = {"Object": "object", "Scene": "scene", "Event": "event"}
OPTION = re.compile(r"(?<![\w.])([A-Z])\.\s*")
HINTS = {
    "binary": "Answer with a single word, 'yes' or 'no'.",
    "choice": "Answer with the letter of the right option alone.",
}


class HavenReader(FilmsInFolder):
    """`test_data.json`: a list of `{Index, Question, Answer, Causes, Aspects, Form, Group_id, …}`.

    Of the forms, Binary-choice (an answer yes or no) and Multiple-choice (options within the
    question, the answer a letter) are asked; Short-answer, which an LLM judges, is not. Rows of one
    `Group_id` ask one thing in several ways. Films are `<videos>/<Video Path>.mp4`, the clips from
    Begin to End of the films under Source Link; what is said behind each question (`HINTS`) is
    ours. (Hongcheng-Gao/HAVEN, Data.)
    """

    name = "HAVEN"
    parts = tuple(FORMS.values())

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """Accuracy by form, cause and aspect, over all, and by group."""
        from mmavlm.metrics.benchmarks import haven

        return haven(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The questions that no LLM judges, with the size of their group.

        One of no known form is given to be refused.
        """
        rows = list(read_list(root / "test_data.json"))
        sizes = Counter(map(_group, rows))
        for row in rows:
            form = row.values.get("Form")
            task = FORMS.get(form, "") if isinstance(form, str) else ""
            if form != JUDGED and (not tasks or task in (*tasks, "")):
                sized = {**row.values, "group_size": sizes[_group(row)]}
                yield task, row if row.broken else replace(row, values=sized)

    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """The question of a row."""
        if not task:
            known = ", ".join((*FORMS, JUDGED))
            raise row.error(f"'Form' must be one of {known}, got {shown(row.need('Form'))}")
        video, asked = row.text("Video Path"), row.text("Question")
        meta: dict[str, Any] = {
            "group": f"{task}, {row.text('Group_id')}",
            "group_size": row.values["group_size"],
            "kinds": [_one_of(row, "Causes", CAUSES), _one_of(row, "Aspects", ASPECTS)],
        }
        if task == "choice":
            meta["choices"] = _choices(row)
            truth = right_letter(row, "Answer", meta["choices"])
        else:
            truth = yes_or_no(row, "Answer")
        return [
            Item.question(
                item_id=row.text("Index"),
                video_id=video,
                source=film_at(row.below(root / self.videos, video, "Video Path")),
                prompt=self.ask(f"{asked}\n{HINTS[task]}"),
                target=truth,
                task=task,
                references=(truth,),
                meta=meta,
            )
        ]


def _group(row: Row) -> tuple[str, str]:
    """What rows that ask one thing have in common: form and group."""
    return str(row.values.get("Form")), str(row.values.get("Group_id"))


def _one_of(row: Row, key: str, known: dict[str, str]) -> str:
    text = row.text(key)
    if text not in known:
        raise row.error(f"{key!r} must be one of {', '.join(known)}, got {text!r}")
    return known[text]


def _choices(row: Row) -> dict[str, str]:
    """Letter → text of the options within a question, whose letters are in order from A."""
    _, *pieces = OPTION.split(row.text("Question"))
    choices = {
        letter: text.strip().rstrip(".")
        for letter, text in zip(pieces[::2], pieces[1::2], strict=True)
    }
    expected = [chr(ord("A") + number) for number in range(len(pieces) // 2)]
    if len(pieces) < 4 or list(choices) != expected or not all(choices.values()):
        raise row.error(
            "'Question' must hold two or more options, A. to Z. in order, as Multiple-choice has "
            f"them, got {shown(row.text('Question'))}"
        )
    return choices
