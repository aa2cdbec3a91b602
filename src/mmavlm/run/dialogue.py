"""The lines of a conversation at a terminal, or of a file: questions and commands."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from mmavlm.core.errors import DataError, MmavlmError
from mmavlm.core.interfaces import Answer
from mmavlm.core.medium import Kind
from mmavlm.core.nearest import nearest
from mmavlm.data.readers.values import as_seconds
from mmavlm.data.sound import ClipSettings
from mmavlm.data.subtitles import check_choice
from mmavlm.run.ask import Ready, generation_of, load_model
from mmavlm.run.build import build_contrast
from mmavlm.run.chat import Chat, own_medium, read_conversation, save_conversation

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
KINDS: dict[str, Kind] = {"video": "film", "image": "picture", "audio": "sound"}


class Doing(NamedTuple):
    """What a command does, what follows its name, and how it is done."""

    does: str
    usage: str
    do: Callable[[Dialogue, str], None]


def chat_about_media(config: DictConfig) -> None:
    """Answer the lines of standard input, one by one; see `mmavlm.chat`, which checked the request.

    Raises:
        ConfigError: if the model answers nothing.
        CheckpointError: if the weights do not fit.
        DataError: if what is to be shown first cannot be used, or questions that nobody typed
            were not all answered.
    """
    chat = chat_of(config, load_model(config))
    for name, kind in KINDS.items():
        if config[name] is not None:
            chat.show(own_medium(kind, config[name]))
    typed = sys.stdin.isatty()
    as_json = config.format == "json"
    grows = config.num_beams == 1 and not as_json and sys.stdout.isatty()
    dialogue = Dialogue(chat, as_json=as_json, grows=grows, typed=typed)
    if typed:
        with suppress(ImportError):
            import readline  # noqa: F401  (lines can then be changed while they are typed)
        dialogue.note("ask, or type /help; /quit ends")
    dialogue.run(typed_lines(chat) if typed else sys.stdin)
    if dialogue.mistakes and not typed:
        raise DataError(f"{dialogue.mistakes} of the lines could not be followed; see above")


def chat_of(config: DictConfig, model: Ready) -> Chat:
    """A conversation with a model, as a config has it.

    Raises:
        ConfigError: if settings of answers exclude each other, or the LLM keeps no conversation.
    """
    generation = generation_of(
        config,
        model.max_new_tokens,
        num_beams=config.num_beams,
        temperature=config.temperature,
        top_p=config.top_p,
    )
    data = config.data
    heard = data.get("clips") is not None
    clips = ClipSettings(data.rate_hz, data.clips, data.clip_s) if heard else None
    return Chat(
        model,
        generation,
        data.num_frames,
        clips,
        subtitles=check_choice(data.get("subtitles")),
        sample_fps=data.get("sample_fps"),
        contrast=build_contrast(config),
    )


def typed_lines(chat: Chat) -> Iterator[str]:
    """The lines a user types, each behind the number of the question it may be."""
    while True:
        try:
            yield input(f"{chat.num_questions + 1}> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return


class Dialogue:
    """Questions and commands, line by line, and what is printed of their answers.

    Answers are printed to standard output, as lines of JSON or as they are; with `grows` word by
    word. All else that is said goes to standard error. Ctrl-C stops an answer
    if lines are `typed`, else everything.
    """

    def __init__(
        self, chat: Chat, *, as_json: bool = False, grows: bool = False, typed: bool = False
    ) -> None:
        self.chat = chat
        self.typed = typed
        self.as_json = as_json
        self.grows = grows
        self.mistakes = 0

    def run(self, lines: Iterable[str]) -> None:
        """Follow lines up to /quit or their end; one that cannot be followed is told of."""
        for line in lines:
            if line.strip() == "/quit":
                return
            try:
                self._follow(line.rstrip("\r\n"))
            except MmavlmError as error:
                self.mistakes += 1
                self.note(f"error: {error}")
            except KeyboardInterrupt:
                if not self.typed:
                    raise
                self.note("\nstopped; the question is forgotten")

    def note(self, text: str) -> None:
        """Say what is no answer."""
        print(printable(text), file=sys.stderr, flush=True)

    def _follow(self, line: str) -> None:
        if not line.strip():
            return
        if not line.startswith("/"):
            self._answered(line.strip(), self.chat.ask)
            return
        name, _, rest = line[1:].partition(" ")
        if name not in COMMANDS:
            near = " or ".join(f"/{n}" for n in nearest(name, COMMANDS)) or "/help"
            raise DataError(
                f"/{name} is no command; did you mean {near}? A question that begins with / takes "
                "a space in front"
            )
        COMMANDS[name].do(self, rest.strip())

    def _answered(self, question: str, ask: Callable[..., Answer]) -> None:
        """Print what is answered to a question, as it comes or once it is there."""
        growing = Growing()
        answer = ask(question, growing.hear) if self.grows else ask(question)
        if self.as_json:
            row = {"question": question, "answer": answer.text, "log_prob": answer.log_prob}
            print(json.dumps(row), flush=True)
        else:
            growing.end(answer.text)
        if not answer.text:
            self.note("the answer is empty, so the question is forgotten; ask it in other words")

    def show(self, kind: Kind, rest: str) -> None:
        """Show a medium with the next question: a path, and for a stretch its bounds."""
        words = _words(rest)
        if len(words) not in (1, 3):
            raise DataError(
                f"expected a path, or a path, start_s and end_s, but got {len(words)} words; write "
                "a path with spaces in quotes"
            )
        bounds_s = [as_seconds(word) for word in words[1:]]
        self.chat.show(own_medium(kind, words[0], *bounds_s))
        self.note(f"{words[0]} will be shown with the next question")

    def edit(self, rest: str) -> None:
        """Ask another text in place of a question."""
        number, _, text = rest.partition(" ")
        if not number.isdecimal() or not text.strip():
            raise DataError("expected the number of a question and a text: /edit 2 who is she?")
        at = int(number)
        self._answered(text.strip(), lambda asked, *heard: self.chat.edit(at, asked, *heard))

    def back(self, rest: str) -> None:
        """Forget the last question and its answer."""
        self.note(f"forgotten: {self.chat.back()}")

    def save(self, rest: str) -> None:
        """Write the conversation to a file."""
        save_conversation(self.chat.conversation, path := _json_file(rest))
        self.note(f"saved in {path}")

    def load(self, rest: str) -> None:
        """Go on from the conversation of a file; a last question without an answer is asked."""
        talk = read_conversation(_json_file(rest))
        question = self.chat.take(talk)
        for turn in talk.turns[: len(talk.turns) - (question is not None)]:
            self.note(f"{turn.role}: {turn.text}")
        if question is not None:
            self._answered(question, self.chat.ask)

    def help(self, rest: str) -> None:
        """Say which commands there are."""
        for name, doing in COMMANDS.items():
            self.note(f"/{name} {doing.usage}".ljust(32) + doing.does)


COMMANDS: dict[str, Doing] = {
    "video": Doing(
        "show a film, or a stretch of it, with the next question",
        "PATH [START_S END_S]",
        lambda dialogue, rest: dialogue.show("film", rest),
    ),
    "image": Doing("show a picture", "PATH", lambda dialogue, rest: dialogue.show("picture", rest)),
    "sound": Doing(
        "let a sound be heard",
        "PATH [START_S END_S]",
        lambda dialogue, rest: dialogue.show("sound", rest),
    ),
    "back": Doing("forget the last question and its answer", "", Dialogue.back),
    "edit": Doing("ask question N in other words; later ones go", "N TEXT", Dialogue.edit),
    "save": Doing("write the conversation to a file", "FILE.json", Dialogue.save),
    "load": Doing("go on from a file's conversation", "FILE.json", Dialogue.load),
    "help": Doing("say which commands there are", "", Dialogue.help),
    "quit": Doing("end, as the end of the input does", "", lambda dialogue, rest: None),
}


class Growing:
    """An answer that is printed while it becomes longer."""

    def __init__(self) -> None:
        self._printed = ""

    def hear(self, text: str) -> None:
        """Print what a text has beyond the one before; if it changed, nothing."""
        text = printable(text)
        if text.startswith(self._printed):
            print(text[len(self._printed) :], end="", flush=True)
            self._printed = text

    def end(self, text: str) -> None:
        """Print the rest of an answer, or all of it if its beginning has changed."""
        text = printable(text)
        if not text.startswith(self._printed):
            print()
            self._printed = ""
        print(text[len(self._printed) :], flush=True)


def printable(text: str) -> str:
    """A text without signs that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else UNKNOWN for c in text)


def _words(rest: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise DataError(f"{rest} cannot be read ({error}); close its quotes") from error


def _json_file(rest: str) -> Path:
    words = _words(rest)
    if len(words) != 1 or not words[0].endswith(".json"):
        raise DataError(f"expected a file that ends with .json, got {rest or 'none'}")
    return Path(words[0]).expanduser()
