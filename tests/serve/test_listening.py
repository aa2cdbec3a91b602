"""Events are closed whatever becomes of who listens, and at once."""

import asyncio
import gc
from contextlib import contextmanager

import pytest

pytest.importorskip("starlette", reason="serve needs the extra serve")

from mmavlm.serve.listening import Told


class Events:
    """Two lines, of which the second takes as long as nobody closes them."""

    def __init__(self):
        self.told, self.closed = 0, False

    def __iter__(self):
        return self

    def __next__(self):
        self.told += 1
        if self.told > 2:
            raise StopIteration
        return f"{self.told}\n"

    def close(self):
        self.closed = True


@pytest.fixture
def collected_by_nobody():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("leaves_at", [0, 1, 2])
@pytest.mark.parametrize("how", ["breaks", "goes"])
def test_events_are_closed_when_who_listens_leaves(collected_by_nobody, leaves_at, how):
    events, sent, within, kept = Events(), [], [], []

    @contextmanager
    def meanwhile():
        within.append(True)
        try:
            yield
        finally:
            within.append(False)

    async def run():
        left = asyncio.Event()

        async def send(message):
            if message["type"] == "http.response.body":
                if len(sent) == leaves_at:
                    left.set()
                    if how == "breaks":
                        raise OSError
                    await asyncio.sleep(60)
                sent.append(message["body"])

        async def receive():
            await (left if how == "goes" else asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
        await Told(events, "text/plain", meanwhile())(scope, receive, send)

    try:
        asyncio.run(run())
    except BaseException as error:
        kept.append(error)  # what an error holds on to must not keep the line from going on
    assert len(kept) == (how == "breaks")
    assert sent == [b"1\n", b"2\n"][:leaves_at]
    assert events.closed
    assert within == [True, False]
