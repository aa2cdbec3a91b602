"""Dense captions: what a model told of a film as it ran, beside true segments and captions."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmavlm.core.extras import needs_extra
from mmavlm.metrics import caption_statistics as coco
from mmavlm.metrics.caption_words import (
    INSTALL_JAVA,
    JavaError,
    java,
    library,
    plain_words,
    ptb_words,
)
from mmavlm.metrics.duet.films import Taken
from mmavlm.metrics.duet.watched import Event, EventTruth, Watched

log = logging.getLogger(__name__)

LEVELS = (0.3, 0.5, 0.7, 0.9)
COLUMNS = (
    "segment_precision", "segment_recall", "segment_f1", "dense_cider", "soda_c",
    "dense_cider_plain", "soda_rouge_l_plain",
)  # fmt: skip
BY_JAVA = ("dense_cider", "soda_c")
PLAIN = ("dense_cider_plain", "soda_rouge_l_plain")


def left_out() -> str | None:
    """What to install, where captions cannot be scored in all ways; None if they can."""
    if library() is None:
        return needs_extra("scoring captions", "pycocoevalcap", "captions")
    if java() is None:
        return (
            f"{' and '.join(BY_JAVA)} are left out, because there is no `java` command: "
            f"{INSTALL_JAVA}; {' and '.join(PLAIN)} need none, and are other numbers: words are "
            "cut in another way, and ROUGE-L stands for METEOR"
        )
    return None


def told_segments(film: Watched, truth: EventTruth) -> list[Event]:
    """The replies as captions of segments, in order.

    Equal replies in a row are one. A caption is of what lies between the reply before it and its
    own (last) time. The first one's segment begins where the model was asked, which published code
    leaves open and so loses that caption.
    """
    found: list[Event] = []
    for reply in film.replies:
        if found and found[-1].text == reply.text:
            found[-1] = Event(found[-1].start_s, reply.time_s, reply.text)
            continue
        asked = [q.time_s for q in film.queries or truth.queries if q.time_s <= reply.time_s]
        start_s = found[-1].end_s if found else (asked or [0.0])[-1]
        found.append(Event(start_s, reply.time_s, reply.text))
    return found


def segment_ious(told: Sequence[Event], true: Sequence[Event]) -> Tensor:
    """IoU (P,G) of P told and G true segments, float64; 0 where neither has a length."""
    starts, ends, true_starts, true_ends = (
        torch.tensor([getattr(event, bound) for event in events], dtype=torch.float64)
        for events in (told, true)
        for bound in ("start_s", "end_s")
    )
    inner = torch.minimum(ends[:, None], true_ends) - torch.maximum(starts[:, None], true_starts)
    both = inner.clamp(min=0)
    either = (ends - starts)[:, None] + (true_ends - true_starts) - both
    return torch.where(either > 0, both / either.clamp(min=1e-12), 0.0)


def found_shares(ious: Tensor) -> tuple[float, float, float]:
    """Precision, recall and F1 of segments from IoU (P,G), the first two means over `LEVELS`.

    At a level t, precision is the share of told segments with some IoU > t, and recall that of true
    ones (Krishna et al., arXiv 1705.00754); F1 is of the two means.
    """
    if not ious.numel():
        return 0.0, 0.0, 0.0
    levels = torch.tensor(LEVELS, dtype=ious.dtype)
    precision, recall = (
        float((ious.amax(dim=dim)[:, None] > levels).double().mean()) for dim in (1, 0)
    )
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


def dense_cider(ious: Tensor, told: Sequence[str], true: Sequence[str]) -> float:
    """CIDEr of a film's captions over `LEVELS`, from IoU (P,G) and words with spaces between.

    At a level t every pair with IoU ≥ t is an item, and a told caption without any is an item that
    scores 0. The weights of n-grams count in how many of the film's items they occur, so that a
    single item gives 0, as published. Published code compares a caption without any with random
    letters; they are an item more, and have no word in common, unless by chance.
    """
    values = []
    for level in LEVELS:
        pairs = (ious >= level).nonzero().tolist()
        alone = set(range(len(told))) - {i for i, _ in pairs}
        if not any(true[j].strip() for _, j in pairs):  # no n-gram to count
            values.append(0.0)
            continue
        captions = [told[i] for i, _ in pairs] + [told[i] for i in sorted(alone)]
        references = [[true[j]] for _, j in pairs] + [[""]] * len(alone)
        values.append(coco.cider(captions, references).value)
    return sum(values) / len(values)


def soda(values: Tensor) -> float:
    """SODA's F1 of a film from IoU · similarity (P,G) of its captions (Fujita et al., ECCV 2020).

    The best matching that keeps the order has sum Σ; precision is Σ/P, recall Σ/G.
    """
    told, true = values.shape
    best = torch.zeros(true + 1, dtype=values.dtype)
    for row in values:
        taken = torch.cat([best[:1], torch.maximum(best[1:], best[:-1] + row)])
        best = taken.cummax(dim=0).values
    return 2 * float(best[-1]) / (told + true) if told + true else 0.0


def caption_statistics(watched: Sequence[Watched | None], truths: Sequence[EventTruth]) -> Tensor:
    """What `COLUMNS` names (n,7) of n questions, nan where it cannot be had here (`left_out`).

    A question that was not watched (None) has 0. Java is started once, which takes ten seconds:
    give many questions at once. If it fails, the log tells of it.
    """
    films = [_Film.of(film, truth) for film, truth in zip(watched, truths, strict=True)]
    columns = {name: [math.nan] * len(films) for name in COLUMNS}
    shares = [found_shares(film.ious) for film in films]
    for column, name in enumerate(COLUMNS[:3]):
        columns[name] = [of_film[column] for of_film in shares]
    if library() is not None and films:
        columns["dense_cider_plain"], columns["soda_rouge_l_plain"] = _scored(films, plain=True)
        if java() is not None:
            try:
                columns["dense_cider"], columns["soda_c"] = _scored(films, plain=False)
            except JavaError as error:
                log.warning("%s are left out: Java failed: %s", " and ".join(BY_JAVA), error)
    return torch.tensor([columns[name] for name in COLUMNS], dtype=torch.float64).T


def caption_scores(taken: Taken) -> dict[str, float]:
    """Means over questions, from `caption_statistics`, with 95 % bootstrap intervals over films.

    `segment_precision`, `segment_recall`, `segment_f1` are `found_shares`; `dense_cider` (words cut
    by COCO's tokenizer) and `soda_c` (METEOR) need Java; `dense_cider_plain` and
    `soda_rouge_l_plain`, of words cut in Python and with ROUGE-L for METEOR, are other numbers that
    compare with no published ones. What a question does not have is left out.
    """
    values: dict[str, float] = {}
    for column, name in enumerate(COLUMNS):
        if not taken.statistics[:, column].isnan().any():
            values |= taken.mean(name, column)
    return values | taken.counts


@dataclass(frozen=True)
class _Film:
    """Told and true captions of a film, and the IoU (P,G) of their segments."""

    told: list[str]
    true: list[str]
    ious: Tensor

    @classmethod
    def of(cls, film: Watched | None, truth: EventTruth) -> _Film:
        told = told_segments(film, truth) if film else []
        texts, true = ([event.text for event in events] for events in (told, truth.events))
        return cls(texts, true, segment_ious(told, truth.events))


def _scored(films: Sequence[_Film], *, plain: bool) -> tuple[list[float], list[float]]:
    """CIDEr and SODA of each film.

    Raises:
        JavaError: if Java fails, unless `plain`.
    """
    texts = dict.fromkeys(text for film in films for text in (*film.told, *film.true))
    cut = plain_words if plain else ptb_words
    words = dict(zip(texts, cut(list(texts)), strict=True))
    cut_films = [
        _Film([words[text] for text in film.told], [words[text] for text in film.true], film.ious)
        for film in films
    ]
    alike = _similarities(cut_films, plain=plain)
    ciders = [dense_cider(film.ious, film.told, film.true) for film in cut_films]
    sodas = [
        soda(film.ious * torch.tensor(
            [[alike.get((told, true), 0.0) for true in film.true] for told in film.told],
            dtype=torch.float64,
        ).view_as(film.ious))
        for film in cut_films
    ]  # fmt: skip
    return ciders, sodas


def _similarities(films: Sequence[_Film], *, plain: bool) -> dict[tuple[str, str], float]:
    """METEOR, or with `plain` ROUGE-L, of all pairs whose segments meet and that have words."""
    pairs = list(dict.fromkeys(
        (film.told[i], film.true[j])
        for film in films
        for i, j in film.ious.nonzero().tolist()
        if film.told[i].strip() and film.true[j].strip()
    ))  # fmt: skip
    if not pairs:
        return {}
    captions, references = [told for told, _ in pairs], [[true] for _, true in pairs]
    if plain:
        values = coco.rouge_l(captions, references).statistics[:, 0]
    else:
        (scored,) = coco.meteor([captions], references)
        values = coco.meteor_of_sums(scored.statistics)
    return dict(zip(pairs, values.tolist(), strict=True))
