"""The duet: tested runs of several arms and seeds side by side, and three films as one saw them.

    python scripts/duet.py outputs/duet/base_{42,1,2} outputs/duet/no_heads_{42,1,2}
    python scripts/duet.py outputs/duet/base_42 --plot docs/duet.svg

A run's folder is called by its arm and seed, `base_42`. All is scored by what the runs left: frames
as they were watched, and what is true of them. Settings are chosen on each run's own validation.
Intervals are of 95 %, with films drawn; those of a mean over seeds draw the films of all seeds
alike. The plot is of the first run: of the first film with several events, with one, with none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from torch import Tensor

from mmavlm.core.errors import DataError, MmavlmError
from mmavlm.core.hashing import string_keys
from mmavlm.metrics.duet.files import read_events, read_watched, truth_file, watched_file
from mmavlm.metrics.duet.grounding import grounding_statistics
from mmavlm.metrics.duet.speaking import (
    EVENTS,
    EVERY_S,
    MATCHED,
    OWN,
    SAID,
    above,
    f1,
    speaking_statistics,
    times_spoken,
    total_score,
)
from mmavlm.metrics.duet.tasks import GROUNDING, SPEAKING, Result, Seen, scored
from mmavlm.metrics.duet.watched import EventTruth, Watched
from mmavlm.metrics.intervals import bootstrap_interval
from mmavlm.metrics.resampling import group_sums
from mmavlm.report.drawing import NO_METADATA, style

CURVE, TRUE, SPOKE = "#3b82c4", "#e07b39", "#24292f"
# Task → score → a function of what `units` brings, summed over questions.
SCORES: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    SPEAKING: {
        "F1 of speaking": lambda sums: f1(sums[..., :3]),
        "best rhythm": lambda sums: f1(sums[..., [3, 4, 2]]),
        "points above it": above,
    },
    GROUNDING: {
        "mIoU of frames": lambda sums: sums[..., 0] / sums[..., 2],
        "mIoU of spans": lambda sums: sums[..., 1] / sums[..., 2],
    },
}


class Score(NamedTuple):
    """A score in percent, and its 95 % interval when films are drawn."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})".replace("-", "−")


@dataclass(frozen=True)
class TestedRun:
    """A run's arm and seed, and the result of its test."""

    arm: str
    seed: int
    result: Result

    @property
    def questions(self) -> list[str]:
        """What was asked, in order."""
        return [truth.question_id for truth in self.result.pairs.truths]

    @property
    def films(self) -> Tensor:
        """The films (n) of the questions."""
        return string_keys(truth.video_id for truth in self.result.pairs.truths)

    def units(self) -> Tensor:
        """What each of n questions brings to the scores of the task, (n,S)."""
        result = self.result
        assert result.chosen is not None
        given = result.pairs.watched, result.pairs.truths, result.chosen.setting
        if result.task == GROUNDING:
            ious = grounding_statistics(*given)
            return torch.cat([ious, torch.ones(len(ious), 1)], dim=1)
        rhythm = OWN + 2 * EVERY_S.index(result.values["constant_every_s"])
        return speaking_statistics(*given)[:, [MATCHED, SAID, EVENTS, rhythm, rhythm + 1]]


def read_run(folder: Path) -> TestedRun:
    """A run from its folder, scored by the task that it was tested by.

    Raises:
        DataError: if it is no tested run, or is scored by another task than those of `SCORES`.
    """
    told, config = folder / "duet.json", folder / "config.yaml"
    if not told.is_file() or not config.is_file():
        raise DataError(f"{folder} is no tested run of the duet: it lacks duet.json or config.yaml")
    task = json.loads(told.read_text(encoding="utf-8"))["task"]
    if task not in SCORES:
        raise DataError(f"{folder} is scored by task={task}; give runs of {', '.join(SCORES)}")
    seed = int(OmegaConf.load(config).seed)
    tested, validated = (
        Seen(read_watched(folder / watched_file(of)), read_events(folder / truth_file(of)))
        for of in ("test", "val")
    )
    return TestedRun(folder.name.removesuffix(f"_{seed}"), seed, scored(task, tested, validated))


def score_of(units: Sequence[Tensor], films: Tensor, score: Callable[[Tensor], Tensor]) -> Score:
    """The mean over seeds of a score, of what n questions bring with each, (n,S).

    Films are drawn for all seeds at once.
    """

    def mean(sums: Tensor) -> Tensor:
        return score(sums.unflatten(-1, (len(units), -1))).mean(dim=-1)

    sums = group_sums(torch.cat(list(units), dim=1), films)
    bounds = bootstrap_interval(sums, mean)
    return Score(*(100 * value for value in (float(mean(sums.sum(dim=0))), *bounds)))


def table(runs: Sequence[TestedRun]) -> dict[str, Any]:
    """Arm → its task, the mean of each score over seeds, and each seed's with what was chosen.

    Raises:
        DataError: if runs of an arm were not asked the same.
    """
    arms: dict[str, Any] = {}
    for arm, group in groupby(runs, key=lambda run: run.arm):
        own = list(group)
        first = own[0]
        if arm in arms or any(run.questions != first.questions for run in own):
            raise DataError(f"runs of {arm} must stand together and be tested on the same films")
        units = [run.units() for run in own]
        scores = SCORES[first.result.task]
        arms[arm] = {
            "task": first.result.task,
            "questions": len(first.questions),
            "films": len(first.films.unique()),
            "mean": {n: score_of(units, first.films, s)._asdict() for n, s in scores.items()},
            "seeds": {
                run.seed: {
                    "chosen": run.result.how_chosen,
                    **{n: score_of([of], run.films, s)._asdict() for n, s in scores.items()},
                }
                for run, of in zip(own, units, strict=True)
            },
        }
    return arms


def lines(arms: Mapping[str, Any]) -> Iterator[str]:
    """The tables in Markdown, one for each task."""
    for task, scores in SCORES.items():
        of_task = {arm: found for arm, found in arms.items() if found["task"] == task}
        if not of_task:
            continue
        first = next(iter(of_task.values()))
        yield f"{first['questions']} questions about {first['films']} films, in percent\n"
        yield _line(["run", *scores, "chosen"])
        yield "|" + "-|" * (len(scores) + 2)
        for arm, found in of_task.items():
            yield _line(
                [f"{arm}, mean of {len(found['seeds'])}", *_cells(found["mean"], scores), ""]
            )
            for seed, own in found["seeds"].items():
                yield _line([f"{arm}, seed {seed}", *_cells(own, scores), own["chosen"]])
        yield ""


def _cells(found: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    return [str(Score(**found[name])) for name in scores]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def drawn(run: TestedRun) -> list[tuple[Watched, EventTruth]]:
    """The first film with several events, with one, with none, as far as there are such."""
    both = [
        (film, truth)
        for film, truth in zip(run.result.pairs.watched, run.result.pairs.truths, strict=True)
        if film is not None
    ]
    found: list[tuple[Watched, EventTruth]] = []
    for least, most in ((2, 1000), (1, 1), (0, 0)):
        other = {truth.video_id for _, truth in found}
        fits = (
            (film, truth)
            for film, truth in both
            if least <= len(truth.events) <= most and truth.video_id not in other
        )
        found += [one for one in [next(fits, None)] if one is not None]
    return found


def draw(run: TestedRun, path: Path) -> None:
    """Draw scores over time, the chosen threshold, true spans, and when it spoke, of three films.

    Raises:
        DataError: if the run does not speak.
    """
    if run.result.task != SPEAKING:
        raise DataError(f"{run.arm} with seed {run.seed} does not speak; plot a run that does")
    films = drawn(run)
    with style("duet"):
        figure = Figure(figsize=(7.6, 1.5 * len(films) + 0.6), layout="constrained",
                        facecolor="white")  # fmt: skip
        rows = figure.subplots(len(films), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (film, truth) in zip(rows, films, strict=True):
            _panel(axes, run, film, truth)
        rows[-1].set_xlabel("seconds")
        rows[0].legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.2))
        figure.savefig(path, metadata=NO_METADATA)


def _panel(axes: Axes, run: TestedRun, film: Watched, truth: EventTruth) -> None:
    assert run.result.chosen is not None
    rule = run.result.chosen.setting
    for number, event in enumerate(truth.events):
        axes.axvspan(event.start_s, event.end_s, color=TRUE, alpha=0.25, linewidth=0,
                     label="_" if number else "it is seen")  # fmt: skip
    total = total_score(film, rule.heads).tolist()
    axes.plot(film.times_s, total, ".-", color=CURVE, markersize=4, label="score of a frame")
    axes.axhline(rule.threshold, color=CURVE, linestyle=":", linewidth=0.9,
                 label="chosen threshold")  # fmt: skip
    spoke = times_spoken(rule, film)
    axes.plot(spoke, [1.06 * len(rule.heads)] * len(spoke), "v", color=SPOKE, markersize=5,
              clip_on=False, label="it speaks")  # fmt: skip
    axes.set_ylim(0, 1.1 * len(rule.heads))
    asked = " ".join(f"{query.text} ({query.time_s:g} s)" for query in truth.queries)
    axes.set_title(asked, loc="left", fontsize=9, color=SPOKE)


def main() -> None:
    """Parse the command line, print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of tested runs, arm by arm")
    parser.add_argument("--plot", type=Path, help="where to draw three films of the first run")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    options = parser.parse_args()
    try:
        runs = [read_run(folder) for folder in options.runs]
        arms = table(runs)
        if options.plot is not None:
            draw(runs[0], options.plot)
    except MmavlmError as error:
        raise SystemExit(f"error: {error}") from None
    print(json.dumps(arms) if options.json else "\n".join(lines(arms)))


if __name__ == "__main__":
    main()
