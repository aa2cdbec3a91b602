"""`/v1/chat/completions` as OpenAI's clients speak it, with films, pictures and sounds in messages.

What is shown comes in the message itself, as base64: `{"type": "video_url", "video_url": {"url":
"data:video/mp4;base64,…"}}`, `image_url` likewise, or `{"type": "input_audio", "input_audio":
{"data": "…", "format": "wav"}}`. No address is fetched and no path is read.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from typing import Any

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import MmavlmError
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Part, Role, Shown, Turn
from mmavlm.loaded.model import LoadedModel
from mmavlm.serve.limits import Limits, RefusedError
from mmavlm.serve.served import Served, answered
from mmavlm.serve.turns import Event, InTurn, Until
from mmavlm.serve.uploads import received
from mmavlm.serve.visits import Visit

DATA = re.compile(r"data:([a-z]+)/([\w.+-]+);base64,", re.IGNORECASE)
ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
# What a media type calls a file that has another ending.
ENDINGS = {"quicktime": "mov", "x-matroska": "mkv", "x-msvideo": "avi", "jpeg": "jpg",
           "mpeg": "mp3", "x-wav": "wav"}  # fmt: skip
MOST_TOKENS = 2**20
SETTINGS = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "stage.max_new_tokens",
            "max_completion_tokens": "stage.max_new_tokens"}  # fmt: skip
ONE = "only one answer is given (n=1)"


async def conversation_of(visit: Visit, messages: Any, limits: Limits) -> Conversation:
    """The conversation of messages; what they show is kept by the visit.

    Raises:
        RefusedError: naming the message and what is wrong with it.
        DataError: if roles or texts are none that a conversation has.
    """
    if not isinstance(messages, list) or not messages:
        raise RefusedError("messages must be a list of objects with a role and content")
    media: list[Medium] = []
    turns = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            told = message.get("role") if isinstance(message, dict) else message
            raise RefusedError(f"messages[{number}] has the role {told!r}, not one of {[*ROLES]}")
        parts: list[Part] = []
        content = message.get("content") or ""
        if not isinstance(content, str | list):
            raise RefusedError(
                f"messages[{number}] has content {content!r}; expected a text or a list"
            )
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if isinstance(part, dict) and part.get("type") == "text":
                if not isinstance(text := part.get("text"), str):
                    raise RefusedError(f"messages[{number}] has a part 'text' that is {text!r}")
                parts.append(text)
            else:
                medium = await _medium(visit, part, f"messages[{number}]", limits)
                parts.append(Shown(len(media)))
                media.append(medium)
        turns.append(Turn(ROLES[message["role"]], tuple(parts)))
    return Conversation(tuple(turns), tuple(media))


async def _medium(visit: Visit, part: Any, where: str, limits: Limits) -> Medium:
    """A film, picture or sound that comes in a message."""
    kind = part.get("type") if isinstance(part, dict) else None
    told = part.get(kind) if isinstance(kind, str) else None
    if kind in ("video_url", "image_url") and isinstance(told, str):
        told = {"url": told}
    if kind in ("video_url", "image_url") and isinstance(told, dict):
        url = str(told.get("url", ""))
        if (head := DATA.match(url)) is None:
            raise RefusedError(
                f"{where}: {kind} must be base64 in the message (data:video/mp4;base64,…); this "
                "server fetches no addresses and reads no paths"
            )
        ending, content = head[2].lower(), url[head.end() :]
        ending = ENDINGS.get(ending, ending)
    elif kind == "input_audio" and isinstance(told, dict):
        ending, content = str(told.get("format", "wav")), str(told.get("data", ""))
    else:
        raise RefusedError(
            f"{where} has a part of type {kind!r}; expected text, video_url, image_url or "
            "input_audio"
        )
    if len(content) * 3 // 4 > limits.max_bytes:
        raise RefusedError(f"{where}: more than {limits.max_mb:g} MB are shown", 413)
    try:
        raw = base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise RefusedError(f"{where}: what is shown is no base64 ({error})") from error

    async def pieces() -> AsyncIterator[bytes]:
        yield raw

    film = await received(visit, f"{where}.{ending}", pieces(), limits)
    return Medium(medium_id=film.film_id, source=film.path, kind=film.kind)


def settings_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says of how it is answered, as settings of `chat`.

    Raises:
        RefusedError: if it asks for what is not given.
    """
    if body.get("n", 1) not in (1, None):
        raise RefusedError(ONE)
    form = body.get("response_format") or {}
    if body.get("tools") or not isinstance(form, dict) or form.get("type", "text") != "text":
        raise RefusedError("tools and response_format are not there: a model answers with text")
    return {
        ours: _number(name, body[name])
        for name, ours in SETTINGS.items()
        if body.get(name) is not None
    }


def _number(name: str, value: object) -> float | int:
    whole = name not in ("temperature", "top_p")
    good = type(value) is int or (not whole and type(value) is float)
    least, most = (1, MOST_TOKENS) if whole else (0, 2 if name == "temperature" else 1)
    if not good or not least <= value <= most:  # type: ignore[operator]  # a number by now
        raise RefusedError(
            f"{name} must be a {'whole ' * whole}number from {least} to {most}, got {value!r}"
        )
    return value  # type: ignore[return-value]


def completed(
    served: Served, number: int, talk_of: Conversation, settings: Mapping[str, Any]
) -> InTurn:
    """The answer to the last message, piece by piece."""
    model = served.model(number)

    def work(_: InTurn) -> Generator[Event, None, None]:
        talk = model.chat(**settings)
        question = talk.chat.take(talk_of)
        if question is None:
            raise MmavlmError("the last message is the assistant's; end with one of the user's")
        yield from answered(talk, question, (), Until(served.limits.answer_s))

    return InTurn(served.line, work)


class Completion:
    """One answer in OpenAI's words, whole or in pieces."""

    def __init__(self, model: LoadedModel) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(8)}",
            "created": int(time.time()),
            "model": model.name,
        }

    def whole(self, told: Sequence[Event]) -> dict[str, Any]:
        """All of it."""
        text = "".join(event.get("piece", "") for event in told)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": _finish(told[-1])}
        return {**self._head, "object": "chat.completion", "choices": [choice]}

    def events(self, told: Iterator[Event]) -> Iterator[str]:
        """Piece by piece, as server-sent events."""
        yield self._chunk({"role": "assistant", "content": ""})
        event: Event = {}
        for event in told:
            if "piece" in event:
                yield self._chunk({"content": event["piece"]})
            elif "error" in event:
                yield f"data: {json.dumps(as_error(event['error']))}\n\n"
                return
        yield self._chunk({}, _finish(event))
        yield "data: [DONE]\n\n"

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        told = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {json.dumps(told)}\n\n"


def _finish(last: Event) -> str:
    """Why an answer ends, by its last event."""
    return "length" if last.get("cut") else "stop"


def as_error(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    """An error in OpenAI's words."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}
