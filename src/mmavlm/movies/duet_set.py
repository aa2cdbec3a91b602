"""A set of films to be watched live, on disk: drawn, and annotated in MMDuet's formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.movies.claim import SET, claim, made
from mmavlm.movies.duet import (
    POSES,
    QUESTIONS,
    SAID_S,
    SOUGHT,
    STYLES,
    DuetFilm,
    DuetSettings,
    Event,
    plan_duet,
)
from mmavlm.movies.encode import write_video
from mmavlm.movies.frames import Actor, FrameSpec, Picture
from mmavlm.movies.generators import ProceduralImages
from mmavlm.movies.generators.grammar import TONES, draw_people
from mmavlm.movies.sprites import draw_token
from mmavlm.movies.vocabulary import Style
from mmavlm.movies.write import split_sizes

BACKDROP = (226, 222, 214)
CLOSE_UP = 0.82  # of the picture's side

Progress = Callable[[int, int], None]


def make_duet_set(
    root: str | Path, settings: DuetSettings, *, progress: Progress | None = None
) -> Path:
    """Make the set below `root`, or what is missing of it, and return `root`.

    Films lie in `videos/`. `questions/` are read by `data=duet_movies`, `searches/` by
    `data=duet_searches`, and `captions/`, which tell all events of a film, by
    `data=dense_captions`; each has a file for every split. `set.json` says what the set is made of.

    Raises:
        ConfigError: if `root` holds a set of other settings, or tables of no made set.
    """
    root, films = Path(root), plan_duet(settings)
    told = json.dumps({"kind": "duet", **asdict(settings)}, indent=1) + "\n"
    claim(root)
    _require_same(root / SET, told)
    made(root)
    images = ProceduralImages(settings.size)
    for done, film in enumerate(films, start=1):
        path = root / "videos" / f"{film.name}.mp4"
        if not path.is_file():
            write_video(draw_duet(film, settings, images), path, settings.fps)
        if progress is not None:
            progress(done, len(films))
    for split in split_sizes(settings.films):
        own = [film for film in films if film.split == split]
        asked = [(film, number) for film in own for number in range(QUESTIONS)]
        _write(
            root / "questions" / f"{split}.json",
            [_question_row(*pair, settings.fps) for pair in asked],
        )
        _write(
            root / "searches" / f"{split}.json",
            [_search_row(*pair, settings.fps) for pair in asked],
        )
        captions = {f"{f.name}.mp4": {"0": [*_captions(f, settings.fps)]} for f in own}
        _write(root / "captions" / f"{split}.json", captions)
    return root


def draw_duet(
    film: DuetFilm, settings: DuetSettings, images: ProceduralImages
) -> Iterator[Picture]:
    """The pictures of a film in order, uint8 (size, size, 3)."""
    rng = np.random.default_rng([*film.seed, 1])
    keyword = STYLES[int(rng.integers(len(STYLES)))]
    stock = images.prepare_style(
        Style.model_validate({"keyword": keyword, "tone": TONES[keyword]}), int(rng.integers(2**31))
    )
    people = draw_people(rng)[:2]
    frames = round(settings.duration_s * settings.fps)
    poses = rng.integers(len(POSES), size=(frames, 2))
    for number in range(frames):
        t_s = number / settings.fps
        event = film.event_at(t_s)
        if event is not None and event.kind == "colour":
            yield stock.era.develop(_close_up(event, settings.size), t_s)
            continue
        acts = poses[int(t_s)]  # people move once a second
        actors = tuple(
            Actor(
                person=p, action=POSES[int(a)], expression="neutral", speaks=POSES[int(a)] == "talk"
            )
            for p, a in zip(people, acts, strict=True)
        )
        place: Any = film.place if event is None else event.value
        (picture,) = images.render([FrameSpec(location=place, actors=actors)], stock, [0])
        yield picture


def _close_up(event: Event, size: int) -> NDArray[np.uint8]:
    """A thing that fills the picture."""
    canvas = Image.new("RGB", (size, size), BACKDROP)
    assert event.thing is not None  # of events of a colour
    sprite = draw_token(event.thing, event.value, round(CLOSE_UP * size))
    corner = (size - sprite.width) // 2
    canvas.paste(sprite, (corner, corner), sprite)
    return np.asarray(canvas)


def _question_row(film: DuetFilm, number: int, fps: int) -> dict[str, Any]:
    asked = film.questions[number]
    answers = [
        {"role": "assistant", **_times(event, fps), "content": event.told(before)}
        for before, event in enumerate(asked.events)
    ]
    question = {"role": "user", "time": asked.time_s, "content": asked.text}
    return {
        "question_id": f"{film.name}/{number}",
        "video_uid": f"{film.name}.mp4",
        "video_start_time": 0.0,
        "conversation": [question, *answers],
    }


def _search_row(film: DuetFilm, number: int, fps: int) -> dict[str, Any]:
    """A search for all that a question asks for, up to the last frame of each cut."""
    asked = film.questions[number]
    seen = [event for event in film.events if event.sort == (asked.kind, asked.value)]
    return {
        "question_id": f"{film.name}/{number}",
        "video_uid": f"{film.name}.mp4",
        "query": SOUGHT[asked.kind].format(asked.value),
        "timestamps": [_times(event, fps)["timespan"] for event in seen],
    }


def _captions(film: DuetFilm, fps: int) -> Iterator[dict[str, Any]]:
    sorts = [event.sort for event in film.events]
    for number, event in enumerate(film.events):
        yield {**_times(event, fps), "text": event.told(sorts[:number].count(event.sort))}


def _times(event: Event, fps: int) -> dict[str, Any]:
    """When an event is told, and the times of its first frame and its last."""
    last_s = round(event.stop_s - 1 / fps, 6)
    return {"time": event.start_s + SAID_S, "timespan": [event.start_s, last_s]}


def _write(path: Path, rows: Any) -> None:
    write_whole(path, (json.dumps(rows, indent=1) + "\n").encode())


def _require_same(path: Path, told: str) -> None:
    """Refuse to make a set where there is one of other settings."""
    if path.is_file() and path.read_text(encoding="utf-8") != told:
        raise ConfigError(
            f"{path.parent} holds another set; give another folder, or the settings of {path}"
        )
    write_whole(path, told.encode())
