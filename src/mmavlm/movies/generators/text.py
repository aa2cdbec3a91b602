"""What any text generator is asked and gives: a request with a task and its context, and a text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ValidationError

from mmavlm.core.errors import DataError
from mmavlm.core.files import write_whole

Answered = TypeVar("Answered", bound=BaseModel)
Check = Callable[[Any], None]


class UnusableAnswerError(DataError):
    """No answer of a generator fits what was asked for."""


SYSTEM = "You answer with one JSON object that fits the given schema, and with nothing else."


@dataclass(frozen=True)
class TextRequest:
    """One thing to be written: `instruction` says in words what a grammar reads as `task`.

    `turns` are earlier answers and what was wrong with them, (answer, complaint) pairs.
    """

    task: str
    instruction: str
    context: Mapping[str, Any]
    schema: Mapping[str, Any]
    seed: int
    max_tokens: int = 4096
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The request as a chat: system, user, and a pair of messages for each earlier turn."""
        wanted = (
            f"{self.instruction}\n\nContext:\n{_json(self.context)}\n\n"
            f"Schema of the answer:\n{_json(self.schema)}"
        )
        chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": wanted}]
        for answer, complaint in self.turns:
            chat.append({"role": "assistant", "content": answer})
            chat.append({"role": "user", "content": complaint})
        return chat

    @property
    def digest(self) -> str:
        """A hash of all that the answer may depend on, besides the generator."""
        parts = [self.task, self.messages, self.seed, self.max_tokens]
        # texts that are answers may hold anything, halves of characters among it
        return hashlib.sha256(_json(parts).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class TextResult:
    """What was written, and how many tokens went in and came out (0 where nobody counts)."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@runtime_checkable
class TextGenerator(Protocol):
    """Writes what it is asked for."""

    @property
    def fingerprint(self) -> str:
        """What the texts depend on, besides the request: backend, model, settings."""

    def complete(self, request: TextRequest) -> TextResult:
        """The answer to a request."""


def ask(
    generator: TextGenerator,
    request: TextRequest,
    form: type[Answered],
    check: Check | None = None,
    *,
    repairs: int = 3,
    keep: Path | None = None,
) -> Answered:
    """The answer as a `form`; one that does not fit is sent back with the reason, `repairs` times.

    `check` raises ValueError for what the form alone cannot tell. An answer that fits is kept in
    the folder `keep`, under a hash of request and generator, and taken from there the next time.

    Raises:
        UnusableAnswerError: if no answer fits, with the last complaint.
        DataError: if what is kept is broken.
    """
    if keep is None:
        return _ask(generator, request, form, check, repairs)
    name = hashlib.sha256(f"{generator.fingerprint} {request.digest}".encode()).hexdigest()[:32]
    path = keep / f"{name}.json"
    if path.is_file():
        try:
            return form.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise DataError(
                f"{path} was kept and is broken: {_told(error)} Remove it to have it written again"
            ) from None
    answer = _ask(generator, request, form, check, repairs)
    write_whole(path, answer.model_dump_json().encode())
    return answer


def _ask(
    generator: TextGenerator,
    request: TextRequest,
    form: type[Answered],
    check: Check | None,
    repairs: int,
) -> Answered:
    for _ in range(repairs + 1):
        text = generator.complete(request).text
        try:
            answer = form.model_validate_json(_json_of(text))
            if check is not None:
                check(answer)
        except (ValidationError, ValueError) as error:
            complaint = f"This does not fit: {_told(error)} Give the whole answer again."
            request = replace(request, turns=(*request.turns, (text, complaint)))
        else:
            return answer
    last, complaint = request.turns[-1]
    raise UnusableAnswerError(
        f"{request.task}: none of {repairs + 1} answers of {generator.fingerprint} can be used. "
        f"{complaint} The last answer began with {last[:200]!r}. Take a larger model, or one "
        "that works offline"
    )


def _told(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return f"{error}."
    told = [f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()]
    return "; ".join(told[:5]) + "."


def _json_of(text: str) -> str:
    """The outermost object of a text: models like to put words or a fence around it."""
    return text[text.find("{") : text.rfind("}") + 1] if "{" in text else text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
