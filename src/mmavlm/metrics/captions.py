"""CIDEr, METEOR, BLEU-4 and ROUGE-L of generated captions, with bootstrap intervals."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any

from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.core.extras import needs_extra
from mmavlm.metrics import caption_statistics as coco
from mmavlm.metrics.caption_statistics import Scored
from mmavlm.metrics.caption_words import (
    INSTALL_JAVA,
    JavaError,
    java,
    library,
    plain_words,
    ptb_words,
)
from mmavlm.metrics.intervals import bootstrap_interval
from mmavlm.metrics.resampling import group_sums
from mmavlm.metrics.rows import first_of_each
from mmavlm.metrics.words import BY_JAVA, WITHOUT_JAVA

log = logging.getLogger(__name__)

COUNTED = {"cider": coco.cider, "bleu4": coco.bleu4, "rouge_l": coco.rouge_l}
PLAIN = dict(zip(WITHOUT_JAVA, COUNTED.values(), strict=True))
CHOOSING = "cider_plain"  # the score that is there with and without Java


def left_out() -> str | None:
    """What to install, where some scores of captions cannot be computed; None if all can."""
    if library() is None:
        return needs_extra("scoring captions", "pycocoevalcap", "captions")
    if java() is None:
        return (
            f"{', '.join(BY_JAVA)} are left out, because there is no `java` command: "
            f"{INSTALL_JAVA}; {', '.join(PLAIN)} need none, but cut words apart in another way"
        )
    return None


def check_monitor(monitor: str) -> None:
    """Refuse a `stage.monitor` that no validation of this machine will give.

    Raises:
        ConfigError: if it is a score of captions that cannot be computed here.
    """
    score = monitor.rpartition("/")[2]
    gone = {*BY_JAVA, *PLAIN} if library() is None else set() if java() else {*BY_JAVA}
    if score in gone:
        raise ConfigError(
            f"stage.monitor={monitor} cannot be computed: {left_out()}. To choose checkpoints by "
            "the loss: stage.monitor=val/text callbacks.checkpoint.mode=min"
        )


def score_captions(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, Scored]:
    """The scores by name of n captions, beside all references of each; see `score_runs`."""
    return score_runs([captions], references)[0]


def score_runs(
    runs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> list[dict[str, Scored]]:
    """The scores by name of each run's n captions, beside all references of each of the n items.

    `cider`, `meteor`, `bleu4` and `rouge_l` are those of COCO's evaluation and need Java; those
    whose name ends in `_plain` are of words cut apart without it. What cannot be computed is left
    out; of Java's failures the log tells.
    """
    if library() is None or len(references) == 0:
        return [{} for _ in runs]
    with ThreadPoolExecutor(1) as beside:
        # METEOR takes ten seconds to start, in which the other scores are counted
        waiting = None if java() is None else beside.submit(_by_java, runs, references)
        words, wanted = _cut(plain_words, runs, references)
        plain = [{name: score(run, wanted) for name, score in PLAIN.items()} for run in words]
        if waiting is None:
            return plain
        try:
            by_java, wanted_by_java, meteors = waiting.result()
        except JavaError as error:
            log.warning("%s are left out, because Java failed: %s", ", ".join(BY_JAVA), error)
            return plain
    found = []
    for run, run_by_java, scores, meteor in zip(words, by_java, plain, meteors, strict=True):
        # usually the same words, and counting the n-grams of thousands of captions takes a while
        known = scores if (run_by_java, wanted_by_java) == (run, wanted) else {}
        counted = {
            name: known.get(f"{name}_plain") or score(run_by_java, wanted_by_java)
            for name, score in COUNTED.items()
        }
        found.append({"cider": counted["cider"], "meteor": meteor} | counted | scores)
    return found


def _by_java(
    runs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[str]], list[Scored]]:
    """The runs' and the references' words, and METEOR of each run: Java is started once for all."""
    words, wanted = _cut(ptb_words, runs, references)
    return words, wanted, coco.meteor(words, wanted)


def caption_scores(
    items: Tensor, videos: Tensor, captions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """What `CaptionScores` computes; `items` and `videos` (n,) are keys, an item counting once."""
    if not len(items):
        return {"count": 0.0}
    # sorted by item, so that intervals do not depend on batches or processes
    chosen = first_of_each(items)
    which = chosen.tolist()
    scores = score_captions([captions[i] for i in which], [references[i] for i in which])
    return caption_values(scores, videos[chosen]) | {"count": float(len(which))}


def caption_values(scores: dict[str, Scored], videos: Tensor) -> dict[str, float]:
    """Each score with the bounds of its interval; `videos` (n,) are keys."""
    values: dict[str, float] = {}
    for name, scored in scores.items():
        low, high = bootstrap_interval(group_sums(scored.statistics, videos), scored.score)
        values |= {name: scored.value, f"{name}_low": low, f"{name}_high": high}
    return values


def _cut(
    cut: Any, runs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[str]]]:
    """Each run's captions, and the references, as words, all of them cut in one call."""
    texts = [*runs, *references]
    words = iter(cut(list(chain.from_iterable(texts))))
    cut_apart = [list(islice(words, len(part))) for part in texts]
    return cut_apart[: len(runs)], cut_apart[len(runs) :]
