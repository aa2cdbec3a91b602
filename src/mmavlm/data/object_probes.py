"""POPE for video: questions about objects, made from captions.

POPE (EMNLP 2023) asks of each image about objects that are in it and as many that are not, the
absent ones drawn at random, from the most frequent ones, or from those that most often come with
one that is there. Here the captions of a film say what is in it.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.files import write_whole
from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import listed
from mmavlm.data.readers.pope import STRATEGIES
from mmavlm.metrics import ObjectVocabulary


@dataclass(frozen=True)
class Described:
    """A stretch of film and what its captions name: object → how many captions name it."""

    video: str
    start_s: float
    end_s: float | None
    named: Mapping[str, int]
    captions: int

    def present(self, agree: int) -> list[str]:
        """The objects that at least `agree` captions name (all of them, if there are fewer)."""
        enough = min(agree, self.captions)
        return [name for name, count in self.named.items() if count >= enough]


def describe(items: Iterable[Item], vocabulary: ObjectVocabulary, root: Path) -> list[Described]:
    """Each film, or stretch of it, with what all its captions name, sorted by name and time.

    Raises:
        DataError: if a film does not lie below the root, or an item is not about one film.
    """
    captions: dict[tuple[str, float, float | None], dict[str, None]] = {}
    for item in items:
        film = item.film
        try:
            video = film.source.relative_to(root).as_posix()
        except ValueError:
            raise DataError(f"{film.source} does not lie below data.root={root}") from None
        texts = captions.setdefault((video, film.start_s, film.end_s), {})
        texts.update(dict.fromkeys([item.target, *item.references]))
    films = []
    for (video, start_s, end_s), texts in captions.items():
        named = Counter(name for text in texts for name in dict.fromkeys(vocabulary.mentions(text)))
        films.append(Described(video, start_s, end_s, named, len(texts)))
    return sorted(films, key=lambda film: (film.video, film.start_s))


class ProbeMaker:
    """Questions about objects that are there and, for each of these, one that no caption names.

    Of each film up to `per_film` objects are asked for that at least `agree` of its captions name;
    a film without any is left out. `leave_out` lists objects that are not asked for at all, such as
    those that captions rarely mention though they are there. All chance follows from `seed` and the
    film's name, so that a film gets the same questions whichever others there are beside it, as far
    as the frequencies of objects stay the same.

    Raises:
        ConfigError: if a number is below 1, or an object to leave out is unknown.
        DataError: if the captions name fewer than two objects, so that none can be absent.
    """

    def __init__(
        self,
        films: Sequence[Described],
        vocabulary: ObjectVocabulary,
        *,
        per_film: int = 3,
        agree: int = 2,
        leave_out: str | Sequence[str] = (),
        seed: int = 42,
    ) -> None:
        self.leave_out = frozenset(listed(leave_out))
        if unknown := sorted(self.leave_out - set(vocabulary.names)):
            raise ConfigError(f"leave_out names {unknown}, which the vocabulary does not have")
        for name, value in (("per_film", per_film), ("agree", agree)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        self.films = list(films)
        self.vocabulary = vocabulary
        self.per_film = per_film
        self.agree = agree
        self.seed = seed
        self.frequency = Counter(
            name for film in films for name in film.named if name not in self.leave_out
        )
        if len(self.frequency) < 2:
            raise DataError(
                f"the captions of {len(films)} films name {len(self.frequency)} objects of the "
                "vocabulary; two are needed, so that one can be absent. Give another vocabulary=, "
                "or a set with captions, such as data=msvd_caption"
            )
        self.together: dict[str, Counter[str]] = {name: Counter() for name in self.frequency}
        for film in films:
            for name in film.named.keys() - self.leave_out:
                self.together[name].update(film.named.keys() - {name} - self.leave_out)

    def questions(self, strategy: str) -> Iterator[dict[str, Any]]:
        """The rows of a file of POPE, in turn of what is there and what is not.

        Raises:
            ConfigError: if the strategy is unknown.
        """
        if strategy not in STRATEGIES:
            raise ConfigError(f"strategy {strategy!r} is unknown; choose of {STRATEGIES}")
        number = 0
        for film in self.films:
            for name, label in self._of_film(film, strategy):
                number += 1
                yield {
                    "question_id": number,
                    "video": film.video,
                    "text": self.vocabulary.question(name),
                    "label": label,
                    "object": name,
                    **({"start_s": film.start_s} if film.start_s else {}),
                    **({} if film.end_s is None else {"end_s": film.end_s}),
                }

    def _of_film(self, film: Described, strategy: str) -> Iterator[tuple[str, str]]:
        key = zlib.crc32(f"{film.video} {film.start_s}".encode())
        # what is there is the same whatever the strategy
        order = np.random.default_rng([self.seed, key])
        present = sorted(set(film.present(self.agree)) - self.leave_out)
        chosen = order.permutation(len(present))[: self.per_film]
        draw = np.random.default_rng([self.seed, key, STRATEGIES.index(strategy)])
        asked = set(film.named)
        for name in (present[i] for i in chosen):
            absent = self._absent(name, asked, strategy, draw)
            if absent is None:
                return
            asked.add(absent)
            yield name, "yes"
            yield absent, "no"

    def _absent(
        self, name: str, asked: set[str], strategy: str, draw: np.random.Generator
    ) -> str | None:
        """An object of other films; None if all are named in this one, or asked for already."""
        ranking = {"popular": self.frequency, "adversarial": self.together[name]}.get(strategy)
        for other, _ in _most_common(ranking or Counter()):
            if other not in asked:
                return other
        left = sorted(self.frequency.keys() - asked)
        return left[int(draw.integers(len(left)))] if left else None


def write_probes(maker: ProbeMaker, folder: Path) -> dict[str, int]:
    """Write `pope_<strategy>.jsonl` for each strategy; strategy → number of questions."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for strategy in STRATEGIES:
        rows = [json.dumps(row, ensure_ascii=False) for row in maker.questions(strategy)]
        write_whole(folder / f"pope_{strategy}.jsonl", "".join(f"{r}\n" for r in rows).encode())
        counts[strategy] = len(rows)
    return counts


def _most_common(counts: Counter[str]) -> list[tuple[str, int]]:
    """By descending count, then by name, so that ties do not depend on the order of films."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
