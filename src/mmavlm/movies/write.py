"""A whole movie set on disk: films, LVU annotation, captions, cuts and scripts."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmavlm.core.errors import ConfigError
from mmavlm.movies.captions import write_caption
from mmavlm.movies.claim import refuse_tables
from mmavlm.movies.cuts import TASK, cut_rows
from mmavlm.movies.encode import Sound, write_text, write_video
from mmavlm.movies.labels import ANSWERS
from mmavlm.movies.plot import plan_labels, write_script
from mmavlm.movies.render import render
from mmavlm.movies.script import Movie
from mmavlm.movies.sound import RATE_HZ, alarm_of, sound_rows, soundtrack
from mmavlm.movies.sound import TASK as SOUND_TASK

GENERATOR_VERSION = 4
SPLITS = ("train", "val", "test")
PARAMETERS, MANIFEST = "parameters.json", "manifest.json"
LVU_FPS = 10  # the grid LVU counts num_frames on, whatever the file's own rate
MIN_DURATION_S, MIN_SIZE = 2, 32

Progress = Callable[[int, int], None]
Planned = tuple[str, str, dict[str, str], tuple[int, int]]  # split, id, labels, seed of a film


@dataclass(frozen=True)
class MovieSetParameters:
    """All that a set depends on; two sets with equal parameters are equal byte for byte.

    Raises:
        ConfigError: if a value is outside what can be made.
    """

    clips: int = 400
    seed: int = 0
    duration_s: float = 12
    fps: int = 10
    size: int = 96
    generator_version: int = GENERATOR_VERSION
    sound: bool = False

    def __post_init__(self) -> None:
        wanted = {
            "clips": (self.clips >= len(SPLITS), f"at least {len(SPLITS)}, one for each split"),
            "seed": (self.seed >= 0, "0 or more"),
            "duration_s": (self.duration_s >= MIN_DURATION_S, f"at least {MIN_DURATION_S} seconds"),
            "fps": (self.fps >= 1, "at least 1"),
            "size": (
                self.size >= MIN_SIZE and self.size % 2 == 0,
                f"an even number of pixels, at least {MIN_SIZE}",
            ),
        }
        for key, (fits, expected) in wanted.items():
            if not fits:
                raise ConfigError(
                    f"movie set: {key}={getattr(self, key)} cannot be made; give {expected}"
                )

    def as_dict(self) -> dict[str, Any]:
        """The parameters as JSON values; those of a silent set do not speak of sound."""
        plain = asdict(self)
        return plain if self.sound else {k: v for k, v in plain.items() if k != "sound"}

    @property
    def split_sizes(self) -> dict[str, int]:
        """How many films each split has: about 70, 10 and 20 %, at least one."""
        return split_sizes(self.clips)


def split_sizes(films: int) -> dict[str, int]:
    """How many of at least three films each split has: about 70, 10 and 20 %, at least one."""
    val, test = max(1, round(0.1 * films)), max(1, round(0.2 * films))
    return {"train": films - val - test, "val": val, "test": test}


def ensure_movie_set(
    root: str | Path,
    *,
    clips: int = 400,
    seed: int = 0,
    duration_s: float = 12,
    fps: int = 10,
    size: int = 96,
    sound: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Make the synthetic movie set below `root`, or what is missing of it, and return `root`.

    `size` is the side of the square picture in pixels. With `sound` films have a track, and
    `sound/{train,val,test}.jsonl` asks what only the track tells, and what only pictures tell.
    `workers` > 0 draws in so many processes; `progress` is called with (films done, films in all).
    A set that was broken off is completed.

    Raises:
        ConfigError: if a parameter cannot be made, or `root` holds a set of other parameters or
            an `lvu` folder or tables that this did not make.
    """
    root = Path(root)
    parameters = MovieSetParameters(clips, seed, float(duration_s), fps, size, sound=sound)
    if _is_complete(root, parameters):
        return root
    write_text(root / PARAMETERS, _json(parameters.as_dict()))
    make = partial(_make_movie, root, parameters)
    planned = list(_planned(parameters))
    for done, _ in enumerate(_each(make, planned, workers), start=1):
        if progress is not None:
            progress(done, len(planned))
    _write_tables(root, parameters)
    write_text(root / MANIFEST, _json({**parameters.as_dict(), "splits": parameters.split_sizes}))
    return root


def plan_movies(parameters: MovieSetParameters) -> Iterator[tuple[str, Movie]]:
    """The split and the script of every film of a set, in the order of their ids."""
    for split, movie_id, labels, seed in _planned(parameters):
        yield split, write_script(movie_id, labels, parameters.duration_s, seed)


def _planned(parameters: MovieSetParameters) -> Iterator[Planned]:
    index = 0
    for number, (split, count) in enumerate(parameters.split_sizes.items()):
        rng = np.random.default_rng([parameters.seed, 0, number])
        for labels in plan_labels(count, rng):
            yield split, f"movie{index:05d}", labels, (parameters.seed, index + 1)
            index += 1


def _is_complete(root: Path, parameters: MovieSetParameters) -> bool:
    asked = parameters.as_dict()
    for name in (MANIFEST, PARAMETERS):
        if (root / name).exists():
            found = _read_parameters(root / name)
            if found != asked:
                raise ConfigError(
                    f"{root} holds a movie set made with {_differing(found, asked)}, but "
                    f"{_differing(asked, found)} is asked for; choose another folder or delete "
                    "this one"
                )
            return name == MANIFEST
    if (root / "lvu").exists():
        raise ConfigError(
            f"{root / 'lvu'} exists and was not made by the movie generator (there is no "
            f"{PARAMETERS}); choose an empty folder for the movie set"
        )
    refuse_tables(root)
    return False


def _read_parameters(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found.pop("splits", None)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not a movie set's list of parameters ({error}); delete the folder "
            f"{path.parent} to have the set made anew"
        ) from error
    return found


def _differing(these: dict[str, Any], those: dict[str, Any]) -> str:
    missing = object()
    return ", ".join(
        f"{key}={value}" for key, value in these.items() if those.get(key, missing) != value
    )


def _each(make: Callable[[Planned], None], planned: list[Planned], workers: int) -> Iterator[None]:
    if workers < 1:
        yield from map(make, planned)
        return
    # A forked child may inherit locks that torch's threads hold, so children start afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(make, planned, chunksize=4)


def _make_movie(root: Path, parameters: MovieSetParameters, planned: Planned) -> None:
    """One film and then its script; a film whose script is there is whole and is left alone."""
    _, movie_id, labels, seed = planned
    script = root / "lvu" / "script" / f"{movie_id}.json"
    video = root / _video(movie_id)
    if script.exists() and video.exists():
        return
    movie = write_script(movie_id, labels, parameters.duration_s, seed)
    pictures = render(movie, fps=parameters.fps, size=parameters.size)
    sound = None
    if parameters.sound:
        sound = Sound(soundtrack(movie, alarm_of(parameters.seed, seed[1] - 1)), RATE_HZ)
    write_video(pictures, video, parameters.fps, sound)
    write_text(script, _json(movie.to_dict()))


def _write_tables(root: Path, parameters: MovieSetParameters) -> None:
    movies = list(plan_movies(parameters))
    alarms = {m.movie_id: alarm_of(parameters.seed, i) for i, (_, m) in enumerate(movies)}
    for split in SPLITS:
        own = [movie for name, movie in movies if name == split]
        rows = {movie.movie_id: annotation_row(movie, split) for movie in own}
        write_text(root / "lvu" / "annotation" / f"{split}.json", _json(rows))
        captions = [
            {"id": m.movie_id, "video": _video(m.movie_id), "caption": write_caption(m)}
            for m in own
        ]
        cuts = [row for m in own for row in cut_rows(m, _video(m.movie_id))]
        tables = [("captions", captions), (TASK, cuts)]
        if parameters.sound:
            heard = [r for m in own for r in sound_rows(m, alarms[m.movie_id], _video(m.movie_id))]
            tables.append((SOUND_TASK, heard))
        for folder, lines in tables:
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
            write_text(root / folder / f"{split}.jsonl", text)


def annotation_row(movie: Movie, split: str) -> dict[str, Any]:
    """A film's row of `{split}.json` in LVU's format: every task's label and option letter."""
    row: dict[str, Any] = {
        "subset": split,
        "duration": int(movie.duration_s),
        "num_frames": round(movie.duration_s * LVU_FPS),
    }
    for task, label in movie.labels.items():
        row[task] = label
        row[f"{task}_answer"] = f"({ANSWERS[task][label]})"
    return row


def _video(movie_id: str) -> str:
    return f"lvu/videos/{movie_id}.mp4"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
