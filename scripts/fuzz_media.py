"""Damage films and annotations, and see that the loader names the fault or gives exact frames.

    python scripts/fuzz_media.py --videos films --annotations data --count 1000

Exact are the frames that PyAV gives of the same damaged file when it decodes all of it in order,
and those of the whole film: what was not damaged may come out better where less is decoded.
Anything else is a fault: another error than the library's own, a process that dies, one that takes
longer than `--limit-s`, or other frames. Each file is made from seed and number alone, so that
`--only NUMBER` makes one again; `--keep` is a folder for the files that show a fault.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing as mp
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from machine import machine
from mmavlm.core.errors import MmavlmError
from mmavlm.data.containers import opened
from mmavlm.data.orientation import orientation
from mmavlm.data.probe import VideoInfo, last_not_after, probe
from mmavlm.data.readers import LVUReader, QuestionReader, ReferenceReader
from mmavlm.data.video import ONE_THREAD, SAME_TIME_S, shown_pictures
from mutations import OF_ANNOTATIONS, OF_FILMS

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".ts", ".flv")
REFUSED, EXACT, READ = "refused", "exact", "read"
FAULTS = ("crash", "died", "hang", "wrong frames")
TIMES = 8  # looked up of each film
REFERENCE_LIMIT_S = 300.0
READERS = {
    "lvu": lambda: LVUReader(),
    "msvd": lambda: QuestionReader("msvd", "{question}"),
    "youcook2": lambda: ReferenceReader("youcook2", "what happens?"),
}


@dataclass(frozen=True)
class Case:
    """One damaged file: where it comes from, what was done to it, and what came of it."""

    number: int
    source: str
    mutation: str
    outcome: str = ""
    detail: str = ""


def shortened(film: Path, folder: Path, seconds: float) -> Iterator[Path]:
    """The film's first seconds, not encoded anew, in all containers that take its codec."""
    for suffix in SUFFIXES:
        path = folder / f"{film.stem}_{film.suffix[1:]}{suffix}"
        try:
            with av.open(str(film)) as source, av.open(str(path), "w") as target:
                stream = source.streams.video[0]
                copy = target.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is None:
                        continue
                    if float(packet.dts * packet.time_base) > seconds:
                        break
                    packet.stream = copy
                    target.mux(packet)
        except (av.FFmpegError, ValueError):
            path.unlink(missing_ok=True)
        else:
            yield path


def damaged(source: Path, number: int, seed: int, folder: Path) -> tuple[Path, str]:
    """A damaged copy, and how it was damaged; both follow from seed and number."""
    random = np.random.default_rng((seed, number))
    ways = OF_ANNOTATIONS if source.suffix == ".json" else OF_FILMS
    way = ways[random.integers(len(ways))]
    path = folder / f"{number}{source.suffix}"
    path.write_bytes(way(bytearray(source.read_bytes()), random))
    return path, way.__name__


def digest(picture: np.ndarray[Any, Any]) -> str:
    """A picture, in short."""
    content = np.ascontiguousarray(picture)
    return hashlib.sha1(repr(content.shape).encode() + content.tobytes()).hexdigest()


def looked_up(path: Path, number: int) -> tuple[VideoInfo, list[tuple[float, float, str]]]:
    """Times asked for, times found and pictures, as the library gives them."""
    info = probe(path)
    random = np.random.default_rng(number)
    times_s = np.sort(random.choice(info.times_s, TIMES))
    shown = shown_pictures(info, times_s.tolist())
    return info, [(t, f, digest(p)) for t, (f, p) in zip(times_s.tolist(), shown, strict=True)]


def in_order(info: VideoInfo) -> list[tuple[int, str]]:
    """Times and pictures of all frames that decode one after the other, whatever fails between."""
    found: list[tuple[int | None, str]] = []
    with opened(info.path) as (file, stream), suppress(av.FFmpegError, EOFError):
        for packet in file.demux(stream):
            with suppress(av.FFmpegError, EOFError):
                for frame in packet.decode():
                    picture = frame.to_ndarray(format="rgb24", **ONE_THREAD)
                    upright = orientation(frame, info.path).shown(picture)
                    found.append((frame.pts, digest(upright)))
    if info.in_order:
        last = len(info.frame_pts) - 1
        return [(int(info.frame_pts[min(i, last)]), shown) for i, (_, shown) in enumerate(found)]
    return [(pts, shown) for pts, shown in found if pts is not None]


@lru_cache(maxsize=8)
def pictures_of(film: Path) -> dict[int, str]:
    """The pictures of a film that is whole, by their times, which ascend."""
    return dict(sorted(in_order(probe(film))))


def due_of_whole(film: Path, target: int) -> tuple[int, str]:
    """Time and picture of what a film shows at `target` before it is damaged."""
    pictures = pictures_of(film)
    pts = int(last_not_after(target, np.array(list(pictures), np.int64)))
    return pts, pictures[pts]


def difference(info: VideoInfo, found: list[tuple[float, float, str]], film: Path) -> str:
    """What differs from decoding in order, and from the film as it was, "" if nothing does."""
    reference = in_order(info)
    times = np.array(sorted({pts for pts, _ in reference if pts >= info.start_pts}), np.int64)
    if not len(times):
        return "decoding in order gives nothing"
    slack = min(SAME_TIME_S / info.tick_s, 0.5)
    for asked_s, found_s, shown in found:
        target = int(np.floor(asked_s / info.tick_s + slack)) + info.start_pts
        pts, at = int(last_not_after(target, times)), round(found_s / info.tick_s) + info.start_pts
        if (at, shown) in (due_of_whole(film, target), *(r for r in reference if r[0] == pts)):
            continue
        if at != pts:
            return f"{asked_s:.3f} s: frame of {found_s:.3f}, expected {info.seconds(pts):.3f}"
        return f"{asked_s:.3f} s: another picture"
    return ""


def read_annotation(path: Path, name: str) -> str:
    """Read a damaged annotation as that of a set; items must stay below its folder."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / name / "annotation"
        folder.mkdir(parents=True)
        prefix = {"lvu": "", "msvd": "qa_", "youcook2": "cap_"}[name]
        for split in ("train", "val", "test"):
            shutil.copy(path, folder / f"{prefix}{split}.json")
        task = ("genre", "director", "relationship") if name == "lvu" else None
        for item in READERS[name]()(Path(made), "val", task):
            item.film.source.exists()
            below = folder.parent.resolve()
            if not item.film.source.resolve().is_relative_to(below):
                return f"{item.film.source} lies outside"
    return ""


def work(calls: Connection) -> None:
    """A process that loads files, one after the other, and tells of each what came."""
    while True:
        path, number, name, source = calls.recv()
        try:
            if path.suffix == ".json":
                outside = read_annotation(path, name)
                calls.send(("crash", outside) if outside else (READ, ""))
                continue
            info, found = looked_up(path, number)
        except MmavlmError as error:
            calls.send((REFUSED, str(error)))
        except BaseException:
            calls.send(("crash", traceback.format_exc(limit=-3)))
        else:
            calls.send(("loaded", ""))
            differs = difference(info, found, source)
            calls.send(("wrong frames", differs) if differs else (EXACT, ""))


class Worker:
    """A process for dangerous files, started anew when one has killed it or taken too long."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.process: mp.process.BaseProcess | None = None

    def load(self, path: Path, number: int, name: str, source: Path) -> tuple[str, str]:
        """What came of a file made from `source`, and in which words."""
        if self.process is None:
            context = mp.get_context("fork")
            self.calls, other = context.Pipe()
            self.process = context.Process(target=work, args=(other,), daemon=True)
            self.process.start()
            other.close()
        self.calls.send((path, number, name, source))
        try:
            outcome = self._answer(self.limit_s)
            return self._answer(REFERENCE_LIMIT_S) if outcome[0] == "loaded" else outcome
        except EOFError:
            self.process.join()
            died, self.process = self.process.exitcode, None
            return "died", f"exit code {died}"

    def _answer(self, limit_s: float) -> tuple[str, str]:
        if self.calls.poll(limit_s):
            return self.calls.recv()
        self.stop()
        return "hang", f"no answer after {limit_s:g} s"

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def fuzz(options: argparse.Namespace, folder: Path) -> list[Case]:
    """All cases with what came of them."""
    sources: list[tuple[Path, str]] = []
    for film in sorted(p for p in options.videos.iterdir() if p.suffix in SUFFIXES):
        sources += [(film, film.name)]
        sources += [(p, p.name) for p in shortened(film, folder, options.seconds)]
    if options.annotations is not None:
        for name in READERS:
            for path in sorted((options.annotations / name).rglob("*.json")):
                sources += [(path, name)]
    worker, cases = Worker(options.limit_s), []
    for number in options.only or range(options.count):
        source, name = sources[number % len(sources)]
        path, mutation = damaged(source, number, options.seed, folder)
        outcome, detail = worker.load(path, number, name, source)
        cases.append(Case(number, name, mutation, outcome, detail))
        if outcome in FAULTS and options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, options.keep)
        path.unlink()
    worker.stop()
    return cases


def show(cases: list[Case]) -> None:
    """Print counts by kind of file and by mutation, and each fault."""
    kinds = [EXACT, READ, REFUSED, *FAULTS]
    for title, of in (
        ("file", lambda c: Path(c.source).suffix or c.source),
        ("damage", lambda c: c.mutation),
    ):
        table = Table(title, *kinds, "all")
        for name in sorted({of(case) for case in cases}):
            counts = Counter(case.outcome for case in cases if of(case) == name)
            table.add_row(name, *(str(counts[k]) for k in kinds), str(sum(counts.values())))
        Console().print(table)
    for case in cases:
        if case.outcome in FAULTS:
            print(f"{case.number} {case.source} {case.mutation}: {case.outcome}: {case.detail}")


def main() -> None:
    """Parse the command line, damage and load, print; exit with 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--videos", type=Path, required=True, help="a folder of whole films")
    parser.add_argument("--annotations", type=Path, help="a folder with lvu/, msvd/, youcook2/")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of files to look at again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=4.0, help="of the copies in containers")
    parser.add_argument("--limit-s", type=float, default=10.0, help="what the loader may take")
    parser.add_argument("--keep", type=Path, help="a folder for files that show a fault")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    options = parser.parse_args()
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory() as made:
        cases = fuzz(options, Path(made))
    faults = [case for case in cases if case.outcome in FAULTS]
    if options.json:
        counts = Counter(case.outcome for case in cases)
        print(json.dumps({**machine(), "seed": options.seed, "files": len(cases), **counts,
                          "faults": [asdict(case) for case in faults]}))  # fmt: skip
    else:
        show(cases)
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
