"""The addresses of a served model: a page, what it calls, and OpenAI's `/v1`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import create_task_group, sleep
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mmavlm.core.errors import MmavlmError
from mmavlm.loaded.places import kind_of
from mmavlm.serve.limits import Limits, RefusedError
from mmavlm.serve.line import BusyError
from mmavlm.serve.listening import AsLines, Closing, Guarded, Told
from mmavlm.serve.openai_api import Completion, as_error, completed, conversation_of, settings_of
from mmavlm.serve.served import Question, Served
from mmavlm.serve.turns import InTurn
from mmavlm.serve.uploads import TOO_LARGE, received, too_large
from mmavlm.serve.visits import Visit, Visits

PAGE = Path(__file__).parent / "page"
FILES = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "drawing.js": ("drawing.js", "text/javascript"),
}
VISIT = "x-visit"
BUSY = 503
SWEPT_EVERY_S = 20
GONE_EVERY_S = 0.5  # between looks whether a client still waits
BODY_BYTES = 2**20


def served_app(served: Served, visits: Visits) -> FastAPI:
    """The server of some models and those who visit them; visits end with it."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with create_task_group() as tasks:
            tasks.start_soon(_swept, visits)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                visits.close()

    app = FastAPI(title="mmavlm", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guarded)
    app.add_exception_handler(MmavlmError, _refused)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(HTTPException, _not_here)
    _add_page(app, served, visits)
    _add_work(app, served, visits)
    _add_openai(app, served, visits)
    return app


def _add_page(app: FastAPI, served: Served, visits: Visits) -> None:
    """The page, and what a visitor brings."""
    # read once: what is told to be so long is then as long whatever becomes of the disk
    pages = {name: ((PAGE / file).read_bytes(), kind) for name, (file, kind) in FILES.items()}

    @app.get("/{name}")
    @app.get("/")
    async def page(name: str = "") -> Response:
        if name not in pages:
            return JSONResponse({"error": f"there is no {name} here"}, 404)
        content, kind = pages[name]
        return Response(content, headers={"cache-control": "no-cache"}, media_type=kind)

    @app.post("/api/visits")
    async def begin() -> dict[str, Any]:
        models = [
            {"name": model.name, "talks": talks, "watches": model.backbone.heads is not None}
            for model, talks in zip(served.models, served.talks, strict=True)
        ]
        return {"visit": visits.new().visit_id, "models": models, "limits": vars(served.limits)}

    @app.delete("/api/visits")
    async def end(request: Request) -> dict[str, Any]:
        visits.end(request.headers.get(VISIT, ""))
        return {}

    @app.put("/api/films/{name}")
    async def bring(name: str, request: Request) -> dict[str, Any]:
        visit = _visit(visits, request)
        _check_length(request, served.limits.max_bytes, too_large(name, served.limits))
        if kind_of(name) == "sound" and not served.hears:
            raise RefusedError(
                f"{name} is a sound, and no model here hears; give films or pictures"
            )
        film = await received(visit, name, request.stream(), served.limits)
        return {"film": film.film_id, "kind": film.kind, "duration_s": film.duration_s}


def _add_work(app: FastAPI, served: Served, visits: Visits) -> None:
    """What the models are asked for; events as lines of JSON, as they come."""

    @app.post("/api/ask")
    async def ask(request: Request) -> Response:
        told = await _body(request)
        models, films = (_list(told, name) for name in ("models", "films"))
        numbers = tuple(map(_number, models)) or (0,)
        question = Question(_text(told, "text"), tuple(dict.fromkeys(numbers)), tuple(films))
        visit = _visit(visits, request)
        return _lines(visits, visit, served.answers(visit, question))

    @app.post("/api/explain")
    async def explain(request: Request) -> Response:
        told = await _body(request)
        texts = [_text(told, name) for name in ("film", "prompt", "answer")]
        visit, number = _visit(visits, request), _number(told.get("model", 0))
        return _lines(visits, visit, served.explained(visit, number, *texts))

    @app.post("/api/watch")
    async def watch(request: Request) -> Response:
        told = await _body(request)
        texts = [_text(told, name) for name in ("film", "query")]
        visit, number = _visit(visits, request), _number(told.get("model", 0))
        return _lines(visits, visit, served.watched(visit, number, *texts))

    @app.post("/api/forget")
    async def forget(request: Request) -> dict[str, Any]:
        told, visit = await _body(request), _visit(visits, request)
        visit.talks.clear()
        if told.get("films") is True:
            visit.remove_films()
        return {}


def _add_openai(app: FastAPI, served: Served, visits: Visits) -> None:
    """What OpenAI's clients call."""

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        told = [{"id": m.name, "object": "model", "owned_by": "mmavlm"} for m in served.models]
        return {"object": "list", "data": told}

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        told = await _body(request, BODY_BYTES + served.limits.max_films * _base64(served.limits))
        names = [model.name for model in served.models]
        if (name := told.get("model") or names[0]) not in names:
            raise RefusedError(f"there is no model {name!r}; here are {', '.join(names)}", 404)
        number, visit = names.index(name), visits.new(brief=True)
        try:
            talk = await conversation_of(visit, told.get("messages"), served.limits)
            answer = completed(served, number, talk, settings_of(told))
        except BaseException:
            visits.end(visit.visit_id)
            raise
        completion = Completion(served.models[number])
        if told.get("stream"):
            events = _Ended(completion.events(answer), answer, lambda: visits.end(visit.visit_id))
            return Told(events, "text/event-stream", visits.working(visit))
        async with create_task_group() as tasks:
            tasks.start_soon(_watched, request, answer)
            response = await run_sync(_whole, completion, answer, visits, visit)
            tasks.cancel_scope.cancel()
        return response


async def _watched(request: Request, answer: InTurn) -> None:
    """Have an answer stop once nobody waits for it any more."""
    while not await request.is_disconnected():
        await sleep(GONE_EVERY_S)
    answer.leave()


def _whole(completion: Completion, answer: InTurn, visits: Visits, visit: Visit) -> Response:
    try:
        events = list(answer)
    finally:
        answer.close()
        visits.end(visit.visit_id)
    if not events:
        return Response(status_code=400)  # to nobody
    if error := next((event["error"] for event in events if "error" in event), None):
        return JSONResponse(as_error(error), 400)
    return JSONResponse(completion.whole(events))


class _Ended:
    """Events of an answer in other words; closed, the answer is closed, and then what is left."""

    def __init__(self, events: Iterator[str], answer: Closing, end: Any) -> None:
        self._events, self._answer, self._end = events, answer, end

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._events)

    def close(self) -> None:
        try:
            self._answer.close()
        finally:
            self._end()


def _visit(visits: Visits, request: Request) -> Visit:
    return visits.get(request.headers.get(VISIT))


def _base64(limits: Limits) -> int:
    """What a film of the largest size takes in a message."""
    return limits.max_bytes * 4 // 3


def _number(value: object) -> int:
    if type(value) is not int:
        raise RefusedError(f"a model is told by its number, got {value!r}")
    return value


def _text(told: dict[str, Any], name: str) -> str:
    if not isinstance(found := told.get(name, ""), str):
        raise RefusedError(f"{name} must be a text, got {found!r}")
    return found


def _check_length(request: Request, most_bytes: int, error: RefusedError) -> None:
    """Refuse what says of itself that it is too large, before it comes."""
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most_bytes:
        raise error


def _list(told: dict[str, Any], name: str) -> list[Any]:
    found = told.get(name, [])
    if not isinstance(found, list):
        raise RefusedError(f"{name} must be a list, got {found!r}")
    return found


async def _body(request: Request, most_bytes: int = BODY_BYTES) -> dict[str, Any]:
    error = RefusedError(f"the request has more than {most_bytes} bytes", TOO_LARGE)
    _check_length(request, most_bytes, error)
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > most_bytes:
            raise error
    try:
        told = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the request is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise RefusedError("the request must be a JSON object")
    return told


def _lines(visits: Visits, visit: Visit, events: Closing) -> Response:
    return Told(AsLines(events), "application/x-ndjson", visits.working(visit))


async def _swept(visits: Visits) -> None:
    """End visits that are silent, for ever."""
    while True:
        await sleep(SWEPT_EVERY_S)
        await run_sync(visits.sweep)


async def _left(request: Request, error: Exception) -> Response:
    """Nobody is there to be told."""
    return Response(status_code=400)


async def _not_here(request: Request, error: Exception) -> Response:
    """An address that there is none of, or not in this way."""
    assert isinstance(error, HTTPException)
    told = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
    if request.url.path.startswith("/v1/"):
        return JSONResponse(as_error(told), error.status_code, error.headers)
    return JSONResponse({"error": told}, error.status_code, error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RefusedError) else 400
    status = BUSY if isinstance(error, BusyError) else status
    if request.url.path.startswith("/v1/"):
        kind = "server_error" if status == BUSY else "invalid_request_error"
        return JSONResponse(as_error(str(error), kind), status)
    return JSONResponse({"error": str(error)}, status)
