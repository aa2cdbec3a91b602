"""A conversation with a model about films, pictures and sounds, whose history can be changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from json import JSONDecodeError
from pathlib import Path

import torch

from mmavlm.core.contrast import Contrast
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.files import write_whole
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import Answer, MediaTokens
from mmavlm.core.items import Item
from mmavlm.core.medium import Kind, Medium
from mmavlm.core.turns import Line, Part, Shown, Turn
from mmavlm.data.collate import collate
from mmavlm.data.dataset import BrokenItem, Sample, VideoDataset
from mmavlm.data.sound import ClipSettings
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.llm.session import Mark
from mmavlm.run.ask import Ready

Listener = Callable[[str], None]


class Chat:
    """One conversation with a model, question by question.

    A film gives `num_frames` frames, or `sample_fps` a second and so many at most, between which
    stands what is said in it (`subtitles`: see `subtitles_of`), a sound `clips`. What is shown is
    decoded once, when it is given, and read with the question behind it: later questions neither
    decode, encode nor read it again. With `contrast` answers are decoded against another view.

    Raises:
        ConfigError: if the model's LLM keeps no sessions.
    """

    def __init__(
        self,
        model: Ready,
        generation: Generation,
        num_frames: int,
        clips: ClipSettings | None = None,
        subtitles: bool | None = None,
        sample_fps: float | None = None,
        contrast: Contrast | None = None,
    ) -> None:
        if not isinstance(model.llm, PromptedLanguageModel):
            raise ConfigError(
                f"the LLM {type(model.llm).__name__} keeps no conversation; choose one of the "
                "group llm, or ask it with predict"
            )
        self._model = model
        self._llm = model.llm
        self._generation = generation
        self._num_frames = num_frames
        self._clips = clips
        self._subtitles = subtitles
        self._sample_fps = sample_fps
        self._contrast = contrast
        self._samples: dict[Medium, Sample] = {}
        self._start()

    def _start(self) -> None:
        self._session = self._llm.session(self._contrast)
        self._marks: list[Mark] = []  # the point before each question
        self._media: list[Medium] = []  # by the numbers of the session's turns
        self.waiting: tuple[Medium, ...] = ()  # to be shown with the next question

    @property
    def num_questions(self) -> int:
        """How many questions were asked so far."""
        return len(self._marks)

    @property
    def conversation(self) -> Conversation:
        """All that was said, with the media that are shown there.

        Raises:
            DataError: if nothing was asked yet.
        """
        turns = self._session.turns
        if not turns:
            raise DataError("nothing was asked yet; ask something first")
        shown = list(dict.fromkeys(number for turn in turns for number in turn.shows))
        at = {number: place for place, number in enumerate(shown)}
        media = tuple(self._media[number] for number in shown)
        return Conversation(tuple(_renumbered(_closed(turn), at) for turn in turns), media)

    def show(self, medium: Medium) -> None:
        """Decode a medium, and show it with the next question.

        Raises:
            DataError: if it is missing or cannot be used.
        """
        self._sample(medium)
        self.waiting = (*self.waiting, medium)

    @torch.inference_mode()
    def ask(self, text: str, heard: Listener | None = None) -> Answer:
        """The answer to a question; both stay in the conversation, unless the answer is empty.

        `heard` is called with the text so far (see `Session.reply`).

        Raises:
            TooLongError: if the conversation needs more positions than the model has.
        """
        mark, shown = self._session.mark(), self.waiting
        first = len(self._media)
        parts: list[Part] = [Shown(first + number) for number in range(len(shown))]
        try:
            self._append(Turn("user", (*parts, text)), shown)
            answer = self._session.reply(self._generation, heard)
            if answer.text:
                self._session.append(Turn("assistant", (answer.text,)))
        except BaseException:
            self._session.back(mark)
            raise
        if not answer.text:
            self._session.back(mark)
            return answer
        self._media += shown
        self._marks.append(mark)
        self.waiting = ()
        return answer

    def back(self) -> str:
        """Forget the last question and its answer; gives the question. Its media wait again.

        Raises:
            DataError: if nothing was asked yet.
        """
        question = self._question(self.num_questions)
        self.waiting = (*self._shown_in(question), *self.waiting)
        self._session.back(self._marks.pop())
        return question.text

    def edit(self, number: int, text: str, heard: Listener | None = None) -> Answer:
        """Ask another text in place of a question, counted from 1; what came later is forgotten.

        If it cannot be answered the conversation stays as it is.

        Raises:
            DataError: if there is no such question.
            TooLongError: if the conversation needs more positions than the model has.
        """
        question, waiting, before = self._question(number), self.waiting, self.conversation
        self._session.back(self._marks[number - 1])
        del self._marks[number - 1 :]
        self.waiting = self._shown_in(question)
        answered = False
        try:
            answer = self.ask(text, heard)
            answered = bool(answer.text)
            return answer
        finally:
            if not answered:
                self.take(before)
            self.waiting = waiting

    @torch.inference_mode()
    def take(self, talk: Conversation) -> str | None:
        """Go on from another conversation in place of this one.

        Its last question is given back if it has no answer yet, and its media wait for it.

        Raises:
            DataError: if one of its media is missing or cannot be used; this one then stays.
        """
        for medium in talk.media:
            self._sample(medium)
        before = self._session, self._marks, self._media, self.waiting
        *said, last = talk.turns
        try:
            self._start()
            self._media = list(talk.media)
            for turn in talk.turns if last.role == "assistant" else said:
                if turn.role == "user":
                    self._marks.append(self._session.mark())
                self._append(turn, self._shown_in(turn))
        except BaseException:
            self._session, self._marks, self._media, self.waiting = before
            raise
        if last.role == "assistant":
            return None
        self.waiting = self._shown_in(last)
        return last.text

    def _question(self, number: int) -> Turn:
        if not 1 <= number <= self.num_questions:
            asked = f"1 to {self.num_questions}" if self._marks else "none so far"
            raise DataError(f"there is no question {number}; expected one of those asked: {asked}")
        return self._session.turns[len(self._marks[number - 1].turns)]

    def _shown_in(self, turn: Turn) -> tuple[Medium, ...]:
        return tuple(self._media[number] for number in turn.shows)

    def _append(self, turn: Turn, shown: Sequence[Medium]) -> None:
        """Go on with a turn, and with what is said in the films that it shows."""
        numbered = dict(zip(turn.shows, shown, strict=True))
        parts = [piece for part in turn.parts for piece in self._opened(part, numbered)]
        media, other = self._tokens(shown, turn.text) if shown else (None, None)
        self._session.append(replace(turn, parts=tuple(parts)), media=media, other=other)

    def _opened(self, part: Part, media: Mapping[int, Medium]) -> Iterator[Part]:
        """A part of a turn; that which shows a film with subtitles as these and its frames."""
        if not isinstance(part, Shown) or part.frames is not None:
            yield part
            return
        for piece in self._samples[media[part.medium]].item.conversation.turns[0].parts:
            if isinstance(piece, Shown):
                yield replace(piece, medium=part.medium)
            elif isinstance(piece, Line):
                yield piece

    def _tokens(
        self, shown: Sequence[Medium], guide: str
    ) -> tuple[MediaTokens, MediaTokens | None]:
        """What the LLM sees of media that are shown with a text, and what of another view."""
        samples = [replace(self._samples[m], item=_about(m, guide)) for m in shown]
        batch = collate(samples).to(self._model.device)
        media, against = self._model.backbone.seen(batch, self._contrast)
        other = None if against is None else against.media
        return replace(media, views=[len(shown)]), other and replace(other, views=[len(shown)])

    def _sample(self, medium: Medium) -> None:
        """Decode a medium that is a file or folder of the user's own, unless that was done.

        Raises:
            DataError: if it is missing or cannot be used.
        """
        if medium in self._samples:
            return
        if not (medium.source.is_file() or medium.source.is_dir()):
            raise VideoError(f"{medium.source} does not exist; give the path of a file")
        if not 0 <= medium.start_s < (float("inf") if medium.end_s is None else medium.end_s):
            raise DataError(
                f"{medium.source} is to be shown from {medium.start_s:g} to {medium.end_s} s; "
                "expected seconds from 0 on, the end behind the start"
            )
        size = self._model.backbone.vision.encoder.image_size
        item = _about(medium, "")
        sample = VideoDataset(
            [item],
            num_frames=self._num_frames,
            sample_fps=self._sample_fps,
            image_size=size,
            clips=self._clips,
            subtitles=self._subtitles,
        )[0]
        if isinstance(sample, BrokenItem):
            raise VideoError(f"{medium.source} cannot be used: {sample.reason}")
        self._samples[medium] = sample


def own_medium(kind: Kind, path: str, start_s: float = 0.0, end_s: float | None = None) -> Medium:
    """A film, picture or sound by the path that a user gives."""
    try:
        source = Path(path).expanduser().absolute()
    except RuntimeError:  # ~name of nobody: a file that is called so
        source = Path(path).absolute()
    return Medium(medium_id=source.stem, source=source, kind=kind, start_s=start_s, end_s=end_s)


def read_conversation(path: Path) -> Conversation:
    """The conversation of a file; paths of media in it are relative to its folder.

    Raises:
        DataError: if it cannot be read, or holds no conversation.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(values, ensure_ascii=False).encode()  # which half a character is not
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (JSONDecodeError, UnicodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); give a file that /save wrote") from error
    try:
        talk = Conversation.from_json(values)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    below = path.absolute().parent
    return replace(talk, media=tuple(replace(m, source=below / m.source) for m in talk.media))


def save_conversation(talk: Conversation, path: Path) -> None:
    """Write a conversation to a file, which may hold another one.

    Raises:
        DataError: if the file holds something else, or cannot be written.
    """
    if path.exists():
        read_conversation(path)
    try:
        write_whole(path, (json.dumps(talk.as_json(), indent=1) + "\n").encode())
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def _closed(turn: Turn) -> Turn:
    """A turn without the lines between frames, which are read again where it is taken up."""
    parts = [
        replace(part, frames=None) if isinstance(part, Shown) else part
        for part in turn.parts
        if not isinstance(part, Line) and not (isinstance(part, Shown) and not part.begins)
    ]
    return replace(turn, parts=tuple(parts))


def _renumbered(turn: Turn, at: Mapping[int, int]) -> Turn:
    parts = [
        replace(part, medium=at[part.medium]) if isinstance(part, Shown) else part
        for part in turn.parts
    ]
    return replace(turn, parts=tuple(parts))


def _about(medium: Medium, text: str) -> Item:
    talk = Conversation.question(medium, text)
    return Item(item_id=medium.source.name, conversation=talk, task="chat")
