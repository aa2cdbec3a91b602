"""Chat templates: what stands around the turns of a conversation in models trained on chats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mmavlm.core.chat_formats import CHAT_FORMATS
from mmavlm.core.errors import ConfigError
from mmavlm.core.turns import Role, Turn
from mmavlm.model.llm.around_turns import AroundTurns, around_turns
from mmavlm.model.llm.chat_process import rendered

# They stand for what is put in later; characters of the private use area, which no text has.
VIDEO, PROMPT, ANSWER, SYSTEM = "\ue0f0", "\ue0f1", "\ue0f2", "\ue0f5"
STREAM = "\ue0f6"
PROMPT_FIELD, VIDEO_FIELD = "{prompt}", "{video}"


@dataclass(frozen=True)
class TurnTemplate:
    """The `pieces` of text around those of turns, of which the last is a user's: one more.

    VIDEO stands once in front of each user's text, or behind it. An answer follows with `space`,
    and then `end`. The system's turn, the first, may be written behind `system_at` others.
    """

    pieces: tuple[str, ...]
    space: str = ""
    end: str = ""
    system_at: int = 0

    def ordered(self, turns: Sequence[Turn]) -> list[Turn]:
        """The turns in the order in which they are written."""
        if turns[0].role != "system":
            return list(turns)
        return [*turns[1 : self.system_at + 1], turns[0], *turns[self.system_at + 1 :]]


def chat_template(choice: str | None, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template that `llm.chat_template` chooses, as Jinja, or None for none.

    `auto` is the tokenizer's own, if it has one. Anything else is the name of a format, a template,
    or a file with one.

    Raises:
        ConfigError: if it is none of these.
    """
    if choice is None or choice == "none":
        return None
    if choice == "auto":
        return tokenizer.get_chat_template() if tokenizer.chat_template else None
    if choice in CHAT_FORMATS:
        return CHAT_FORMATS[choice]
    if "{{" in choice or "{%" in choice:
        return choice
    try:
        return Path(choice).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"llm.chat_template is {choice!r}, which is no format, no Jinja template, and no file "
            f"that can be read ({type(error).__name__}); choose auto, none, "
            f"{', '.join(CHAT_FORMATS)}, a template or the path of one"
        ) from error


def plain_template(prompt_template: str) -> TurnTemplate:
    """What a prompt template writes around a prompt, with VIDEO where it says `{video}`.

    Raises:
        ConfigError: if it says so more than once.
    """
    before, behind = prompt_template.replace(VIDEO_FIELD, VIDEO).split(PROMPT_FIELD, maxsplit=1)
    if VIDEO_FIELD in prompt_template:
        _check_places((before, behind), "llm.prompt_template", 1)
    return TurnTemplate((before, behind))


class ChatTemplate:
    """What a chat template writes around turns, whatever their texts.

    It is asked once for each order of roles, with marks in place of texts, and twice each time: how
    it opens the assistant's turn, and how it writes that turn. What it writes in front of an answer
    belongs to the prompt, except spaces, which tokenizers join with the word behind them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str, prompt_template: str
    ) -> None:
        if VIDEO_FIELD not in prompt_template:
            prompt_template = VIDEO_FIELD + prompt_template
        asked = prompt_template.replace(VIDEO_FIELD, VIDEO).replace(PROMPT_FIELD, PROMPT)
        self._contents: dict[Role, str] = {
            "user": asked, "system": SYSTEM, "assistant": ANSWER, "stream": STREAM,
        }  # fmt: skip
        self._template = template
        self._names = dict(tokenizer.special_tokens_map)
        self._known: dict[tuple[Role, ...], TurnTemplate] = {}

    def around(self, roles: tuple[Role, ...]) -> TurnTemplate:
        """What stands around turns of these roles, the last of them a user's.

        Raises:
            ConfigError: if the template fails, or leaves out or repeats what it is given.
        """
        if roles not in self._known:
            self._known[roles] = self._asked(roles)
        return self._known[roles]

    def one_by_one(self) -> AroundTurns:
        """What stands around each turn where films run, whatever turns stand beside it.

        Raises:
            ConfigError: if the template does not write turns one by one (see `around_turns`).
        """
        return around_turns(self._pieces)

    def _pieces(self, roles: Sequence[Role], opens: bool) -> list[str]:
        """The pieces of text around turns of these roles; it `opens` one of the assistant."""
        turns = [{"role": role, "content": self._contents[role]} for role in roles]
        (text,) = rendered(self._template, self._names, [(turns, opens)])
        pieces = re.split(f"[{PROMPT}{ANSWER}{SYSTEM}{STREAM}]", text)
        if len(pieces) != len(roles) + 1:
            raise ConfigError(
                f"llm.chat_template must write the text of each turn once, in order; of "
                f"{', '.join(roles)} it makes {_shown(text)!r}; choose chatml, or none"
            )
        return pieces

    def _asked(self, roles: tuple[Role, ...]) -> TurnTemplate:
        turns = [{"role": role, "content": self._contents[role]} for role in roles]
        answered = [*turns, {"role": "assistant", "content": ANSWER}]
        runs = [(turns, True), (answered, False)]
        asked, told = rendered(self._template, self._names, runs)
        pieces, system_at = _split(asked, roles, told)
        # Mistral's writes what the system says with a question that is the last turn, else not.
        spoken = [role for role in roles if role != "system" or SYSTEM in told]
        behind, (up_to_answer, end) = pieces[-1], _split(told, [*spoken, "assistant"], told)[0][-2:]
        if up_to_answer.startswith(behind):
            behind = up_to_answer
        space = behind[len(behind.rstrip(" ")) :]
        pieces = [*pieces[:-1], behind.rstrip(" ")]
        _check_places(pieces, "llm.chat_template", roles.count("user"))
        return TurnTemplate(tuple(pieces), space, end.strip(), system_at)


def _split(text: str, roles: Sequence[Role], told: str) -> tuple[list[str], int]:
    """What stands around the marks of turns of these roles, and where the system's is written."""
    found = re.findall(f"[{PROMPT}{ANSWER}{SYSTEM}]", text)
    system_at = found.index(SYSTEM) if SYSTEM in found else 0
    expected = [ANSWER if role == "assistant" else PROMPT for role in roles if role != "system"]
    if "system" in roles:
        expected.insert(system_at, SYSTEM)
    if found != expected:
        each = "a user's prompt and the assistant's answer once each; of a prompt P and an answer A"
        if len(roles) > 2 or "system" in roles:
            each = f"the text of each turn once, in order; of {', '.join(roles)}"
        raise ConfigError(
            f"llm.chat_template must write {each} it makes {_shown(told)!r}; choose another, or "
            "none"
        )
    return re.split(f"[{PROMPT}{ANSWER}{SYSTEM}]", text), system_at


def _check_places(pieces: Sequence[str], setting: str, expected: int) -> None:
    """Refuse a template that does not give the video of each user's turn one place."""
    whole = PROMPT.join(pieces)
    if whole.count(VIDEO) != expected:
        wanted = "one" if expected == 1 else str(expected)
        raise ConfigError(
            f"{setting} gives the video {whole.count(VIDEO)} places, expected {wanted}: "
            f"{_shown(whole)!r}; choose another"
        )


def _shown(text: str) -> str:
    for mark, letter in (
        (VIDEO, VIDEO_FIELD),
        (PROMPT, "P"),
        (ANSWER, "A"),
        (SYSTEM, "S"),
        (STREAM, "F"),
    ):
        text = text.replace(mark, letter)
    return text
