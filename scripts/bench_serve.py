"""How soon a served model answers: first word, words a second, and a frame of a film that runs.

    python scripts/bench_serve.py [--threads 2] [--answers 3] [--sizes small,middle] [--json]

A server of its own is started for each model, as `python -m mmavlm.serve` starts it, with random
weights of two sizes; what is said does not matter for what it costs. A visitor brings a film of 20
seconds, asks about it, asks again, and begins anew, over the loopback. Times are the visitor's own,
wall clock, medians over `--answers` rounds; beside them stands `model.ask` on the same film without
a server.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table

import mmavlm
from machine import machine
from mmavlm.movies.encode import write_video

FRAMES, TOKENS, FILM_S, FPS = 16, 32, 20, 8
ASKED = [
    "experiment=zero_shot_own_videos",
    "model=tiny",
    "init.allow_random=true",
    f"data.num_frames={FRAMES}",
    f"stage.min_new_tokens={TOKENS}",
    f"stage.max_new_tokens={TOKENS}",
    "stage.num_beams=1",
]
WATCHED = ["experiment=duet_movies", "init.allow_random=true"]
# A ViT-B, a Q-Former as large as BERT-base, a Llama of 12 layers: a twentieth of a model in use.
LLM = ["llm.width=768", "llm.layers=12", "llm.heads=12"]
MIDDLE = ["encoder=timm", "encoder.pretrained=false", *LLM]
SIZES = {
    "small": ([], []),
    "middle": ([*MIDDLE, "qformer=base", "qformer_queries=32"], MIDDLE),
}


def film(folder: Path) -> Path:
    """A film of squares that move."""
    path = folder / "film.mp4"
    pictures = np.full((FILM_S * FPS, 240, 320, 3), 60, np.uint8)
    for number, picture in enumerate(pictures):
        at = number * 280 // len(pictures)
        picture[80:140, at : at + 40] = (220, 90, 40)
    write_video(pictures, path, FPS)
    return path


@contextmanager
def served(lines: Sequence[str], threads: int) -> Iterator[httpx.Client]:
    """A client of a server of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    server = subprocess.Popen(
        [sys.executable, "-m", "mmavlm.serve", *lines, "port=0", "open=false"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        address = next(word for line in server.stdout for word in line.split() if "://" in word)
        with httpx.Client(base_url=address, timeout=600) as client:
            client.headers["x-visit"] = client.post("/api/visits").json()["visit"]
            yield client
    finally:
        server.terminate()
        server.wait()


def brought(client: httpx.Client, path: Path) -> str:
    """The server's name of a film that is brought to it."""
    told: str = client.put(f"/api/films/{path.name}", content=path.read_bytes()).json()["film"]
    return told


def asked(client: httpx.Client, text: str, films: Sequence[str]) -> tuple[float, float]:
    """Seconds to the first piece of an answer, and to its end."""
    begun, first_s = time.perf_counter(), 0.0
    body = {"text": text, "films": list(films)}
    with client.stream("POST", "/api/ask", json=body) as answer:
        for line in answer.iter_lines():
            event = json.loads(line)
            if "error" in event:
                raise RuntimeError(f"the server says: {event['error']}")
            if "piece" in event and not first_s:
                first_s = time.perf_counter() - begun
    return first_s, time.perf_counter() - begun


def talked(size: str, path: Path, threads: int, rounds: int) -> dict[str, float]:
    """What a first and a second question about a film take a visitor."""
    lines = [*ASKED, *SIZES[size][0]]
    first, again = [], []
    with served(lines, threads) as client:
        asked(client, "what happens?", [brought(client, path)])  # nothing is warm before
        for _ in range(rounds):
            client.post("/api/forget", json={"films": True})
            first.append(asked(client, "what happens?", [brought(client, path)]))
            again.append(asked(client, "and then?", []))
    torch.set_num_threads(threads)
    pairs = (line.split("=", 1) for line in lines)
    model = mmavlm.load(**{name: yaml.safe_load(value) for name, value in pairs}, device="cpu")
    alone = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        model.ask(path, "what happens?")
        alone.append(time.perf_counter() - begun)
    of_words = [(TOKENS - 1) / (end_s - first_s) for first_s, end_s in (*first, *again)]
    return {
        "weights_million": sum(p.numel() for p in model.backbone.parameters()) / 1e6,
        "first_word_s": median(first_s for first_s, _ in first),
        "answer_s": median(end_s for _, end_s in first),
        "ask_alone_s": median(alone[1:]),
        "first_word_again_s": median(first_s for first_s, _ in again),
        "tokens_s": median(of_words),
    }


def watched(size: str, path: Path, threads: int) -> dict[str, float]:
    """What a frame of a film takes that is watched as it runs, and what a reply does."""
    with served([*WATCHED, *SIZES[size][1]], threads) as client:
        told = brought(client, path)
        body = {"film": told, "query": "Tell me when the square is on the right."}
        for _ in range(2):  # the second time all is warm
            taken: dict[str, list[float]] = {"frame": [], "reply": []}
            last_s = time.perf_counter()
            with client.stream("POST", "/api/watch", json=body) as moments:
                for line in moments.iter_lines():
                    moment, now_s = json.loads(line).get("moment", {}), time.perf_counter()
                    kind = "reply" if moment.get("reply") else "frame"
                    if moment and not moment.get("query"):
                        taken[kind].append(now_s - last_s)
                    last_s = now_s
    found = {f"watched_{kind}_ms": 1000 * median(of) for kind, of in taken.items() if of}
    return {"watched_frames": len(taken["frame"]), "replies": len(taken["reply"]), **found}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--answers", type=int, default=3, help="rounds that medians are taken over")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = film(Path(folder))
        for size in options.sizes.split(","):
            found[size] = talked(size, path, options.threads, options.answers)
            found[size] |= watched(size, path, options.threads)
    told: dict[str, Any] = {"machine": machine() | {"threads": options.threads}, "sizes": found}
    if options.json:
        print(json.dumps(told, indent=1))
        return
    table = Table("", *found, title=str(told["machine"]))
    for name in dict.fromkeys(name for of_size in found.values() for name in of_size):
        table.add_row(name, *(f"{of_size.get(name, math.nan):.3g}" for of_size in found.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
