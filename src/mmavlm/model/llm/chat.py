"""Chat templates: what stands around a prompt and its answer in models trained on chats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mmavlm.core.errors import ConfigError
from mmavlm.model.llm.chat_process import rendered

# They stand for what is put in later; characters of the private use area, which no text has.
VIDEO, PROMPT, ANSWER = "\ue0f0", "\ue0f1", "\ue0f2"
PROMPT_FIELD, VIDEO_FIELD = "{prompt}", "{video}"


@dataclass(frozen=True)
class Frame:
    """The texts around a prompt: `before` holds VIDEO unless `behind` does.

    An answer follows with `space`, and then `end`.
    """

    before: str
    behind: str
    space: str = ""
    end: str = ""

    def around(self, prompt: str) -> str:
        """The whole text that is asked."""
        return f"{self.before}{prompt}{self.behind}"


def chat_template(choice: str | None, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template that `llm.chat_template` chooses, as Jinja, or None for none.

    `auto` is the tokenizer's own, if it has one; anything else is a template, or a file with one.

    Raises:
        ConfigError: if it is neither.
    """
    if choice is None or choice == "none":
        return None
    if choice == "auto":
        return tokenizer.get_chat_template() if tokenizer.chat_template else None
    if "{{" in choice or "{%" in choice:
        return choice
    try:
        return Path(choice).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"llm.chat_template is {choice!r}, which is no Jinja template, and no file that can be "
            f"read ({type(error).__name__}); choose auto, none, a template or the path of one"
        ) from error


def plain_frame(prompt_template: str) -> Frame:
    """The frame of a prompt template that says with `{video}` where the video tokens go."""
    before, behind = prompt_template.replace(VIDEO_FIELD, VIDEO).split(PROMPT_FIELD, maxsplit=1)
    return _checked(Frame(before, behind), "llm.prompt_template")


def bare(prompt_template: str) -> tuple[str, str]:
    """What a prompt template without a place for the video writes around the prompt."""
    before, behind = prompt_template.split(PROMPT_FIELD, maxsplit=1)
    return before, behind


def chat_frame(tokenizer: PreTrainedTokenizerBase, template: str, prompt_template: str) -> Frame:
    """The frame that a chat template puts around a user's turn with the video and the prompt.

    The template is asked twice: how it opens the assistant's turn, and how it writes that turn.
    What it writes in front of an answer belongs to the prompt, except spaces, which tokenizers
    join with the word behind them.

    Raises:
        ConfigError: if the template fails, or leaves out or repeats what it is given.
    """
    if VIDEO_FIELD not in prompt_template:
        prompt_template = VIDEO_FIELD + prompt_template
    content = prompt_template.replace(VIDEO_FIELD, VIDEO).replace(PROMPT_FIELD, PROMPT)
    turn = {"role": "user", "content": content}
    answered = [turn, {"role": "assistant", "content": ANSWER}]
    names = tokenizer.special_tokens_map
    asked, told = rendered(template, names, [([turn], True), (answered, False)])
    if [asked.count(PROMPT), told.count(PROMPT), told.count(ANSWER)] != [1, 1, 1]:
        raise ConfigError(
            "llm.chat_template must write a user's prompt and the assistant's answer once each; "
            f"of a prompt P and an answer A it makes {_shown(told)!r}; choose another, or none"
        )
    before, behind = asked.split(PROMPT)
    up_to_answer, end = told.split(PROMPT)[1].split(ANSWER)
    if up_to_answer.startswith(behind):
        behind = up_to_answer
    space = behind[len(behind.rstrip(" ")) :]
    frame = Frame(before, behind.rstrip(" "), space, end.strip())
    return _checked(frame, "llm.chat_template")


def _checked(frame: Frame, setting: str) -> Frame:
    whole = frame.around(PROMPT)
    if whole.count(VIDEO) != 1:
        raise ConfigError(
            f"{setting} gives the video {whole.count(VIDEO)} places, expected one: "
            f"{_shown(whole)!r}; choose another"
        )
    return frame


def _shown(text: str) -> str:
    return text.replace(VIDEO, VIDEO_FIELD).replace(PROMPT, "P").replace(ANSWER, "A")
