"""Conversations as token ids: where media stand among them, and which of them are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from mmavlm.core.chat_formats import CHAT_FORMATS
from mmavlm.core.errors import ConfigError
from mmavlm.core.turns import Role, Shown, Turn
from mmavlm.model.llm.answers import Answers
from mmavlm.model.llm.around_turns import AroundTurns
from mmavlm.model.llm.chat import (
    PROMPT_FIELD,
    VIDEO,
    VIDEO_FIELD,
    ChatTemplate,
    TurnTemplate,
    chat_template,
    plain_template,
)
from mmavlm.model.llm.said import END, Said, has_lines, parts_of
from mmavlm.model.llm.turn_by_turn import StreamTimes, TurnByTurn, joined_turns
from mmavlm.model.plain_text import PlainTokenizer
from mmavlm.model.text import cut

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
    `stream_times` writes when frames are in front of the first of each stream ("turn"), or of each
    ("frame").

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
        stream_times: StreamTimes | None = None,
    ) -> None:
        _refuse_what_cannot_be(template, min(max_prompt_tokens, max_answer_tokens))
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self._stream_times = stream_times
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
        self.said = Said(
            self._plain,
            self.answers,
            max_tokens=max_prompt_tokens,
            takes_films=self._takes_films,
        )

    @property
    def chats(self) -> bool:
        """Whether there is a chat template."""
        return self._chat is not None

    @cached_property
    def turn_by_turn(self) -> TurnByTurn:
        """The same turn by turn, for conversations in which a film runs.

        Raises:
            ConfigError: if the chat template does not write turns one by one.
        """
        around = None
        if self._chat is not None:
            named, found = self._plain.named, self._chat.one_by_one()
            around = AroundTurns(
                *(
                    {role: named(text) for role, text in texts.items()}
                    for texts in (found.opening, found.closing, found.front)
                )
            )
        return TurnByTurn(
            self._plain, self.said, self.answers, self._asked, around, self._stream_times
        )

    @property
    def longest_prompt(self) -> int:
        """How many tokens a question about one film has at most, with the template around it."""
        around = len(self.turns([Turn("user", (Shown(),))])) if self._takes_films else 0
        return self.max_prompt_tokens + around

    def turns(self, turns: Sequence[Turn], *, latest: bool = False) -> Rendered:
        """Ids of turns that stand in order (see `Conversation`).

        `latest`: of the looks of a stream the newest stands for those before it.

        Raises:
            ConfigError: if the chat template cannot write such turns, a text holds a character
                that stands for something else here, or the time of a frame is not known.
        """
        if any(turn.role == "stream" for turn in turns):
            found = Rendered(*joined_turns(self.turn_by_turn, turns, latest=latest))
            return found if any(found.frames) else replace(found, frames=())
        found = self._as_one_text(turns) if self.chats else self._one_by_one(turns)
        frames = [part.frames for turn in turns for part in turn.parts if isinstance(part, Shown)]
        return replace(found, frames=frames) if any(frames) else found

    def asked(self, turns: Sequence[Turn], *, latest: bool = False) -> Rendered:
        """Ids of turns behind which the assistant is to answer.

        Raises:
            ConfigError: as `turns`.
        """
        found = self.turns(turns, latest=latest)
        if any(turn.role == "stream" for turn in turns):
            found = replace(found, ids=[*found.ids, *self.turn_by_turn.opening("assistant")])
        return found

    def _as_one_text(self, turns: Sequence[Turn]) -> Rendered:
        answers, asked, told = self.answers, list(turns), None
        if turns[-1].role == "assistant":
            told = asked.pop()
        text, seams, space = self._chat_text(asked)
        if told is not None and answers.continues:
            seams.append(len(text))
            text += space + self._plain.checked(told.text)
        ids, media_at, places = self.said.tokenised(text, seams)
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
        pieces = self.said.with_films(around.pieces, turns)
        text, seams = "", []
        for n, turn in enumerate(around.ordered(turns)):
            text += pieces[n]
            if turn.role != "assistant":
                text += self.said.text(turn)
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
            asked, places = self._asked(turn, n == 0)
            ids += asked
            media_at += [start + place for place in places]
        return Rendered(ids, media_at, learned)

    def _asked(self, turn: Turn, first: bool) -> tuple[list[int], list[int]]:
        """Ids of one turn as a text of its own, and where its media are."""
        front, end = self._plain.affixes
        front = front if first else []
        counted = turn.role == "system" or self._takes_films or has_lines(turn)
        said = self.said.text(turn, whole=not counted)
        leading, before, behind = 0, "", ""
        if turn.role == "user":
            leading = 0 if self._takes_films else parts_of(turn)[0]
            before, behind = self.said.with_films(self._known["user",].pieces, [turn])
            behind = behind.replace(PROMPT_FIELD, said.replace(self._film, ""))
        ids, media_at, _ = self.said.tokenised(before + said + behind, [])
        if counted:
            return [*front, *ids, *end], [0] * leading + [len(front) + at for at in media_at]
        room = max(0, self.max_prompt_tokens - len(front) - len(end))
        self.said.tell_of_cut(len(ids), room)
        over = max(0, len(ids) - room)
        places = [len(front) + max(0, at - over) for at in media_at]
        return [*front, *cut(ids, room, "left"), *end], [0] * leading + places

    def _around(self, roles: Sequence[Role]) -> TurnTemplate:
        """What the chat template writes around turns of these roles, with names."""
        key = tuple(roles)
        if key not in self._known and self._chat is not None:
            self._known[key] = self._named(self._chat.around(key))
        return self._known[key]

    def _named(self, around: TurnTemplate) -> TurnTemplate:
        named = self._plain.named
        return replace(around, pieces=tuple(map(named, around.pieces)), end=named(around.end))


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
