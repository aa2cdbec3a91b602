"""Shards of small films, and a web server on loopback that can be made to fail."""

import io
import json
import tarfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def write_tar(path, members):
    """A tar of members, a dict or pairs of name and bytes; a TarInfo in place of a name is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if not isinstance(name, tarfile.TarInfo):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def captioned(root, films, per_shard, split="train", **rows):
    """WebDataset shards of films with captions; the captions, by their ids as items have them."""
    told = {}
    for number in range(0, len(films), per_shard):
        shard = f"{split}-{number // per_shard:06d}.tar"
        members = {}
        for at, film in enumerate(films[number : number + per_shard], start=number):
            caption = f"film {at} shows a {'dog' if at % 2 else 'cat'}"
            members[f"{at:06d}{film.suffix}"] = film.read_bytes()
            members[f"{at:06d}.json"] = json.dumps({"caption": caption, **rows}).encode()
            told[f"{shard}/{at:06d}"] = caption
        write_tar(root / shard, members)
    return told


class Server:
    """What a folder holds, over HTTP; `faults` are met by the next requests for a file's content.

    A fault is a status such as 500, "half" (the connection ends in the middle), "hang" (nothing
    comes), or "slow" (a few bytes, again and again); None is an answer as it should be.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.faults = defaultdict(list)
        self.asked = Counter()
        self.ended = threading.Event()
        self.address = ""

    def fault(self, name):
        left = self.faults[name]
        return left.pop(0) if left else None

    def always(self, name, fault):
        self.faults[name] = [fault] * 10_000


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            name = self.path.lstrip("/").partition("?")[0]
            path = server.folder / name
            if not path.is_file():
                self.send_error(404)
                return
            fault = server.fault(name) if body else None
            server.asked[name] += body
            if isinstance(fault, int):
                self.send_error(fault)
                return
            content, whole = path.read_bytes(), path.stat().st_size
            asked = self.headers.get("Range")
            if asked:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                first, stop = int(first), min(int(last) + 1 if last else whole, whole)
                content = content[first:stop]
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{whole}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
            self.end_headers()
            if body:
                self.give(content, fault)

        def give(self, content, fault):
            half = len(content) // 2
            if fault is None:
                self.wfile.write(content)
            elif fault == "half":
                self.wfile.write(content[:half])
                self.close_connection = True
            elif fault == "hang":
                server.ended.wait(30)
                self.close_connection = True
            elif fault == "slow":
                for byte in range(len(content)):
                    self.wfile.write(content[byte : byte + 1])
                    self.wfile.flush()
                    if server.ended.wait(0.05):
                        break
                self.close_connection = True

        def handle(self):
            with suppress(ConnectionError, TimeoutError):  # who asked has given up
                super().handle()

    return Handler


@contextmanager
def served(folder):
    """A server of what a folder holds, on a free port of loopback."""
    server = Server(folder)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.address = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield server
    finally:
        server.ended.set()
        http.shutdown()
        thread.join()
        http.server_close()


def seconds_of(work):
    """How long `work` takes, whatever it raises, and what it raised."""
    begun, raised = time.monotonic(), None
    try:
        work()
    except Exception as error:
        raised = error
    return time.monotonic() - begun, raised
