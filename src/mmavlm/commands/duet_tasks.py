"""What each task of watched films is scored by, and which settings it reads."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from omegaconf import DictConfig

from mmavlm.commands.judge import how_judged, single_aspect
from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.core.settings import names
from mmavlm.core.speaking import BYS as WAYS
from mmavlm.core.speaking import HEADS, SpeakingRule
from mmavlm.metrics.duet.answers_in_span import (
    ToJudge,
    in_span_scores,
    in_span_statistics,
    to_judge,
)
from mmavlm.metrics.duet.choosing import Chosen, check_apart
from mmavlm.metrics.duet.dense_captions import caption_scores, caption_statistics, left_out
from mmavlm.metrics.duet.files import read_events, read_highlights, read_watched
from mmavlm.metrics.duet.films import AnyTruth, Paired, paired, with_events
from mmavlm.metrics.duet.grounding import (
    HEAD,
    THRESHOLDS,
    WINDOWS,
    By,
    Cut,
    choose_cut,
    grounding_scores,
    grounding_statistics,
)
from mmavlm.metrics.duet.highlights import (
    BY,
    BYS,
    choose_window,
    highlight_scores,
    highlight_statistics,
)
from mmavlm.metrics.duet.speaking import (
    choose_rule,
    speaking_scores,
    speaking_statistics,
)
from mmavlm.metrics.duet.watched import EventTruth, HighlightTruth, Watched
from mmavlm.movies.generators.text import TextGenerator
from mmavlm.movies.judge import Failed, judge_answers
from mmavlm.movies.verdicts import Answered

log = logging.getLogger(__name__)

FILE = "watched.jsonl"  # the name a folder of a run has it by


@dataclass(frozen=True)
class Result:
    """The numbers of a task by name, and the setting they are of, if it has any."""

    values: dict[str, float]
    chosen: Chosen[Any] | None = None


def watched_path(given: str) -> Path:
    """The file of watched films, given itself or the folder of a run."""
    return Path(given) / FILE if Path(given).is_dir() else Path(given)


Scorer = Callable[[DictConfig, Path, Path, TextGenerator | None], "tuple[Result, Paired[Any]]"]


def _grounding(
    config: DictConfig, path: Path, folder: Path, judge: TextGenerator | None
) -> tuple[Result, Paired[EventTruth]]:
    head, by = _one_head(config), _by(config, get_args(By))
    windows, thresholds = _grid(config.window, WINDOWS), _grid(config.threshold, THRESHOLDS)
    both = with_events(_both(config, path, read_events))
    if (val := _validation(config, read_events, both)) is not None:
        chosen = choose_cut(
            *val, split="val", by=by, windows=windows, thresholds=thresholds, head=head
        )
    elif config.window is None or config.threshold is None:
        raise _nothing_chosen(config, "window=6 threshold=0.5")
    else:
        chosen = Chosen(Cut(config.window, config.threshold))
    statistics = grounding_statistics(both.watched, both.truths, chosen.setting, head)
    return Result(grounding_scores(both.taken(statistics)), chosen), both


def _highlights(
    config: DictConfig, path: Path, folder: Path, judge: TextGenerator | None
) -> tuple[Result, Paired[HighlightTruth]]:
    head, by = _one_head(config), _by(config, (BY, *BYS))
    both = _both(config, path, read_highlights)
    if (val := _validation(config, read_highlights, both)) is not None:
        windows = _grid(config.window, WINDOWS)
        chosen = choose_window(*val, split="val", by=by, windows=windows, head=head)
    elif config.window is None:
        raise _nothing_chosen(config, "window=2")
    else:
        chosen = Chosen(config.window)
    statistics = highlight_statistics(both.watched, both.truths, chosen.setting, head)
    return Result(highlight_scores(both.taken(statistics)), chosen), both


def _dense_captions(
    config: DictConfig, path: Path, folder: Path, judge: TextGenerator | None
) -> tuple[Result, Paired[EventTruth]]:
    both = with_events(_both(config, path, read_events))
    if problem := left_out():
        log.warning("%s", problem)
    statistics = caption_statistics(both.watched, both.truths)
    return Result(caption_scores(both.taken(statistics))), both


def _magqa(
    config: DictConfig, path: Path, folder: Path, judge: TextGenerator | None
) -> tuple[Result, Paired[EventTruth]]:
    if judge is None:
        raise ConfigError(
            "task=magqa has answers judged; say by whom: judge=overlap, judge=transformers "
            "judge.folder=… or judge=endpoint judge.base_url=… judge.model=…"
        )
    both = with_events(_both(config, path, read_events))
    verdicts = _verdicts(config, folder, judge, both)
    statistics = in_span_statistics(both.watched, both.truths, verdicts)
    return Result(in_span_scores(both.taken(statistics))), both


def _verdicts(
    config: DictConfig, folder: Path, judge: TextGenerator, both: Paired[EventTruth]
) -> dict[ToJudge, float | None]:
    """The score of all that is to be judged, None where none could be had; leave verdicts.jsonl."""
    aspect = single_aspect(config.aspects)
    wanted = to_judge(both.watched, both.truths)
    asked = [Answered(case.question, case.answer, case.reply) for case in wanted]
    found = judge_answers(judge, asked, aspect, **how_judged(judge, config))
    verdicts: dict[ToJudge, float | None] = {}
    rows = []
    for (case, question_id), verdict in zip(wanted.items(), found, strict=True):
        failed = isinstance(verdict, Failed)
        verdicts[case] = None if isinstance(verdict, Failed) else verdict.score
        if failed:
            log.warning("question %s: reply %r has no verdict", question_id, case.reply)
        said = {"error": verdict.error} if isinstance(verdict, Failed) else verdict.model_dump()
        rows.append({"question_id": question_id, **asdict(case), **said})
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    write_whole(folder / "verdicts.jsonl", lines.encode())
    return verdicts


def _speaking(
    config: DictConfig, path: Path, folder: Path, judge: TextGenerator | None
) -> tuple[Result, Paired[EventTruth]]:
    heads, by = tuple(names(config.head)) or HEADS, config.speak_by or WAYS[0]
    if by not in WAYS:
        raise ConfigError(f"speak_by={by} is unknown; choose one of {', '.join(WAYS)}")
    both = _both(config, path, read_events)
    chosen = None
    if (val := _validation(config, read_events, both)) is not None:
        thresholds = None if config.threshold is None else [config.threshold]
        pauses = {} if config.pause_s is None else {"pauses_s": [config.pause_s]}
        chosen = choose_rule(
            *val, split="val", heads=heads, by=by, thresholds=thresholds,
            tolerance_s=config.tolerance_s, **pauses,
        )  # fmt: skip
    elif config.threshold is not None:
        chosen = Chosen(SpeakingRule(config.threshold, config.pause_s or 0.0, heads, by))
    rule = None if chosen is None else chosen.setting
    statistics = speaking_statistics(both.watched, both.truths, rule, config.tolerance_s)
    return Result(speaking_scores(both.taken(statistics)), chosen), both


def _both(
    config: DictConfig, path: Path, read: Callable[[Path], list[AnyTruth]]
) -> Paired[AnyTruth]:
    return paired(read_watched(path), read(Path(config.truth)))


def _validation(
    config: DictConfig, read: Callable[[Path], list[AnyTruth]], tested: Paired[AnyTruth]
) -> tuple[list[Watched], list[AnyTruth]] | None:
    """Watched films to choose on and their truth, None if none are given.

    Raises:
        DataError: if a film is also tested.
    """
    if config.val_predictions is None:
        return None
    watched = read_watched(watched_path(config.val_predictions))
    truths = read(Path(config.val_truth))
    check_apart((truth.video_id for truth in truths), (truth.video_id for truth in tested.truths))
    return watched, truths


def _nothing_chosen(config: DictConfig, example: str) -> ConfigError:
    return ConfigError(
        f"task={config.task} needs a setting that is chosen on other films than the test's: give "
        f"val_predictions=… and val_truth=…, or what you chose there yourself, such as {example}"
    )


Number = TypeVar("Number", int, float)


def _grid(given: Number | None, grid: Sequence[Number]) -> Sequence[Number]:
    return grid if given is None else [given]


def _one_head(config: DictConfig) -> str:
    heads = names(config.head) or [HEAD]
    if len(heads) > 1:
        raise ConfigError(f"task={config.task} reads one head, got head={heads}")
    return heads[0]


Option = TypeVar("Option", bound=str)


def _by(config: DictConfig, options: Sequence[Option]) -> Option:
    """The number to choose by: the one that is given, else the first of the options."""
    for option in options:
        if config.by in (None, option):
            return option
    raise ConfigError(f"by={config.by} is unknown; choose one of {', '.join(options)}")


TASKS: dict[str, Scorer] = {
    "grounding": _grounding,
    "highlights": _highlights,
    "dense_captions": _dense_captions,
    "magqa": _magqa,
    "speaking": _speaking,
}
# What each task reads of the settings that not all have.
READS = {
    "grounding": {"val_predictions", "val_truth", "window", "threshold", "by", "head"},
    "highlights": {"val_predictions", "val_truth", "window", "by", "head"},
    "dense_captions": set(),
    "magqa": {"judge"},
    "speaking": {"val_predictions", "val_truth", "threshold", "pause_s", "head", "speak_by"},
}
