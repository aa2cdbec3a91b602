"""How the rows of a batch are answered: by generating, by ranking what there is to choose from."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from torch import Tensor

from mmavlm.core.batch import Batch
from mmavlm.core.contrast import Against
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import Answer, LanguageModel, MediaTokens
from mmavlm.model.token_tables import rows_named

log = logging.getLogger(__name__)

AnswerBy = Literal["both", "generate", "rank"]


@dataclass
class Answered:
    """What a row was answered: generated answers and ranked candidates, best first.

    `said` is what was generated word by word, where `generated` are the options it names.
    """

    generated: list[Answer] = field(default_factory=list)
    ranked: list[Answer] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def check_answer_by(by: str, *, generate_in_validation: bool) -> AnswerBy:
    """The way to answer, if there is such a one.

    Raises:
        ConfigError: if there is none, or validation is to rank and nothing is ever ranked.
    """
    if by not in get_args(AnswerBy):
        known = ", ".join(get_args(AnswerBy))
        raise ConfigError(f"stage.answer_by={by!r} is unknown; choose one of {known}")
    if by == "generate" and not generate_in_validation:
        raise ConfigError(
            "stage.generate_in_validation=false validates by ranking, which "
            "stage.answer_by=generate excludes; choose answer_by=both, or leave out "
            "generate_in_validation"
        )
    return by  # type: ignore[return-value]  # just checked


def longest_answer(
    llm: LanguageModel, classes: Mapping[str, Sequence[str]], max_new_tokens: int, *, fit: bool
) -> int:
    """So many new tokens, or as many as the longest class name takes if classes are to `fit`."""
    lengths = {name: llm.answer_length(name) for names in classes.values() for name in names}
    longest = max(lengths, key=lengths.__getitem__, default=None)
    if longest is None or lengths[longest] <= max_new_tokens:
        return max_new_tokens
    if fit:
        log.info(
            "stage.max_new_tokens raised from %d to %d: the class %r needs that many",
            max_new_tokens,
            lengths[longest],
            longest,
        )
        return lengths[longest]
    if (tokens := lengths[longest] - 1) > max_new_tokens:  # a last token may be its end's
        log.warning(
            "stage.max_new_tokens=%d cuts generated answers: the class %r takes %d tokens; "
            "set stage.fit_classes=true to generate it in full",
            max_new_tokens,
            longest,
            tokens,
        )
    return max_new_tokens


def answer_batch(
    llm: LanguageModel,
    media: MediaTokens,
    batch: Batch,
    classes: Mapping[str, Sequence[str]],
    by: AnswerBy,
    generation: Generation,
    *,
    rank_with_eos: bool = True,
    against: Against | None = None,
) -> list[Answered]:
    """The answers to the conversations of a batch, given the tokens of what they show.

    One chooses among the options its question brings, else among the classes of its task. Those
    with nothing to choose from are generated whatever `by` says; `rank_with_eos` and `against` are
    those of `LanguageModel.rank`. A generated answer becomes the option it names, or nothing.

    Raises:
        TooLongError: naming an item for which the LLM has too few positions.
    """
    answered = [Answered() for _ in range(len(batch))]
    together: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row in range(len(batch)):
        together[candidates(batch, row, classes)].append(row)
    free = [row for c, rows in together.items() if by != "rank" or not c for row in rows]
    if free:
        with rows_named([batch.item_id[row] for row in free]):
            other = None if against is None else against.rows(free)
            found = llm.generate(asked(batch, free), media.rows(free), generation, against=other)
        for row, answers in zip(free, found, strict=True):
            answered[row] = _chosen(batch, row, answers)
    for texts, rows in together.items():
        if by == "generate" or not texts:
            continue
        with rows_named([batch.item_id[row] for row in rows]):
            other = None if against is None else against.rows(rows)
            scores = llm.rank(
                asked(batch, rows),
                media.rows(rows),
                texts,
                with_eos=rank_with_eos,
                against=other,
            )
        for row, best_first in zip(rows, _sorted(texts, scores), strict=True):
            answered[row].ranked = best_first
    return answered


def candidates(batch: Batch, row: int, classes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What a row may be answered: its options, or the classes of its task, or nothing."""
    options = batch.options[row] if batch.options else None
    return options.answers if options else tuple(classes.get(batch.task[row], ()))


def asked(batch: Batch, rows: Sequence[int]) -> list[Conversation]:
    """Some conversations of a batch up to what they ask last."""
    return [batch.conversations[row].asked for row in rows]


def _chosen(batch: Batch, row: int, answers: list[Answer]) -> Answered:
    options = batch.options[row] if batch.options else None
    if options is None:
        return Answered(answers)
    named = [replace(answer, text=options.choose(answer.text)) for answer in answers]
    return Answered(named, said=[answer.text for answer in answers])


def _sorted(texts: Sequence[str], scores: Tensor) -> list[list[Answer]]:
    """Candidates by descending log-probability, for each row of scores (B,C)."""
    values, order = scores.sort(dim=1, descending=True)
    return [
        [Answer(texts[c], value) for c, value in zip(row, row_values, strict=True)]
        for row, row_values in zip(order.tolist(), values.tolist(), strict=True)
    ]
