"""A movie set with planted bias: pairs of objects that come together in training, not in the test.

In training and validation a pair's companion is there in `bias` of the films that show its anchor
and in 1 − `bias` of the others; in the test, in half of either. So every object is in half of the
films of every split, and what differs is nothing but their company: a model that answers from what
it is used to is wrong where the anchor is there and the companion is not. (The account of the MMA
paper, §1: objects that often come together are told together.)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.files import write_whole
from mmavlm.core.settings import true_or_false
from mmavlm.movies.claim import SET, claim, made
from mmavlm.movies.frames import FrameSpec, ImageGenerator
from mmavlm.movies.generators.grammar import draw_people
from mmavlm.movies.scenery import draw_style, listed, posed
from mmavlm.movies.stories.reel import draw_film, write_rows
from mmavlm.movies.vocabulary import LOCATIONS, Style
from mmavlm.movies.write import split_sizes

PAIRS = (("plant", "bin"), ("clock", "mirror"), ("lamp", "cat"), ("painting", "poster"))
QUESTION = "Is there a {} in the video?"
COUNTERFACTUAL = "counterfactual"  # the name of files about twins
STRATEGIES = ("random", "popular", "adversarial")  # of the absent objects, as POPE names them

Rng = np.random.Generator
Pairs = Sequence[tuple[str, str]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BiasSettings:
    """What a set depends on: `bias` is how often a companion comes with its anchor in training.

    A film has `scenes` places of `frames` frames each; its objects are spread over them, a pair in
    one place, so that longer films take more memory. With `counterfactual` training films have
    twins that lack one object (`write_twins`).

    Raises:
        ConfigError: if a value is outside what can be made.
    """

    films: int = 400
    seed: int = 0
    bias: float = 0.9
    scenes: int = 1
    frames: int = 8
    fps: int = 2
    counterfactual: bool | None = None

    def __post_init__(self) -> None:
        for key, least in {"films": 40, "seed": 0, "scenes": 1, "frames": 1, "fps": 1}.items():
            if getattr(self, key) < least:
                raise ConfigError(f"bias set: {key}={getattr(self, key)} is below {least}")
        if self.counterfactual is not None:
            true_or_false("bias set", counterfactual=self.counterfactual)
        if not 0.5 <= self.bias <= 1.0:
            raise ConfigError(
                f"bias={self.bias} must lie between 0.5 (no bias) and 1 (always together)"
            )


@dataclass(frozen=True)
class BiasedFilm:
    """A film of the set: its split, number, and the objects that it shows."""

    split: str
    number: int
    objects: frozenset[str]


def plan_films(settings: BiasSettings, pairs: Pairs = PAIRS) -> list[BiasedFilm]:
    """Which film shows what: the shares are kept exactly, up to rounding, in every split."""
    films: list[BiasedFilm] = []
    for order, (split, count) in enumerate(split_sizes(settings.films).items()):
        rng = np.random.default_rng([settings.seed, order])
        shown: list[set[str]] = [set() for _ in range(count)]
        for anchor, companion in pairs:
            share = 0.5 if split == "test" else settings.bias
            films_of = rng.permutation(count)
            with_anchor, without = films_of[: count // 2], films_of[count // 2 :]
            for index in with_anchor:
                shown[index].add(anchor)
            together = with_anchor[: round(share * len(with_anchor))]
            alone = without[: round((1.0 - share) * len(without))]
            for index in (*together, *alone):
                shown[index].add(companion)
        films += [BiasedFilm(split, len(films) + i, frozenset(s)) for i, s in enumerate(shown)]
    return films


def make_bias_set(
    root: str | Path,
    settings: BiasSettings,
    images: ImageGenerator,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make the set below `root`, or what is missing of it, and return its statistics.

    It can be read three ways: `{train,val,test}.jsonl` are yes/no questions (`data=own_videos`),
    `captions/` what the films show (`data=captions`), and `pope/` probes of the test films by the
    choice of the absent object (`data=pope`): adversarial is absent though its partner is there.

    Raises:
        ConfigError: if the settings cannot be made, or `root` holds tables of no made set.
    """
    root = Path(root)
    claim(root)
    kept = asdict(settings)
    del kept["counterfactual"]  # twins are beside the set, and change nothing of it
    told_of = {"settings": kept, "image": images.fingerprint}
    if _is_another_set(root, told_of):
        remove_twins(root)
    films = plan_films(settings)
    videos = {}
    for film in films:
        style, frames = _scenes(film, settings)
        path = draw_film(root / "films", frames, style, images, settings.fps)
        videos[film.number] = path.relative_to(root).as_posix()
        if progress is not None:
            progress(len(videos), len(films))
    for split in split_sizes(settings.films):
        own = [film for film in films if film.split == split]
        asked = [r for f in own for r in _question_rows(f, videos[f.number])]
        write_rows(root / f"{split}.jsonl", asked)
        told = [{"id": name_of(f), "video": videos[f.number], "caption": _caption(f)} for f in own]
        write_rows(root / "captions" / f"{split}.jsonl", told)
    test = [film for film in films if film.split == "test"]
    seen = Counter(name for film in films if film.split == "train" for name in film.objects)
    counts = {}
    for strategy in STRATEGIES:
        rows = list(_probes(test, videos, strategy, seen, settings.seed))
        write_rows(root / "pope" / f"pope_{strategy}.jsonl", rows)
        counts[strategy] = Counter(row["label"] for row in rows)
    if settings.counterfactual:
        write_twins(root, films, videos, settings, images)
    found = {**told_of, "pairs": statistics(films), "probes": counts}
    write_whole(root / SET, (json.dumps(found, indent=1) + "\n").encode())
    made(root)
    return found


def _is_another_set(root: Path, told_of: Mapping[str, Any]) -> bool:
    """Whether `set.json` below `root` is of other films than these, or there is none."""
    try:
        before = json.loads((root / "set.json").read_bytes())
    except (OSError, ValueError):
        return True
    return any(before.get(key) != value for key, value in told_of.items())


def remove_twins(root: Path) -> None:
    """Remove the files about twins, which are of the films that were there before."""
    for folder in (root, root / "captions"):
        (folder / f"{COUNTERFACTUAL}.jsonl").unlink(missing_ok=True)


def write_twins(
    root: Path,
    films: Iterable[BiasedFilm],
    videos: Mapping[int, str],
    settings: BiasSettings,
    images: ImageGenerator,
) -> None:
    """Draw twins of the training films that show an entire pair, each without one of its objects.

    All else of a twin is that of its film: place, people, style, seeds, poses. Which pair and
    which of the two is drawn by seed and film. `counterfactual.jsonl` asks for both objects of the
    pair, with the film that a twin is of (`counterfactual_of`) and the object that it lacks
    (`removed`); `captions/counterfactual.jsonl` says what twins show.
    """
    asked: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for film in films:
        if film.split != "train" or (lost := _lost(film, settings)) is None:
            continue
        pair, removed = lost
        twin = replace(film, objects=film.objects - {removed})
        style, frames = _scenes(twin, settings)
        original = videos[film.number]
        key = Path(original).parent.name
        path = draw_film(root / "films", frames, style, images, settings.fps, twin_of=key)
        video = path.relative_to(root).as_posix()
        of_film = {"counterfactual_of": original, "removed": removed}
        name = f"{name_of(film)}-{removed}"
        rows = (row for row in _question_rows(twin, video) if pair_of(row["id"]) == pair)
        asked += [
            {**row, "id": f"{name}_{row['id'].rpartition('_')[2]}", **of_film} for row in rows
        ]
        told.append({"id": name, "video": video, "caption": _caption(twin), **of_film})
    write_rows(root / f"{COUNTERFACTUAL}.jsonl", asked)
    write_rows(root / "captions" / f"{COUNTERFACTUAL}.jsonl", told)


def _lost(film: BiasedFilm, settings: BiasSettings) -> tuple[str, str] | None:
    """The pair, named by its anchor, and the object that a film's twin lacks of it."""
    entire = [pair for pair in PAIRS if film.objects.issuperset(pair)]
    if not entire:
        return None
    rng = np.random.default_rng([settings.seed, 13, film.number])
    pair = entire[int(rng.integers(len(entire)))]
    return pair[0], pair[int(rng.integers(2))]


def statistics(films: Iterable[BiasedFilm], pairs: Pairs = PAIRS) -> list[dict[str, Any]]:
    """Of each split and pair: films, films with the anchor, and shares of the companion."""
    by_split: dict[str, list[BiasedFilm]] = {}
    for film in films:
        by_split.setdefault(film.split, []).append(film)
    rows = []
    for split, own in by_split.items():
        for anchor, companion in pairs:
            with_anchor = [companion in film.objects for film in own if anchor in film.objects]
            without = [companion in film.objects for film in own if anchor not in film.objects]
            rows.append(
                {
                    "split": split,
                    "anchor": anchor,
                    "companion": companion,
                    "films": len(own),
                    "with_anchor": len(with_anchor),
                    "companion_with_anchor": _mean(with_anchor),
                    "companion_without": _mean(without),
                }
            )
    return rows


def pair_of(item_id: str) -> str:
    """The pair, named by its anchor, that what a question asks for is of.

    Ids of sets of objects end in the object, those of other kinds in anchor and what is asked for
    (`film00003_cat-meow`).

    Raises:
        DataError: if the question is none of such a set.
    """
    name = item_id.rpartition("_")[2]
    carried, dash, _ = name.partition("-")
    if dash:
        return carried
    for anchor, companion in PAIRS:
        if name in (anchor, companion):
            return anchor
    raise DataError(f"item {item_id!r} asks for no object of a set with planted bias")


def _mean(values: Sequence[bool]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0


def _scenes(film: BiasedFilm, settings: BiasSettings) -> tuple[Style, list[FrameSpec]]:
    """The film's style and frames: two people in one place after another, things around them."""
    rng = np.random.default_rng([settings.seed, 7, film.number])
    style = draw_style(rng)
    people = draw_people(rng)[:2]
    scene_of = {pair: int(rng.integers(settings.scenes)) for pair in PAIRS}
    places = [LOCATIONS[i] for i in rng.permutation(len(LOCATIONS))]
    frames: list[FrameSpec] = []
    for scene in range(settings.scenes):
        here = {name for pair, at in scene_of.items() if at == scene for name in pair}
        decor = tuple(sorted(here & film.objects))
        for _ in range(settings.frames):
            actors = posed(people, rng)
            place = places[scene % len(places)]
            # An empty room has no furniture either: it would be another object.
            frames.append(FrameSpec(location=place, actors=actors, decor=decor, furnished=False))
    return style, frames


def _question_rows(film: BiasedFilm, video: str) -> Iterator[dict[str, Any]]:
    """A question about every object; the tasks tell what is likely where it is asked."""
    for anchor, companion in PAIRS:
        for name, partner in ((anchor, companion), (companion, anchor)):
            there = name in film.objects
            likely = "likely" if partner in film.objects else "unlikely"
            yield {
                "id": f"{name_of(film)}_{name}",
                "video": video,
                "prompt": QUESTION.format(name),
                "answer": "yes" if there else "no",
                "task": f"{'present' if there else 'absent'}_{likely}",
            }


def _probes(
    films: Sequence[BiasedFilm],
    videos: Mapping[int, str],
    strategy: str,
    seen: Counter[str],
    seed: int,
) -> Iterator[dict[str, Any]]:
    """As many questions about what is there as about what is not, film by film."""
    number = 0
    for film in films:
        rng = np.random.default_rng([seed, 11, film.number])
        there = sorted(film.objects)
        order = [there[int(i)] for i in rng.permutation(len(there))]
        for present, absent in zip(order, _absent(film, strategy, seen, rng), strict=False):
            for name, label in ((present, "yes"), (absent, "no")):
                number += 1
                yield {
                    "question_id": number,
                    "video": videos[film.number],
                    "text": QUESTION.format(name),
                    "label": label,
                    "object": name,
                }


def _absent(film: BiasedFilm, strategy: str, seen: Counter[str], rng: Rng) -> list[str]:
    absent = sorted({name for pair in PAIRS for name in pair} - film.objects)
    drawn = [absent[int(i)] for i in rng.permutation(len(absent))]
    if strategy == "popular":
        return sorted(drawn, key=lambda name: -seen[name])
    if strategy == "adversarial":
        partner = {**dict(PAIRS), **{companion: anchor for anchor, companion in PAIRS}}
        return [name for name in drawn if partner[name] in film.objects]
    return drawn


def _caption(film: BiasedFilm) -> str:
    if not film.objects:
        return "A man and a woman are in an empty room."
    return f"A man and a woman are in a room with {listed(film.objects)}."


def name_of(film: BiasedFilm) -> str:
    """The name of a film in ids."""
    return f"film{film.number:05d}"
