"""Who is answered, and how events reach them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from anyio import CancelScope
from anyio.to_thread import run_sync
from starlette.concurrency import iterate_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost", "[::1]")
# Nothing is loaded from elsewhere, and nothing said to anyone else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
GUARDS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Closing(Protocol):
    """An iterator that is told when nobody listens any more."""

    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...
    def close(self) -> None:
        """Stop, and leave nothing behind."""


class AsLines:
    """Events as lines of JSON."""

    def __init__(self, events: Closing) -> None:
        self._events = events
        self.close = events.close

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return json.dumps(next(self._events)) + "\n"


class Told(StreamingResponse):
    """Events as they come, in a thread; closed whatever becomes of who listens."""

    def __init__(
        self, events: Closing, media_type: str, meanwhile: AbstractContextManager[None]
    ) -> None:
        super().__init__(iterate_in_threadpool(events), media_type=media_type)
        self._events, self._meanwhile = events, meanwhile

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        with self._meanwhile:
            try:
                await super().__call__(scope, receive, send)
            finally:  # not left to the collector of what was iterated: others stand in the line
                with CancelScope(shield=True):
                    await run_sync(self._events.close)


class Guarded:
    """Only what comes from this machine's own pages and programs is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request from elsewhere, or answer it with the policy of the page."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name not in HOSTS or (origin is not None and origin.partition("://")[2] != host):
            refused = JSONResponse({"error": "only pages of this server may ask it"}, 403)
            await refused(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).update(GUARDS)
            await send(message)

        await self.app(scope, receive, sent)
