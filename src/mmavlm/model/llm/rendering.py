"""Conversations as token ids: where media stand among them, and which of them are learned."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby

from transformers import PreTrainedTokenizerBase

from mmavlm.core.chat_formats import CHAT_FORMATS
from mmavlm.core.errors import ConfigError
from mmavlm.core.turns import Line, Part, Role, Shown, Turn
from mmavlm.model.llm.answers import Answers
from mmavlm.model.llm.chat import (
    PROMPT_FIELD,
    VIDEO,
    VIDEO_FIELD,
    ChatTemplate,
    TurnTemplate,
    chat_template,
    plain_template,
)
from mmavlm.model.plain_text import PlainTokenizer
from mmavlm.model.text import cut

log = logging.getLogger(__name__)

END = "\ue0f4"  # of the private use area: the end of an answer where that is no control token
Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """Ids of a conversation.

    Media stand in front of the ids at the places `media_at`, in order. The ids of each span of
    `learned` (start, stop) are learned: a turn of the assistant with its end. `frames` says of each
    place which frames of its medium stand there (see `Shown`); empty: a medium stands at each.
    """

    ids: list[int]
    media_at: list[int]
    learned: list[Span]
    frames: Sequence[Span | None] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_views(self) -> int:
        """How many media stand there."""
        return len(self.media_at) - sum(bool(span and span[0]) for span in self.frames)


class Rendering:
    """Conversations → token ids of one language model; `answers` has the ids of answers.

    Media stand where turns show them. Those that a user's turn begins with stand in front of all
    that is written around it, or where a chat template or `{video}` in the prompt template puts
    them. With a chat template a conversation is one text, tokenised as one. Without it, as in the
    published models, prompts and answers are texts of their own.

    What users and the system say loses its beginning beyond `max_prompt_tokens`, which the first
    of them warns of; media are never cut, nor are the lines between their frames. What a template
    with a place for media writes around it does not count. All that is said is plain text, whatever
    control tokens it spells (`PlainTokenizer`); those of a template are control tokens.

    Raises:
        ConfigError: if a template cannot be used, a length is below 1, or the tokenizer has
            no end-of-text token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str,
        max_prompt_tokens: int,
        max_answer_tokens: int,
        continues: bool,
        chat: str | None = None,
    ) -> None:
        _refuse_what_cannot_be(template, min(max_prompt_tokens, max_answer_tokens))
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self._plain = PlainTokenizer(tokenizer, [VIDEO, END])
        self.num_rows = self._plain.num_rows  # that a table of token embeddings needs
        self._film, self._end = map(self._plain.named, (VIDEO, END))
        _refuse_chats_of_a_decoder(chat, continues)
        jinja = chat_template(chat, tokenizer)
        self._chat = None if jinja is None else ChatTemplate(tokenizer, jinja, template)
        self._known: dict[tuple[Role, ...], TurnTemplate] = {}
        if self._chat is None:
            self._known["user",] = self._named(plain_template(template))
        self._takes_films = self.chats or VIDEO_FIELD in template
        self.answers = Answers(
            tokenizer,
            self._plain,
            max_tokens=max_answer_tokens,
            continues=continues,
            around=self._around(["user"]) if self.chats else None,
        )
        self._told_of_cuts = False

    @property
    def chats(self) -> bool:
        """Whether there is a chat template."""
        return self._chat is not None

    @property
    def longest_prompt(self) -> int:
        """How many tokens a question about one film has at most, with the template around it."""
        around = len(self.turns([Turn("user", (Shown(),))])) if self._takes_films else 0
        return self.max_prompt_tokens + around

    def turns(self, turns: Sequence[Turn]) -> Rendered:
        """Ids of turns that stand in order (see `Conversation`).

        Raises:
            ConfigError: if the chat template cannot write such turns, or a text holds a character
                that stands for something else here.
        """
        found = self._as_one_text(turns) if self.chats else self._one_by_one(turns)
        frames = [part.frames for turn in turns for part in turn.parts if isinstance(part, Shown)]
        return replace(found, frames=frames) if any(frames) else found

    def _as_one_text(self, turns: Sequence[Turn]) -> Rendered:
        answers, asked, told = self.answers, list(turns), None
        if turns[-1].role == "assistant":
            told = asked.pop()
        text, seams, space = self._chat_text(asked)
        if told is not None and answers.continues:
            seams.append(len(text))
            text += space + self._plain.checked(told.text)
        ids, media_at, places = self._tokenised(text, seams)
        if told is not None:
            if answers.continues:
                ids += answers.end
            else:  # another text: the decoder's
                places.append(len(ids))
                ids += answers.ids(told.text)
            places.append(len(ids))
        return self._with_answers_cut(turns, ids, media_at, places)

    def _chat_text(self, turns: Sequence[Turn]) -> tuple[str, list[int], str]:
        """What is asked, where answers in it start and stop, and the space in front of the next."""
        around = self._around([turn.role for turn in turns])
        pieces = self._with_films(around.pieces, turns)
        text, seams = "", []
        for n, turn in enumerate(around.ordered(turns)):
            text += pieces[n]
            if turn.role != "assistant":
                text += self._said(turn)
                continue
            seams.append(len(text) - len(pieces[n]) + len(pieces[n].rstrip(" ")))
            end, pieces[n + 1] = self._ended(pieces[n + 1], turn.learned)
            text += self._plain.checked(turn.text) + end
            seams.append(len(text))
        return text + pieces[-1], seams, around.space

    def _ended(self, piece: str, learned: bool) -> tuple[str, str]:
        """The end of an answer, and the rest of what the template writes behind that.

        What is learned ends as it is generated: without spaces, and by a token in any case.
        """
        stripped, end = piece.lstrip(), self.answers.written_end
        if not stripped.startswith(end):
            return (self._end if learned else ""), piece
        spaces = "" if learned else piece[: len(piece) - len(stripped)]
        # Text has the same ids behind every answer, those at which generation stops.
        return spaces + (self._end if self.answers.stop else end), stripped[len(end) :]

    def _with_films(self, pieces: Sequence[str], turns: Sequence[Turn]) -> list[str]:
        """The pieces of a template with as many films in each place as the user's turn has."""
        counts = iter([_parts(turn)[0] for turn in turns if turn.role == "user"])
        film = re.compile(re.escape(self._film))
        return [film.sub(lambda _: next(counts) * self._film, piece) for piece in pieces]

    def _tokenised(self, text: str, seams: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
        """Ids of a text without its films, in front of which of them these and seams are."""
        found, places = self._plain.seamed(text, seams)
        film, end = (self._plain.mark_ids[mark] for mark in (VIDEO, END))
        written = {film: [], end: self.answers.end}
        pieces = [written.get(i, [i]) for i in found]
        starts = list(accumulate(map(len, pieces), initial=0))
        media_at = [starts[at] for at, i in enumerate(found) if i == film]
        return [*chain.from_iterable(pieces)], media_at, [starts[at] for at in places]

    def _with_answers_cut(
        self, turns: Sequence[Turn], ids: list[int], media_at: list[int], places: list[int]
    ) -> Rendered:
        """The same without what is too long of answers, which start and stop at `places`."""
        told = [turn for turn in turns if turn.role == "assistant"]
        learned, gone = [], 0
        for turn, start, stop in zip(told, places[::2], places[1::2], strict=True):
            most = min(stop - start, self.answers.max_tokens)
            over, start = stop - start - most, start - gone
            if over:
                media_at = [at - over if at > start else at for at in media_at]
                del ids[start + most : start + most + over]
                gone += over
            if turn.learned:
                learned.append((start, start + most))
        return Rendered(ids, media_at, learned)

    def _one_by_one(self, turns: Sequence[Turn]) -> Rendered:
        ids: list[int] = []
        media_at, learned = [], []
        for n, turn in enumerate(turns):
            start = len(ids)
            if turn.role == "assistant":
                ids += self.answers.ids(turn.text)
                learned += [(start, len(ids))] if turn.learned else []
                continue
            asked, places = self._asked(turn, first=n == 0)
            ids += asked
            media_at += [start + place for place in places]
        return Rendered(ids, media_at, learned)

    def _asked(self, turn: Turn, *, first: bool) -> tuple[list[int], list[int]]:
        """Ids of one turn as a text of its own, and where its media are."""
        front, end = self._plain.affixes
        front = front if first else []
        counted = turn.role == "system" or self._takes_films or _has_lines(turn)
        said = self._said(turn, whole=not counted)
        leading, before, behind = 0, "", ""
        if turn.role == "user":
            leading = 0 if self._takes_films else _parts(turn)[0]
            before, behind = self._with_films(self._known["user",].pieces, [turn])
            behind = behind.replace(PROMPT_FIELD, said.replace(self._film, ""))
        ids, media_at, _ = self._tokenised(before + said + behind, [])
        if counted:
            return [*front, *ids, *end], [0] * leading + [len(front) + at for at in media_at]
        room = max(0, self.max_prompt_tokens - len(front) - len(end))
        self._tell_of_cut(len(ids), room)
        over = max(0, len(ids) - room)
        places = [len(front) + max(0, at - over) for at in media_at]
        return [*front, *cut(ids, room, "left"), *end], [0] * leading + places

    def _said(self, turn: Turn, *, whole: bool = False) -> str:
        """What a turn says, with names for media, and unless `whole` without what is too long."""
        parts = _parts(turn)[1]
        for text in (part.text if isinstance(part, Line) else part or "" for part in parts):
            if self._takes_films and VIDEO in text:
                raise ConfigError(
                    f"the prompt {text!r} holds U+{ord(VIDEO):X}, which stands for the video "
                    "here; take it out"
                )
        if not whole:
            parts = self._cut(parts)
        return "".join(map(self._written, parts))

    def _written(self, part: str | Line | None) -> str:
        """A part of what is said; a line stands on a line of its own."""
        if part is None:
            return self._film
        if isinstance(part, Line):
            return f"\n{self._plain.checked(part.text)}\n"
        return self._plain.checked(part)

    def _cut(self, parts: list[str | Line | None]) -> list[str | Line | None]:
        """Texts without the beginning of them all, if they are too long; media and lines stay."""
        ids = [self._plain.ids(part) if isinstance(part, str) else [] for part in parts]
        tokens = sum(map(len, ids))
        if tokens <= self.max_prompt_tokens:
            return parts
        self._tell_of_cut(tokens, self.max_prompt_tokens)
        kept, room = list(parts), self.max_prompt_tokens
        for n in reversed(range(len(parts))):
            if len(ids[n]) > room:
                rest = self.tokenizer.decode(cut(ids[n], room, "left"))
                # A character of several bytes may have lost the first of them.
                kept[n] = str(rest).lstrip("\ufffd ")
            room = max(0, room - len(ids[n]))
        return kept

    def _tell_of_cut(self, tokens: int, room: int) -> None:
        """Warn of the first prompt that loses its beginning."""
        if tokens > room and not self._told_of_cuts:
            self._told_of_cuts = True
            log.warning(
                "a prompt of %d tokens loses its beginning, as will others: the language model "
                "reads the last %d; raise llm.max_prompt_tokens=%d to ask all of it",
                *(tokens, room, self.max_prompt_tokens),
            )

    def _around(self, roles: Sequence[Role]) -> TurnTemplate:
        """What the chat template writes around turns of these roles, with names."""
        key = tuple(roles)
        if key not in self._known and self._chat is not None:
            self._known[key] = self._named(self._chat.around(key))
        return self._known[key]

    def _named(self, around: TurnTemplate) -> TurnTemplate:
        named = self._plain.named
        return replace(around, pieces=tuple(map(named, around.pieces)), end=named(around.end))


def _parts(turn: Turn) -> tuple[int, list[str | Line | None]]:
    """How many entire media a user's turn begins with; what follows, with None for each medium."""
    leading, parts = 0, turn.parts
    if turn.role == "user":
        while leading < len(parts) and _is_entire(parts[leading]):
            leading += 1
    found: list[str | Line | None] = []
    for is_text, run in groupby(parts[leading:], key=lambda part: isinstance(part, str)):
        if is_text:
            found.append("".join(part for part in run if isinstance(part, str)))
        else:
            found += [part if isinstance(part, Line) else None for part in run]
    return leading, found


def _is_entire(part: Part) -> bool:
    return isinstance(part, Shown) and part.frames is None


def _has_lines(turn: Turn) -> bool:
    return any(isinstance(part, Line) for part in turn.parts)


def _refuse_what_cannot_be(template: str, shortest: int) -> None:
    if PROMPT_FIELD not in template:
        raise ConfigError(f"llm.prompt_template is {template!r}; it must hold {PROMPT_FIELD}")
    if shortest < 1:
        raise ConfigError(
            f"llm.max_prompt_tokens and llm.max_answer_tokens must be 1 or more, got {shortest}"
        )


def _refuse_chats_of_a_decoder(chat: str | None, continues: bool) -> None:
    if chat in CHAT_FORMATS and not continues:
        raise ConfigError(
            f"llm.chat_template={chat} is a format of causal language models, which go on from it, "
            "but this one is a sequence-to-sequence model; choose none"
        )
