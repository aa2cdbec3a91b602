"""OmniVCHall: questions about one kind of evidence, or several at once, yes/no and with options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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

FILES = {"s_yn": "s_ynqa", "c_yn": "m_ynqa", "s_mc": "s_mcqa", "c_mc": "m_mcqa"}
TYPES = range(1, 9)
OPTION = re.compile(r"\s*([A-Z])[.．、:：)]\s*(\S.*)", re.DOTALL)  # as in Chinese texts
HINTS = {
    "yn": "Answer with a single word, 'yes' or 'no'.",
    "mc": "Answer with the letter of the right option alone.",
}


class OmniVCHallReader(FilmsInFolder):
    """`test/test_{s,m}_{ynqa,mcqa}.json`: lists of rows about a single kind or several (`m`).

    - yes/no: `{video_id, type_id, yn_question, yn_answer: "yes" or "no"}`
    - options: `{video_id, type_id, mc_question, mc_option: ["A. …", …], mc_answer: letter}`

    `type_id` is a number from 1 to 8, or a list of them. Questions are in Chinese; what is said
    behind each (`HINTS`) is ours. Films are `<videos>/<video_id>.mp4`: the benchmark's own scripts
    take their folder as a setting. (BMRETURN/OmniVCHall, dataset/MyBench.)
    """

    name = "OmniVCHall"
    parts = tuple(FILES)

    def scores(self, tasks: Sequence[str]) -> Benchmark:
        """Accuracy by file, over all, and by type of evidence."""
        from mmavlm.metrics.benchmarks import omnivchall

        return omnivchall(tasks, self.parsing)

    def entries(self, root: Path, tasks: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """The questions, file by file."""
        for task in tasks or FILES:
            yield from ((task, row) for row in read_list(root / f"test/test_{FILES[task]}.json"))

    def items(self, root: Path, task: str, row: Row) -> list[Item]:
        """The question of a row."""
        video, kind = row.text("video_id"), task.removeprefix("s_").removeprefix("c_")
        meta: dict[str, Any] = {"kinds": [f"type_{number}" for number in _types(row)]}
        asked = row.text(f"{kind}_question")
        if kind == "mc":
            meta["choices"] = _choices(row)
            truth = right_letter(row, "mc_answer", meta["choices"])
            options = "\n".join(f"{letter}. {text}" for letter, text in meta["choices"].items())
            asked = f"{asked}\n{options}"
        else:
            truth = yes_or_no(row, "yn_answer")
        return [
            Item.question(
                item_id=f"{task}, {row.text(f'{FILES[task]}_id')}",
                video_id=video,
                source=film_at(row.below(root / self.videos, video, "video_id")),
                prompt=self.ask(f"{asked}\n{HINTS[kind]}"),
                target=truth,
                task=task,
                references=(truth,),
                meta=meta,
            )
        ]


def _types(row: Row) -> list[int]:
    """The kinds of evidence a question is about."""
    value = row.need("type_id")
    found = value if isinstance(value, list) else [value]
    if not found or not all(type(one) is int and one in TYPES for one in found):
        raise row.error(f"'type_id' must be a number from 1 to 8, or a list, got {shown(value)}")
    return found


def _choices(row: Row) -> dict[str, str]:
    """Letter → text of the options, which bring their letters in order."""
    texts = row.choices("mc_option") or []
    found = [OPTION.fullmatch(text) for text in texts]
    choices = {match[1]: match[2] for match in found if match}
    expected = [chr(ord("A") + number) for number in range(len(texts))]
    if len(texts) < 2 or list(choices) != expected:
        raise row.error(
            "'mc_option' must be a list of two or more texts that begin with A., B. and so on, got "
            f"{shown(row.need('mc_option'))}"
        )
    return choices
