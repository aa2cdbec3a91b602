"""A conversation with a loaded model: show something, say something, hear the answer."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from math import exp
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread

from mmavlm.core.errors import DataError
from mmavlm.core.interfaces import Answer
from mmavlm.core.medium import Kind
from mmavlm.core.turns import Turn
from mmavlm.loaded.answers import Said
from mmavlm.loaded.given import as_path
from mmavlm.loaded.places import kind_of
from mmavlm.run.chat import Chat, own_medium, read_conversation, save_conversation


class Talk:
    """One conversation with a model, with the state of the command `chat`.

    Conversations of one model know nothing of each other. `chat` is what this one stands on.
    """

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self._speaking = Lock()

    def show(
        self,
        path: str | Path,
        *,
        kind: Kind | None = None,
        start_s: float = 0.0,
        end_s: float | None = None,
    ) -> Talk:
        """Show a film, picture or sound with the next question: all of it, or a stretch.

        Without `kind` the file's ending tells it. Gives the conversation itself.

        Raises:
            ConfigError: if it is no path.
            DataError: if it is missing or cannot be used.
        """
        with self._alone():
            shown = as_path("path", path)
            self.chat.show(own_medium(kind or kind_of(shown), str(path), start_s, end_s))
        return self

    def say(self, text: str) -> Said:
        """The answer to a question. An empty one is not kept, nor is its question.

        Raises:
            DataError: if there is no text, or an answer is still being given.
            TooLongError: if the conversation needs more positions than the model has.
        """
        with self._alone():
            return _said(self.chat.ask(_question(text)))

    def stream(self, text: str) -> Generator[str, None, Said]:
        """The same answer piece by piece, as it comes; put together, the pieces are the answer.

        The generator's own value is what `say` gives. Where later letters change earlier ones,
        which few tokenizers do, the whole answer comes once more in a line of its own. Who leaves
        before the end takes the question back.

        Raises:
            ConfigError: if beams compete for the answer (num_beams above 1).
            DataError: if there is no text, or another answer is still being given.
            TooLongError: if the conversation needs more positions than the model has.
        """
        with self._alone():
            return (yield from _as_it_comes(self.chat, _question(text)))

    def back(self) -> str:
        """Forget the last question and its answer; gives the question. What it showed waits again.

        Raises:
            DataError: if nothing was asked yet.
        """
        with self._alone():
            return self.chat.back()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All that was said so far."""
        return self.chat.conversation.turns if self.chat.num_questions else ()

    def save(self, path: str | Path) -> None:
        """Write the conversation to a file, which `load` and the command `chat` read.

        Raises:
            DataError: if nothing was said yet, or the file holds something else.
        """
        save_conversation(self.chat.conversation, Path(path).expanduser())

    def load(self, path: str | Path) -> str | None:
        """Go on from the conversation of a file; its last question is given if it has no answer.

        Raises:
            DataError: if it is none, or its media cannot be used; this conversation then stays.
        """
        with self._alone():
            return self.chat.take(read_conversation(Path(path).expanduser()))

    def __repr__(self) -> str:
        waiting = ", ".join(medium.source.name for medium in self.chat.waiting) or "nothing"
        return f"<conversation of {self.chat.num_questions} questions; {waiting} waits to be shown>"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._speaking.acquire(blocking=False):
            raise DataError(
                "an answer of this conversation is still being given; take the rest of its pieces, "
                "or close them"
            )
        try:
            yield
        finally:
            self._speaking.release()


def _question(text: str) -> str:
    if not isinstance(text, str):
        raise DataError(f"a question is a text, got {text!r}")
    return text


class _LeftError(Exception):
    """Nobody hears an answer any more."""


def _as_it_comes(chat: Chat, text: str) -> Generator[str, None, Said]:
    """The pieces of an answer, which a thread of its own gives, perhaps ahead of who hears them."""
    heard: SimpleQueue[str | Answer | BaseException] = SimpleQueue()
    left = Event()

    def hear(so_far: str) -> None:
        if left.is_set():
            raise _LeftError
        heard.put(so_far)

    def answer() -> None:
        try:
            heard.put(chat.ask(text, hear))
        except BaseException as error:  # told where the pieces are taken
            heard.put(error)

    speaker = Thread(target=answer, name="an answer", daemon=True)
    speaker.start()
    so_far: str | Answer | BaseException = ""
    told, whole = "", False
    try:
        while isinstance(so_far := heard.get(), str):
            if so_far.startswith(told):
                yield so_far[len(told) :]
                told = so_far
        if isinstance(so_far, BaseException):
            raise so_far
        text = so_far.text
        if rest := text[len(told) :] if text.startswith(told) else f"\n{text}":
            yield rest
        whole = True
        return _said(so_far)
    finally:
        left.set()
        speaker.join()
        if not whole and _is_kept(heard, so_far):
            chat.back()


def _is_kept(heard: SimpleQueue[str | Answer | BaseException], last: object) -> bool:
    """Whether an answer that nobody heard to its end was given all the same."""
    while not heard.empty():
        last = heard.get()
    return isinstance(last, Answer) and bool(last.text)


def _said(answer: Answer) -> Said:
    return Said(answer.text, exp(answer.log_prob), answer.log_prob, answer.cut)
