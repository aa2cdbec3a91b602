"""Ten turns of a session about a film against the same turns read from the beginning each time.

    python scripts/bench_turns.py [--turns 10] [--width 256] [--layers 4] [--threads 1] [--json]

Each turn is a question, answered greedily, and the answer that is kept. A `session` reads what is
new alone; the `stateless` path reads all that was said. `alone` is the question without any history
(the first one with the film): what a turn's own tokens cost. All three take turns in one process,
with a Llama of random weights; answers and scores of the first two are compared.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from machine import machine
from mmavlm.core.conversation import Conversation
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import Answer, MediaTokens
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Shown, Turn
from mmavlm.model.llm import PromptedLanguageModel, tiny_llm

QUESTION = "what does the man with the red hat do in front of the prison, and why is he there now?"
FILM = Medium(medium_id="film", source=Path("film.mp4"))


def timed(seconds: list[float], act: Any) -> Any:
    """What an act gives; its seconds are added to the others."""
    start = time.perf_counter()
    found = act()
    seconds.append(time.perf_counter() - start)
    return found


def talk(
    llm: PromptedLanguageModel, film: MediaTokens, options: argparse.Namespace
) -> tuple[dict[str, list[float]], float]:
    """Seconds of each turn in each way, and how far scores are apart."""
    generation = Generation(
        num_beams=1, min_new_tokens=options.answer, max_new_tokens=options.answer
    )
    session, turns, away = llm.session(), [], 0.0
    seconds: dict[str, list[float]] = {"session": [], "stateless": [], "alone": []}
    nothing = MediaTokens(film.tokens[:0], [0])
    for number in range(options.turns):
        question = Turn("user", (Shown(0), QUESTION) if number == 0 else (QUESTION,))
        turns.append(question)
        media = film if number == 0 else None

        def ask(turn: Turn = question, media: MediaTokens | None = media) -> Answer:
            session.append(turn, media=media)
            return session.reply(generation)

        found = timed(seconds["session"], ask)
        whole = Conversation(tuple(turns), (FILM,))
        [[expected]] = timed(
            seconds["stateless"], lambda talk=whole: llm.generate([talk], film, generation)
        )
        own = Conversation((question,), (FILM,) if number == 0 else ())
        seen = film if number == 0 else nothing
        timed(seconds["alone"], lambda o=own, s=seen: llm.generate([o], s, generation))
        if found.text != expected.text:
            raise SystemExit(f"turn {number + 1} is answered differently")
        away = max(away, abs(found.log_prob - expected.log_prob))
        answer = Turn("assistant", (found.text or "nothing",))
        session.append(answer)
        turns.append(answer)
    return seconds, away


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of all turns in each way, medians of repeats, and how far scores are apart."""
    torch.set_num_threads(options.threads)
    llm = tiny_llm(options.width, options.layers, heads=8, max_prompt_tokens=128).eval()
    generator = torch.Generator().manual_seed(0)
    film = MediaTokens(torch.randn(1, options.film, llm.width, generator=generator), [1])
    talk(llm, film, argparse.Namespace(**{**vars(options), "turns": 1}))
    runs = [talk(llm, film, options) for _ in range(options.repeats)]
    ways = runs[0][0]
    each = {
        way: [median(times) for times in zip(*(run[0][way] for run in runs), strict=True)]
        for way in ways
    }
    return {
        "seconds": {way: sum(times) for way, times in each.items()},
        "last_turn": {way: times[-1] for way, times in each.items()},
        "difference": max(run[1] for run in runs),
        "settings": {**vars(options)},
        **machine(),
    }


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--film", type=int, default=320, help="tokens of the film")
    parser.add_argument("--answer", type=int, default=8, help="tokens of an answer")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    result = bench(options)
    if options.json:
        print(json.dumps(result))
        return
    table = Table("way", "seconds", "last turn", title=f"{options.turns} turns")
    for way, seconds in result["seconds"].items():
        table.add_row(way, f"{seconds:.2f}", f"{result['last_turn'][way]:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
