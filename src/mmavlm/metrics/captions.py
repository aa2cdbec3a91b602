"""CIDEr, METEOR, BLEU-4 and ROUGE-L of generated captions, with bootstrap intervals."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from mmavlm.errors import ConfigError
from mmavlm.extras import needs_extra
from mmavlm.hashing import string_keys
from mmavlm.metrics import caption_statistics as coco
from mmavlm.metrics.caption_statistics import Scored
from mmavlm.metrics.caption_words import JavaError, java, library, plain_words, ptb_words
from mmavlm.metrics.intervals import bootstrap_interval
from mmavlm.metrics.resampling import group_sums
from mmavlm.metrics.rows import RowMetric, check_lengths, first_of_each

log = logging.getLogger(__name__)

PLAIN = {"cider_plain": coco.cider, "bleu4_plain": coco.bleu4, "rouge_l_plain": coco.rouge_l}
BY_JAVA = {"cider": coco.cider, "meteor": coco.meteor, "bleu4": coco.bleu4, "rouge_l": coco.rouge_l}
CHOOSING = "cider_plain"  # the score that is there with and without Java
INSTALL_JAVA = "install Java 8 or newer (such as apt install default-jre-headless)"

ITEM, VIDEO, LENGTH = range(3)  # columns of a row


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
    """The scores by name of n captions, beside all references of each.

    `cider`, `meteor`, `bleu4` and `rouge_l` are those of COCO's evaluation and need Java; those
    whose name ends in `_plain` are of words cut apart without it. What cannot be computed is left
    out; of Java's failures the log tells.
    """
    if library() is None or len(captions) == 0:
        return {}
    words = _cut(plain_words, captions, references)
    scores = {name: score(*words) for name, score in PLAIN.items()}
    if java() is None:
        return scores
    try:
        by_java = _cut(ptb_words, captions, references)
        # usually the same words, and counting the n-grams of thousands of captions takes a while
        known = scores if by_java == words else {}
        return {
            name: known.get(f"{name}_plain") or score(*by_java) for name, score in BY_JAVA.items()
        } | scores
    except JavaError as error:
        log.warning("%s are left out, because Java failed: %s", ", ".join(BY_JAVA), error)
        return scores


class CaptionScores(RowMetric):
    """CIDEr, METEOR, BLEU-4 and ROUGE-L over all captions seen by all processes.

    `compute` gives the scores of `score_captions` as floats, `<name>_low` and `<name>_high`, the
    bounds of the 95 % bootstrap interval over videos, and `count`. An item seen twice counts once.
    """

    texts: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(columns=3, **kwargs)
        self.add_state("texts", default=[], dist_reduce_fx="cat")

    def update(
        self,
        item_ids: Sequence[str],
        video_ids: Sequence[str],
        captions: Sequence[str],
        references: Sequence[Sequence[str]],
    ) -> None:
        """Take n items: their ids, their videos', the captions generated, all references."""
        check_lengths(
            "CaptionScores", item_ids=item_ids, video_ids=video_ids, captions=captions,
            references=references,
        )  # fmt: skip
        coded = [
            json.dumps([caption, list(texts)]).encode()
            for caption, texts in zip(captions, references, strict=True)
        ]
        lengths = torch.tensor([len(text) for text in coded], dtype=torch.int64)
        rows = torch.stack([string_keys(item_ids), string_keys(video_ids), lengths], dim=1)
        self.rows.append(rows.to(self.device))
        self.texts.append(torch.tensor(list(b"".join(coded)), dtype=torch.uint8).to(self.device))

    def compute(self) -> dict[str, float]:
        """Scores, bounds and count by name; the first process scores, the others wait for it."""
        if not self._is_synced:
            return self._scores()
        result: list[Any] = [None]
        if torch.distributed.get_rank() == 0:
            result = [_caught(self._scores)]
        torch.distributed.broadcast_object_list(result)
        if isinstance(result[0], Exception):
            raise result[0]
        return result[0]

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows and texts of all processes."""
        if isinstance(self.texts, list) and not self.texts:
            self.texts.append(torch.empty(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **kwargs)

    def _scores(self) -> dict[str, float]:
        rows = self.all_rows().cpu()
        if len(rows) == 0:
            return {"count": 0.0}
        coded = dim_zero_cat(self.texts).cpu().numpy().tobytes()
        ends = list(accumulate(rows[:, LENGTH].tolist()))
        # sorted by item, so that intervals do not depend on batches or processes
        chosen = first_of_each(rows[:, ITEM])
        starts = [0, *ends[:-1]]
        items = [json.loads(coded[starts[i] : ends[i]]) for i in chosen.tolist()]
        scores = score_captions([caption for caption, _ in items], [texts for _, texts in items])
        return caption_values(scores, rows[chosen, VIDEO]) | {"count": float(len(items))}


def caption_values(scores: dict[str, Scored], videos: Tensor) -> dict[str, float]:
    """Each score with the bounds of its interval; `videos` (n,) are keys."""
    values: dict[str, float] = {}
    for name, scored in scores.items():
        low, high = bootstrap_interval(group_sums(scored.statistics, videos), scored.score)
        values |= {name: scored.value, f"{name}_low": low, f"{name}_high": high}
    return values


def _cut(
    cut: Any, captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Captions and references as words, all of them cut in one call."""
    words = iter(cut([*captions, *(text for texts in references for text in texts)]))
    return [next(words) for _ in captions], [[next(words) for _ in texts] for texts in references]


def _caught(task: Any) -> Any:
    """What a task returns or raises: the other processes must not wait for what never comes."""
    try:
        return task()
    except Exception as error:
        return error
