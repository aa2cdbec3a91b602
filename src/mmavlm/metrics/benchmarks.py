"""What is told of each hallucination benchmark: its metrics, and what of an item each is fed.

An item's `target` is its truth, its `task` the part of the benchmark it belongs to; how items
belong together stands in its `meta`, where the benchmark's reader put it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torchmetrics import Metric

from mmavlm.core.items import Item
from mmavlm.metrics.caption_scores import CaptionScores
from mmavlm.metrics.groups import GroupAccuracy
from mmavlm.metrics.order import OrderAccuracy
from mmavlm.metrics.paired import PairedAccuracy
from mmavlm.metrics.parsing import CAPTIONING, parse_letters, parse_yes_no
from mmavlm.metrics.rows import first_of_each
from mmavlm.metrics.sah import SAHRatio
from mmavlm.metrics.unparsed import UnparsedRate
from mmavlm.metrics.unshown import UnshownAnswers
from mmavlm.metrics.yes_no import ITEM, SAID, TRUTH, YesNoStats, matthews

Feed = Callable[[Any, Sequence[Item], Sequence[str]], None]
Choose = Callable[[Item], bool]
ALL = "all"  # the part that holds every item


@dataclass(frozen=True)
class Part:
    """A metric by its name, how it is fed items and answers, and which items it takes."""

    name: str
    metric: Metric
    feed: Feed
    takes: Choose


class Benchmark(nn.Module):
    """The metrics of a benchmark, fed with its items and the answers given.

    `headline` is the one number that stands for all, as `<part>/<value>`.
    """

    def __init__(self, name: str, parts: Sequence[Part], headline: str) -> None:
        super().__init__()
        self.name = name
        self.parts = tuple(parts)
        self.headline = headline
        self.metrics = nn.ModuleList([part.metric for part in parts])

    def update(self, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Take n items and the answer to each."""
        for part in self.parts:
            taken = [pair for pair in zip(items, answers, strict=True) if part.takes(pair[0])]
            if taken:
                part.feed(part.metric, *map(list, zip(*taken, strict=True)))

    def compute(self) -> dict[str, float]:
        """`<name>`, the headline, with bounds and count; `<name>/<part>/<value>` of every part.

        Every process must call it; parts that no process saw an item of are left out.
        """
        values: dict[str, float] = {}
        for part in self.parts:
            told = part.metric.compute()
            if any(told.get(name) for name in ("count", "incomplete", "parsed_of")):
                values |= {f"{part.name}/{name}": value for name, value in told.items()}
        ends = [end for end in ("", "_low", "_high") if self.headline + end in values]
        count = f"{self.headline.rpartition('/')[0]}/count"
        return {
            **{self.name + end: values[self.headline + end] for end in ends},
            **({f"{self.name}_count": values[count]} if ends else {}),
            **{f"{self.name}/{name}": value for name, value in values.items()},
        }

    def reset(self) -> None:
        """Forget all answers."""
        for part in self.parts:
            part.metric.reset()


class SceneChange(YesNoStats):
    """`YesNoStats` with Matthews' correlation and the score that VidHalluc makes of it.

    `mcc` lies in [-1, 1], `classification_score` is ((mcc + 1)/2)². VidHalluc adds 0.4 of a
    description score to 0.6 of it, which takes a sentence encoder and is not computed here.
    """

    def compute(self) -> dict[str, float]:
        """The statistics by name."""
        rows = self.all_rows()
        rows = rows[first_of_each(rows[:, ITEM])]
        mcc = matthews(rows[:, TRUTH], rows[:, SAID])
        return {**super().compute(), "mcc": mcc, "classification_score": ((mcc + 1) / 2) ** 2}


def videohallucer(tasks: Sequence[str], parsing: str = "strict") -> Benchmark:
    """Pairs by type of hallucination and over all (VideoHallucer, arXiv 2406.16338)."""
    parts = [Part(task, PairedAccuracy(parsing), feed_pairs, of_task(task)) for task in tasks]
    parts.append(Part(ALL, PairedAccuracy(parsing), feed_pairs, every))
    parts.append(Part("yes_no", YesNoStats(parsing), feed_truths, every))
    return Benchmark("videohallucer", parts, f"{ALL}/accuracy")


def eventhallusion(tasks: Sequence[str], parsing: str = "strict") -> Benchmark:
    """Accuracy by kind of event and over all (EventHallusion, arXiv 2409.16597)."""
    return Benchmark("eventhallusion", yes_no_parts(tasks, parsing), f"{ALL}/accuracy")


def pope(tasks: Sequence[str], parsing: str = "strict") -> Benchmark:
    """Yes/no statistics by the choice of absent objects, and over all (POPE, arXiv 2305.10355)."""
    return Benchmark("pope", yes_no_parts(tasks, parsing), f"{ALL}/accuracy")


def avhbench(tasks: Sequence[str], parsing: str = "strict") -> Benchmark:
    """Yes/no statistics by task and over all, and captions (AVHBench, arXiv 2410.18325)."""
    asked = [task for task in tasks if task != CAPTIONING]
    parts = yes_no_parts(asked, parsing, lambda item: item.task != CAPTIONING)
    if CAPTIONING in tasks:
        parts.append(Part(CAPTIONING, CaptionScores(), feed_captions, of_task(CAPTIONING)))
    return Benchmark("avhbench", parts, f"{ALL}/accuracy")


def cut_films(tasks: Sequence[str], task: str, answers: Sequence[str]) -> Benchmark:
    """How often a part of a film is answered with something that it does not show.

    The headline is a rate of errors: the lower, the better.
    """
    parts = [Part(task, UnshownAnswers(answers), feed_truths, of_task(task))]
    return Benchmark("hallucination", parts if task in tasks else [], f"{task}/unshown")


def elv_halluc(tasks: Sequence[str], parsing: str = "strict") -> Benchmark:
    """Triplets by aspect and over all (ELV-Halluc, arXiv 2508.21496)."""
    parts = [Part(task, SAHRatio(parsing), feed_triplets, of_task(task)) for task in tasks]
    parts.append(Part(ALL, SAHRatio(parsing), feed_triplets, every))
    parts.append(Part("yes_no", YesNoStats(parsing), feed_truths, every))
    return Benchmark("elv_halluc", parts, f"{ALL}/in_accuracy")


def hallusionbench(tasks: Sequence[str], parsing: str = "strict") -> Benchmark:
    """Accuracy by question, by figure and by pair; easy and hard (HallusionBench, CVPR 2024).

    A figure is right if all questions about it are, a pair if one question is on all figures of
    its set; hard figures are the edited ones.
    """
    by_figure, by_pair = (partial(feed_right, key=k, parsing=parsing)
                          for k in ("figure", "pair"))  # fmt: skip
    parts = [
        Part(ALL, YesNoStats(parsing), feed_truths, every),
        Part("figure", GroupAccuracy(), by_figure, every),
        Part("pair", GroupAccuracy(), by_pair, every),
        Part("easy", YesNoStats(parsing), feed_truths, lambda item: not item.meta["hard"]),
        Part("hard", YesNoStats(parsing), feed_truths, lambda item: bool(item.meta["hard"])),
    ]
    return Benchmark("hallusionbench", parts, f"{ALL}/accuracy")


def omnivchall(tasks: Sequence[str], parsing: str = "strict") -> Benchmark:
    """Accuracy by kind of question, over all, and by type of evidence (OmniVCHall, ICML 2026).

    A question about several types counts for each of them.
    """
    types = [f"type_{number}" for number in range(1, 9)]
    return Benchmark("omnivchall", right_parts(tasks, types, parsing), f"{ALL}/accuracy")


def haven(tasks: Sequence[str], parsing: str = "strict") -> Benchmark:
    """Accuracy by form, over all, by cause and aspect, and of groups (HAVEN, arXiv 2503.19622).

    A group is right if every way of putting its question is answered right.
    """
    kinds = ("prior", "context", "capability", "object", "scene", "event")
    by_group = partial(feed_right, key="group", parsing=parsing)
    parts = [*right_parts(tasks, kinds, parsing), Part("group", GroupAccuracy(), by_group, every)]
    return Benchmark("haven", parts, f"{ALL}/accuracy")


def vidhalluc(tasks: Sequence[str], parsing: str = "strict") -> Benchmark:
    """Each of the four kinds of questions by its own metric (VidHalluc, arXiv 2412.03735).

    A yes/no question counts if it is right on every clip of its pair; of the options of a multiple
    choice exactly the right ones must be named, and the share of answers that name none is told.
    """
    by_question = partial(feed_right, key="group", parsing=parsing)
    metrics: dict[str, list[tuple[Metric, Feed]]] = {
        "ach_binaryqa": [(GroupAccuracy(), by_question)],
        "ach_mcq": [
            (GroupAccuracy(), by_question),
            (UnparsedRate(), partial(feed_letters, parsing=parsing)),
        ],
        "sth": [(SceneChange(parsing), feed_truths)],
        "tsh": [(OrderAccuracy(), feed_truths)],
    }
    parts = [Part(task, *told, of_task(task)) for task in tasks for told in metrics[task]]
    return Benchmark("vidhalluc", parts, f"{tasks[0]}/accuracy")


def yes_no_parts(tasks: Sequence[str], parsing: str, takes: Choose | None = None) -> list[Part]:
    """Yes/no statistics of each task and over all items, or those that `takes` takes."""
    parts = [Part(task, YesNoStats(parsing), feed_truths, of_task(task)) for task in tasks]
    return [*parts, Part(ALL, YesNoStats(parsing), feed_truths, takes or every)]


def right_parts(tasks: Sequence[str], kinds: Sequence[str], parsing: str) -> list[Part]:
    """Right answers by task, over all and by kind; yes/no statistics, and what names no option.

    Of which kinds an item is stands in its meta under `kinds`.
    """
    takers = {task: of_task(task) for task in tasks} | {ALL: every}
    takers |= {kind: of_kind(kind) for kind in kinds}
    right = partial(feed_right, key=None, parsing=parsing)
    letters = partial(feed_letters, parsing=parsing)
    return [
        *(Part(name, GroupAccuracy(), right, takes) for name, takes in takers.items()),
        Part("yes_no", YesNoStats(parsing), feed_truths, lambda item: "choices" not in item.meta),
        Part("letters", UnparsedRate(), letters, lambda item: "choices" in item.meta),
    ]


def every(item: Item) -> bool:
    """Takes any item."""
    return True


def of_task(task: str) -> Choose:
    """Takes the items of one task."""
    return lambda item: item.task == task


def of_kind(kind: str) -> Choose:
    """Takes the items of one kind, of which an item may have several."""
    return lambda item: kind in item.meta["kinds"]


def feed_truths(metric: Any, items: Sequence[Item], answers: Sequence[str]) -> None:
    """Ids, answers and truths."""
    metric.update(_ids(items), answers, _truths(items))


def feed_captions(metric: Any, items: Sequence[Item], answers: Sequence[str]) -> None:
    """Ids, those of the films, the captions given, and the true one of each."""
    videos = [item.video_id for item in items]
    metric.update(_ids(items), videos, answers, [[truth] for truth in _truths(items)])


def feed_pairs(metric: Any, items: Sequence[Item], answers: Sequence[str]) -> None:
    """The pair of each item, and whether it is the hallucinated question."""
    pairs = [str(item.meta["pair"]) for item in items]
    hallucinated = [bool(item.meta["hallucinated"]) for item in items]
    metric.update(_ids(items), pairs, hallucinated, answers, _truths(items))


def feed_triplets(metric: Any, items: Sequence[Item], answers: Sequence[str]) -> None:
    """The triplet of each item, and the kind of its caption."""
    triplets = [str(item.meta["triplet"]) for item in items]
    kinds = [str(item.meta["kind"]) for item in items]
    metric.update(_ids(items), triplets, kinds, answers, _truths(items))


def feed_right(
    metric: Any, items: Sequence[Item], answers: Sequence[str], *, key: str | None, parsing: str
) -> None:
    """The group of each item under a key of its meta, or each by itself, and whether it is right.

    Right is to name exactly the true options where there are some, else to say the true yes or no.
    How many questions the group has stands in the meta under `<key>_size`, if those seen are not
    all.
    """
    right = [
        parse_letters(answer, item.meta["choices"], parsing) == frozenset(item.target)
        if "choices" in item.meta
        else parse_yes_no(answer, parsing) == parse_yes_no(item.target)
        for item, answer in zip(items, answers, strict=True)
    ]
    ids = _ids(items)
    groups = ids if key is None else [str(item.meta[key]) for item in items]
    sizes = [int(item.meta.get(f"{key}_size", 1)) for item in items]
    metric.update(ids, groups, right, sizes)


def feed_letters(
    metric: Any, items: Sequence[Item], answers: Sequence[str], *, parsing: str
) -> None:
    """The letters of the options that each answer names."""
    named = [
        parse_letters(answer, item.meta["choices"], parsing)
        for item, answer in zip(items, answers, strict=True)
    ]
    metric.update(_ids(items), ["".join(letters) for letters in named])


def _ids(items: Sequence[Item]) -> list[str]:
    return [item.item_id for item in items]


def _truths(items: Sequence[Item]) -> list[str]:
    return [item.target for item in items]
