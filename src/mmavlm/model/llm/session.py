"""A language model in mid-conversation, and what it answers there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from mmavlm.core.contrast import Contrast
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import Answer, MediaTokens
from mmavlm.core.turns import Turn, check_order
from mmavlm.model.llm.contrasted import Other, contrasted, search_against
from mmavlm.model.llm.heard import Heard
from mmavlm.model.llm.layout import Asked, Candidates, Search, joined, real_counts, summed
from mmavlm.model.llm.repetition import RepetitionPenalty
from mmavlm.model.text import padded

if TYPE_CHECKING:
    from mmavlm.model.llm.prompted import PromptedLanguageModel


@torch.no_grad()
def best_answers(
    llm: PromptedLanguageModel,
    asked: Asked,
    generation: Generation,
    past: Any = None,
    streamer: Heard | None = None,
    other: Other | None = None,
) -> list[list[Answer]]:
    """The best answers to each row that is asked, best first, with the `other` view taken off."""
    search = search_for(llm, generation)
    with llm.in_eval_mode():
        less = _read(llm, other)
        if other is not None:
            steps = None if other.asked is None else llm.layout.steps(other.asked, less)
            search = search_against(search, other.contrast, steps, len(asked.rows))
        read = None if past is None else llm.layout.read(asked, past)
        with _drawing(generation, asked.device):
            generated = llm.layout.generate(asked, search, past, streamer)
        found = [llm.answers.until_end(ids) for ids in generated.tolist()]
        each = generation.num_answers
        read = read or llm.layout.read(asked)
        scores = _scores(llm, asked, read, found, each, other, less)
    pairs = zip(found, scores.flatten().tolist(), strict=True)
    ends = llm.answers
    told = [Answer(ends.decode(ids), score, cut=not ends.ended(ids)) for ids, score in pairs]
    return [told[i : i + each] for i in range(0, len(told), each)]


def search_for(llm: PromptedLanguageModel, generation: Generation) -> Search:
    """How transformers finds answers of this model.

    Raises:
        ConfigError: if an answer is to be of some length, but its end is no token.
    """
    ends = llm.answers
    if ends.stop and generation.min_new_tokens:
        raise ConfigError(
            f"min_new_tokens={generation.min_new_tokens}: answers of this chat format end with the "
            f"text {ends.stop!r}, which cannot be held back; set stage.min_new_tokens=0"
        )
    config = GenerationConfig(
        do_sample=generation.temperature > 0,
        **_sampling(generation),
        num_beams=generation.num_beams,
        num_return_sequences=generation.num_answers,
        min_new_tokens=generation.min_new_tokens or None,
        max_new_tokens=generation.max_new_tokens,
        length_penalty=float(generation.length_penalty) if generation.num_beams > 1 else None,
        bos_token_id=ends.tokenizer.bos_token_id,
        eos_token_id=ends.end_ids,
        pad_token_id=ends.pad_id,
        decoder_start_token_id=getattr(llm.model.config, "decoder_start_token_id", None),
    )
    processors = LogitsProcessorList()
    if generation.repetition_penalty != 1:
        processors.append(_penalty(llm, generation))
    return Search(config, processors, ends.stopping)


@torch.no_grad()
def ranking(
    llm: PromptedLanguageModel,
    asked: Asked,
    candidates: list[list[int]],
    past: Any = None,
    other: Other | None = None,
) -> Tensor:
    """Log-probability (B,N) of each candidate as the answer to each row that is asked.

    The `other` view is taken off (see `contrasted`).
    """
    with llm.in_eval_mode():
        read, less = llm.layout.read(asked, past), _read(llm, other)
        return _scores(llm, asked, read, candidates, None, other, less)


@dataclass(frozen=True)
class Mark:
    """A point of a conversation to which its session can return: what was said, shown and read.

    `other` is the same point of the other view, where there is one.
    """

    turns: tuple[Turn, ...] = ()
    views: tuple[int, ...] = ()
    read: int = 0
    other: Mark | None = None


class Session:
    """One conversation with a language model, turn by turn.

    What was read stays in the model's cache, so that a question pays for its own tokens. (A
    sequence-to-sequence model encodes all again.) Answers are those of the stateless `generate` and
    `rank` for the same conversation. They leave no trace: append the one that is to stay.

    With `contrast` they are decoded against another view, which is a session of its own.
    """

    def __init__(self, llm: PromptedLanguageModel, contrast: Contrast | None = None) -> None:
        self._llm = llm
        self._contrast = contrast
        two = contrast is not None and contrast.view is not None
        self._other = Session(llm) if two else None
        self._at = Mark()
        self._seen: dict[int, MediaTokens] = {}  # of each view
        self._numbers = count(1)
        self._past = llm.layout.past(llm.model)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All that was said so far."""
        return self._at.turns

    def append(
        self, *turns: Turn, media: MediaTokens | None = None, other: MediaTokens | None = None
    ) -> None:
        """Go on with these turns, and the tokens of what they show, view after view.

        `other` are those of the other view, in which without them nothing is shown.

        Raises:
            DataError: if turns are out of order.
            ValueError: if there are more or fewer views than places in the turns.
        """
        said = (*self._at.turns, *turns)
        check_order(said)
        shown = sum(len(turn.shows) for turn in turns)
        seen = MediaTokens(torch.zeros(0, 0, self._llm.width), [0]) if media is None else media
        if shown != len(seen.tokens):
            raise ValueError(
                f"the turns show media at {shown} places, but there are tokens of "
                f"{len(seen.tokens)} views; give a view for each place"
            )
        lengths = real_counts(seen.tokens, seen.mask)
        numbers = [next(self._numbers) for _ in lengths]
        for row, (number, length) in enumerate(zip(numbers, lengths, strict=True)):
            one = seen.chosen([row], [1])
            self._seen[number] = replace(one, tokens=one.tokens[:, :length], mask=None)
        if self._other is not None:
            shown_there = other is not None and len(other.tokens) > 0
            same = turns if shown_there else [turn.without_media for turn in turns]
            self._other.append(*same, media=other if shown_there else None)
        self._at = Mark(said, (*self._at.views, *numbers))

    def reply(
        self,
        generation: Generation | None = None,
        heard: Callable[[str], None] | None = None,
    ) -> Answer:
        """The best answer to the last turn, which is the user's.

        `heard` is called with the text so far whenever there is more of it.

        Raises:
            ConfigError: if an answer is to be heard while beams still compete for it.
            DataError: if the last turn is not the user's.
            TooLongError: if the conversation needs more positions than the model has.
        """
        generation = generation or Generation()
        if heard is not None and generation.num_beams > 1:
            raise ConfigError(
                f"num_beams={generation.num_beams}: which beam is the answer shows at its end "
                "alone; set num_beams=1 to hear it word by word"
            )
        asked = self._asked(generation.max_new_tokens)
        streamer = None if heard is None else Heard(self._llm.answers, heard)
        other = self._against(generation.max_new_tokens)
        return best_answers(self._llm, asked, generation, self._past, streamer, other)[0][0]

    def rank(self, candidates: Sequence[str], *, with_eos: bool = True) -> Tensor:
        """Log-probability (N,) of every candidate as the answer, with its eos or without.

        Raises:
            ConfigError: if there are no candidates, or one has neither text nor end.
            DataError: if the last turn is not the user's.
            TooLongError: if the conversation needs more positions than the model has.
        """
        ids = self._llm.answers.candidates(candidates, with_eos)
        longest = max(map(len, ids))
        asked, other = self._asked(longest), self._against(longest)
        return ranking(self._llm, asked, ids, self._past, other)[0]

    def mark(self) -> Mark:
        """The present point, to which `back` returns."""
        read = 0 if self._past is None else len(self._past.names)
        other = None if self._other is None else self._other.mark()
        return replace(self._at, read=read, other=other)

    def back(self, mark: Mark) -> None:
        """Forget all that was said behind a mark.

        Raises:
            ValueError: if the mark is not on the way to the present point.
        """
        turns, views = len(mark.turns), len(mark.views)
        if (mark.turns, mark.views) != (self._at.turns[:turns], self._at.views[:views]):
            raise ValueError("the session has left the point of this mark; take a new one")
        if self._other is not None:
            self._other.back(mark.other or Mark())
        self._at = mark
        self._seen = {number: self._seen[number] for number in mark.views}
        if self._past is not None:
            self._past.crop(mark.read)

    def _against(self, longest: int) -> Other | None:
        """The same asked of the other view."""
        if self._contrast is None:
            return None
        if self._other is None:
            return Other(None, self._contrast)
        return Other(self._other._asked(longest), self._contrast, self._other._past)

    def _asked(self, longest: int) -> Asked:
        """What is asked now, if there are positions for it and an answer of so many tokens."""
        if not self.turns or self.turns[-1].role != "user":
            raise DataError("nothing is asked; append a turn of the user first")
        row = self._llm.rendering.asked(self.turns)
        device = self._llm.model.device
        media = MediaTokens(torch.zeros(0, 0, self._llm.width, device=device), [0])
        if self._at.views:
            media = joined([self._seen[number] for number in self._at.views])
        asked = self._llm.asked([row], media, [longest])
        if self._past is not None:
            self._past.expect(self._named(asked))
        return asked

    def _named(self, asked: Asked) -> list[int]:
        """A name for each token of a row: a text's is its id, a view's its number below zero."""
        ids, names, since = asked.rows[0].ids, [], 0
        for at, view, start, stop in asked.pieces[0]:
            names += [*ids[since:at], *[-self._at.views[view]] * (stop - start)]
            since = at
        return [*names, *ids[since:]]


def _sampling(generation: Generation) -> dict[str, float]:
    """Of the scores behind all penalties; without `top_k`, transformers would take the first 50."""
    if not generation.temperature:
        return {}
    return {
        "temperature": float(generation.temperature),
        "top_p": float(generation.top_p),
        "top_k": 0,
    }


@contextmanager
def _drawing(generation: Generation, device: torch.device) -> Iterator[None]:
    """Draws that depend on the seed alone, and change no others."""
    if not generation.temperature:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generation.seed)
        yield


def _penalty(llm: PromptedLanguageModel, generation: Generation) -> RepetitionPenalty:
    """Not in the config: there transformers takes a row's padding for a part of its answer."""
    config, bos_id = llm.model.config, llm.answers.tokenizer.bos_token_id
    if config.is_encoder_decoder:
        bos_id = config.decoder_start_token_id
    return RepetitionPenalty(
        float(generation.repetition_penalty),
        skipped=int(config.is_encoder_decoder),
        bos_id=bos_id if generation.penalize_bos else None,
    )


def _read(llm: PromptedLanguageModel, other: Other | None) -> Any:
    """What the model makes of the other view before it answers; None where there is none."""
    if other is None or other.asked is None:
        return None
    return llm.layout.read(other.asked, other.past)


def _scores(
    llm: PromptedLanguageModel,
    asked: Asked,
    read: Any,
    found: list[list[int]],
    per_row: int | None,
    other: Other | None,
    less_read: Any,
) -> Tensor:
    """Scores (B,C) of answers: `per_row` own ones of each row, or the same for all rows.

    `read` and `less_read` are what was read of `asked` and of the other view.
    """
    ids, mask = padded(found, asked.device)
    shape = (len(asked.rows), per_row or len(found), ids.shape[1])
    ids, mask = (t.view(shape) if per_row else t.expand(shape) for t in (ids, mask))
    candidates = Candidates(ids, mask, llm.rank_chunk)
    seen = llm.layout.stretches(asked, read, candidates)
    if other is None:
        return summed(candidates, seen)
    less = None
    if other.asked is not None:
        less = llm.layout.stretches(other.asked, less_read, candidates)
    return contrasted(candidates, seen, less, other.contrast)
