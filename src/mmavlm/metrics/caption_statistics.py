"""What each caption brings to CIDEr, METEOR, BLEU-4 and ROUGE-L, and the scores of their sums.

The counting is COCO's own code (pycocoevalcap); the scores of sums are its formulas again, because
intervals and tests need them for thousands of sums. Statistics are (n,S), sums (…,S) → scores (…).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmavlm.metrics.caption_words import JavaError, run_jar
from mmavlm.metrics.resampling import Score, mean, with_count

METEOR_JAR = "meteor/meteor-1.5.jar"
METEOR_COLUMNS = 23
ORDERS = 4  # n-grams of 1 to 4 words
TINY, SMALL = 1e-15, 1e-9  # of COCO's BLEU, against division by zero


@dataclass(frozen=True)
class Scored:
    """A score of n captions: what each brings, (n,S), and the function of the sums."""

    statistics: Tensor
    score: Score

    @property
    def value(self) -> float:
        """The score of all captions."""
        return float(self.score(self.statistics.sum(dim=0)))


def cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scored:
    """CIDEr-D (Vedantam et al., 2015): mean over captions; weights of n-grams from `references`.

    The weights count in how many of the items an n-gram occurs; of a single item all are 0.
    """
    from pycocoevalcap.cider.cider import Cider

    _, each = Cider().compute_score(*_by_number(captions, references))
    return Scored(with_count(torch.as_tensor(each)), mean)


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scored:
    """ROUGE-L, β = 1.2, best precision and best recall over references; mean over captions."""
    from pycocoevalcap.rouge.rouge import Rouge

    _, each = Rouge().compute_score(*_by_number(captions, references))
    return Scored(with_count(torch.as_tensor(each)), mean)


def bleu4(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Scored:
    """BLEU-4 of the corpus (Papineni et al., 2002), with the closest reference's length."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    counted = [
        cook_test(caption, cook_refs(texts, n=ORDERS), eff="closest", n=ORDERS)
        for caption, texts in zip(captions, references, strict=True)
    ]
    rows = [[*c["correct"], *c["guess"], c["testlen"], c["reflen"]] for c in counted]
    return Scored(torch.tensor(rows, dtype=torch.float64).view(-1, 2 * ORDERS + 2), bleu_of_sums)


def bleu_of_sums(sums: Tensor) -> Tensor:
    """BLEU-4 from summed counts: n-grams found and given (4 and 4), words given and wanted."""
    found, given = sums[..., :ORDERS], sums[..., ORDERS : 2 * ORDERS]
    precision = ((found + TINY) / (given + SMALL)).log().mean(dim=-1).exp()
    ratio = (sums[..., -2] + TINY) / (sums[..., -1] + SMALL)
    return precision * (1 - 1 / ratio).clamp(max=0).exp()


def meteor(runs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[Scored]:
    """METEOR 1.5 of each run (Denkowski and Lavie, 2014), English, normalised; needs Java.

    Java scores all runs in one call, since most of its time is its start.

    Raises:
        JavaError: if Java fails.
    """
    lines = [
        " ||| ".join(["SCORE", *(text.replace("|||", "") for text in (*texts, caption))])
        for captions in runs
        for caption, texts in zip(captions, references, strict=True)
    ]
    answers = run_jar(["-jar", METEOR_JAR], lines, ["-", "-", "-stdio", "-l", "en", "-norm"])
    try:
        rows = [[float(number) for number in answer.split()] for answer in answers]
    except ValueError as error:
        raise JavaError(f"METEOR answered with no numbers: {error}") from error
    if any(len(row) != METEOR_COLUMNS for row in rows):
        raise JavaError(f"METEOR must answer with {METEOR_COLUMNS} numbers for each caption")
    statistics = torch.tensor(rows, dtype=torch.float64).view(-1, METEOR_COLUMNS)
    length, wanted, chunks, matched, matched_wanted = statistics[:, [0, 1, 20, 21, 22]].unbind(1)
    # a caption that is its reference word for word is not charged with its one chunk
    perfect = (matched == length) & (matched_wanted == wanted) & (chunks == 1)
    statistics[perfect, 20] = 0
    return [Scored(part, meteor_of_sums) for part in statistics.chunk(len(runs))]


def meteor_of_sums(sums: Tensor) -> Tensor:
    """METEOR from summed counts, with the parameters for English (α .85, β .2, γ .6, δ .75).

    Columns: words of caption and reference, function words of both; for each of exact, stem,
    synonym and paraphrase matches the content words of caption and reference, then their function
    words; chunks; matched words of caption and reference.
    """
    alpha, beta, gamma, delta = 0.85, 0.2, 0.6, 0.75
    kinds = sums.new_tensor([1.0, 0.6, 0.8, 0.6])
    matches = sums[..., 4:20].unflatten(-1, (4, 2, 2))  # (…, kind, content or function, side)
    weighted = delta * matches[..., 0, :] + (1 - delta) * matches[..., 1, :]
    words, function_words = sums[..., 0:2], sums[..., 2:4]
    length = delta * (words - function_words) + (1 - delta) * function_words
    precision, recall = _ratio((weighted * kinds[:, None]).sum(dim=-2), length).unbind(-1)
    f_mean = _ratio(precision * recall, alpha * precision + (1 - alpha) * recall)
    fragmentation = _ratio(sums[..., 20], sums[..., 21:23].mean(dim=-1))
    return f_mean * (1 - gamma * fragmentation**beta)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 where there is nothing."""
    return torch.where(whole > 0, part / whole.clamp(min=TINY), 0.0)


def _by_number(
    captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and captions as the library takes them."""
    wanted = {number: list(texts) for number, texts in enumerate(references)}
    return wanted, {number: [caption] for number, caption in enumerate(captions)}
