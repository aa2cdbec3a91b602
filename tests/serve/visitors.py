"""Those who visit a served model in the tests, and a server for them."""

import json
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from mmavlm.serve.served import Served
from mmavlm.serve.visits import Visits

UNTRAINED = {
    "experiment": "zero_shot_own_videos", "model": "tiny", "init.allow_random": True,
    "data.num_frames": 4, "stage.min_new_tokens": 4, "stage.max_new_tokens": 5,
}  # fmt: skip


class Visitor:
    """A client of the page's own calls."""

    def __init__(self, address):
        self.client = httpx.Client(base_url=address, timeout=60)
        self.told = self.client.post("/api/visits").json()
        self.client.headers["x-visit"] = self.told["visit"]

    def bring(self, path, name=None):
        return self.client.put(f"/api/films/{name or path.name}", content=path.read_bytes())

    def events(self, address, **body):
        with self.client.stream("POST", address, json=body) as answer:
            if answer.status_code != 200:
                answer.read()
                yield {"status": answer.status_code, **answer.json()}
                return
            for line in answer.iter_lines():
                yield json.loads(line)

    def ask(self, text, *films, models=(0,)):
        return [*self.events("/api/ask", text=text, films=films, models=models)]


@contextmanager
def serving(models, limits):
    """A server on a free port of this machine: its address, its models and its visits."""
    uvicorn = pytest.importorskip("uvicorn", reason="serve needs the extra serve")
    pytest.importorskip("fastapi", reason="serve needs the extra serve")
    from mmavlm.serve.app import served_app
    from mmavlm.serve.running import _socket

    served, visits = Served(models, limits), Visits(limits)
    server = uvicorn.Server(uvicorn.Config(served_app(served, visits), log_level="warning"))
    with _socket(0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", served, visits
        finally:
            server.should_exit = True
            thread.join(30)
