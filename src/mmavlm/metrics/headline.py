"""The few numbers of a test that a reader looks for first, each with what guessing would give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmavlm.metrics.duet.words import DENSE, HEADLINE, MEASURES
from mmavlm.metrics.guesses import Guess, Guesses
from mmavlm.metrics.words import (
    BY_JAVA,
    COUNTS,
    LOWER_IS_BETTER,
    SIGNED,
    WITHOUT_JAVA,
    Meaning,
    meaning,
)

TEST = "test/"
MANY = 5  # of so many answers or fewer, one is always right
# In the order in which a task's are told. The first is of generated answers.
OF_ANSWERS = ("top1", "rank_top1", "top5", "rank_top5", "video_top1")
OF_RETRIEVAL = ("v2t_r1", "t2v_r1")
CAPTION_SCORES = {*BY_JAVA, *WITHOUT_JAVA, *DENSE}


@dataclass(frozen=True)
class Score:
    """One number of a test: its name in metrics.json without `test/`, value, 95 % bounds.

    `items` is how many it is over. `guess` is what no look at a film gives: the same answer to
    everything, for retrieval a random order, for speaking the best rhythm. What is not known is
    None.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    items: int | None = None
    guess: float | None = None

    @property
    def task(self) -> str:
        """What stands before the last part of the name, "" of a number over all tasks."""
        return self.name.rpartition("/")[0]

    @property
    def kind(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]

    @property
    def meaning(self) -> Meaning:
        """What it means, in words."""
        if self.kind == "accuracy" and self.low is None:
            return Meaning("right answers, mean over tasks", "Every task counts the same.")
        return meaning(self.name)

    @property
    def lower_is_better(self) -> bool:
        """Whether it counts mistakes."""
        return self.kind in LOWER_IS_BETTER

    @property
    def shown(self) -> str:
        """The value as text, with its unit."""
        return self._text(self.value) + ("" if self._plain else " %")

    @property
    def interval(self) -> str:
        """The bounds as text, "" where there are none."""
        if self.low is None or self.high is None:
            return ""
        return f"{self._text(self.low)} to {self._text(self.high)}"

    @property
    def _plain(self) -> bool:
        return self.kind in CAPTION_SCORES | SIGNED | COUNTS | MEASURES

    def _text(self, value: float) -> str:
        if self.kind in COUNTS:
            return f"{value:.0f}"
        if self.kind in MEASURES:
            return f"{value:.2f}"
        return f"{value:.3f}" if self.kind in SIGNED else f"{100 * value:.1f}"


def headline(metrics: Mapping[str, float], guesses: Guesses | None = None) -> list[Score]:
    """The numbers of a test that tell something of their own, task by task.

    Taken from `metrics` (names as in metrics.json), each beside what guessing gives. Left out are
    top-5 where there are no more than five answers, votes where each film has one item, rankings
    that repeat the generated answers' number, accuracies of a benchmark's words, which has scores
    of its own, and means over tasks that hold such accuracies.
    """
    tested = {n.removeprefix(TEST): v for n, v in metrics.items() if n.startswith(TEST)}
    benchmarks = {n for n in tested if "/" not in n and f"{n}_low" in tested}
    guesses = guesses or Guesses()
    found: list[Score] = []
    tasks = sorted({name.rpartition("/")[0] for name in tested if "/" in name})
    # a benchmark has its items in a part of each task, or all of them in one
    scored = tuple(f"{b}/{part}/" for b in benchmarks for part in ("all", *tasks))
    scored_tasks = {name.split("/")[1] for name in tested if name.startswith(scored)}
    for task in tasks:
        if task.partition("/")[0] not in {*benchmarks, *scored_tasks} and "all" not in scored_tasks:
            found += _of_task(task, tested, guesses.of(task))
    found += [_score(name, tested, _guess_yes_no(name, tested)) for name in sorted(benchmarks)]
    return found if scored_tasks else [*found, *_means(tested, found)]


def every_score(values: Mapping[str, float]) -> list[Score]:
    """All of `values` but bounds and counts, which stand beside them."""
    bounds = {f"{name}_{end}" for name in values for end in ("low", "high")}
    counts = ("count", "items", "parsed_of")
    return [_score(n, values) for n in values if n not in bounds and not n.endswith(counts)]


def _of_task(task: str, tested: Mapping[str, float], guess: Guess) -> list[Score]:
    answers = [f"{task}/{kind}" for kind in OF_ANSWERS if f"{task}/{kind}" in tested]
    scores = [_score(name, tested, guess.share) for name in answers]
    scores = [score for score in scores if _says_more(score, tested, guess.choices)]
    scores += [
        _score(f"{task}/{kind}", tested, tested.get(f"{task}/chance_r1", math.nan))
        for kind in OF_RETRIEVAL
        if f"{task}/{kind}" in tested and task.rpartition("/")[2] == "joint"
    ]
    published = f"{task}/cider" in tested
    captions = [f"{task}/{kind}" for kind in (BY_JAVA if published else WITHOUT_JAVA)]
    scores += [_score(name, tested) for name in captions if name in tested]
    rhythm = {f"{task}/speaking_f1": tested.get(f"{task}/constant_f1", math.nan)}
    watched = [f"{task}/{kind}" for kind in HEADLINE if f"{task}/{kind}" in tested]
    scores += [_score(name, tested, rhythm.get(name, math.nan)) for name in watched]
    lost = [f"{task}/{kind}" for kind in ("unparsed", "missing")]
    return [*scores, *(_score(name, tested) for name in lost if tested.get(name))]


def _says_more(score: Score, tested: Mapping[str, float], choices: int) -> bool:
    """Whether a score of answers says what no other of its task does."""
    first = tested.get(f"{score.task}/top1")
    if score.kind == "rank_top1":
        return score.value != first
    if score.kind in ("top5", "rank_top5"):
        return not 0 < choices <= MANY and score.value != first
    if score.kind == "video_top1":
        return tested.get(f"{score.task}/video_count") != tested.get(f"{score.task}/count")
    return True


def _means(tested: Mapping[str, float], found: Sequence[Score]) -> list[Score]:
    """The mean accuracy over several tasks: of each set of a mix, and of all."""
    means = [name for name in tested if name.rpartition("/")[2] == "accuracy"]
    scores = [_score(name, tested) for name in means if f"{name}_low" not in tested]
    return [
        score
        for score in scores
        if len({s.task for s in found if s.task.startswith(f"{score.task}/" if score.task else "")
                and s.kind in ("top1", "rank_top1")}) > 1
    ]  # fmt: skip


def _score(name: str, values: Mapping[str, float], guess: float = math.nan) -> Score:
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    bounded = low is not None and high is not None and low <= high
    items = values.get(_count_of(name, values))
    return Score(
        name,
        values[name],
        low if bounded else None,
        high if bounded else None,
        None if items is None or math.isnan(items) else int(items),
        None if math.isnan(guess) else guess,
    )


def _count_of(name: str, values: Mapping[str, float]) -> str:
    """The name of the number of items that a metric is over."""
    task, slash, kind = name.rpartition("/")
    if not slash:
        return f"{name}_count"
    own = {"unparsed": "parsed_of", "item_accuracy": "items", "incomplete": ""}
    ranked = "rank_" if kind.startswith("rank_") else ""
    counted = f"{ranked}video_count" if "video_top" in kind else f"{ranked}count"
    counted = own.get(kind, counted)
    fallback = "count" if kind == "unparsed" and f"{task}/parsed_of" not in values else counted
    return f"{task}/{fallback}"


def _guess_yes_no(name: str, tested: Mapping[str, float]) -> float:
    """What the more frequent of yes and no would give, where the headline counts right answers."""
    said, too_often = (
        tested.get(f"{name}/all/{kind}", math.nan) for kind in ("yes_ratio", "yes_difference")
    )
    share = said - too_often
    return max(share, 1 - share)
