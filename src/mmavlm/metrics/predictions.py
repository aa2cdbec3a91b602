"""What a model answered to one item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast, get_args

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import Answer
from mmavlm.metrics.rules import Rule, is_right

if TYPE_CHECKING:
    from mmavlm.core.batch import Batch


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


class FewOfEach:
    """Chooses items to look at: the first of each task, and the first that were answered wrong.

    Of each task it takes `per_task` of the one and so many more of the other, `most` in all.
    """

    def __init__(self, per_task: int, most: int) -> None:
        self.per_task = per_task
        self.most = most
        self._taken: Counter[tuple[str, bool]] = Counter()  # by task, and whether first or wrong

    def wants(self, task: str, *, right: bool | None) -> bool:
        """Whether one more item of this kind is looked at; if so it is counted."""
        for is_first in (True, False):
            kind = task, is_first
            wanted = is_first or right is False
            if wanted and self._taken[kind] < self.per_task and self._taken.total() < self.most:
                self._taken[kind] += 1
                return True
        return False


def check_rule(rule: str, key: str) -> Rule:
    """The rule, if there is such a one.

    Raises:
        ConfigError: naming the setting `key`, if there is none.
    """
    if rule not in get_args(Rule):
        known = ", ".join(get_args(Rule))
        raise ConfigError(f"{key}={rule!r} is unknown; choose one of {known}")
    return cast(Rule, rule)
