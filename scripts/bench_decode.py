"""How long it takes to sample N frames of a film: ours beside other ways and other libraries.

    OMP_NUM_THREADS=1 python scripts/bench_decode.py --clips outputs/clips [--repeat 5] [--json]

The clips are made from a seed, once: 3 minutes of 640×360 at 25 fps in H.264 with B-frames, a key
frame every 48 and every 250 frames. Every way gives N evenly spaced frames, the first and the last
among them, as RGB of 224×224. All ways take turns, after a round that warms up; medians of
wall-clock and of processor seconds. A way that takes more than `--patience` seconds in the first
round has only that one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from machine import machine
from mmavlm.data.probe import VideoInfo, probe
from mmavlm.data.transforms import ClipTransform
from mmavlm.data.video import ONE_THREAD, read_frames

SIZE = 224
FPS, WIDTH, HEIGHT = 25, 640, 360
OURS, OURS_COLD, IN_ORDER, SEEK = "ours", "ours, probing first", "in order", "seek each"
DECORD, CV_ORDER, CV_SEEK = "decord", "OpenCV in order", "OpenCV seek each"
LIBRARY = {DECORD: "decord", CV_ORDER: "cv2", CV_SEEK: "cv2"}

Frames = Tensor | NDArray[np.uint8]
Way = Callable[[VideoInfo, Sequence[int], int], Frames]


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Noise of four scales on top of each other."""
    total = np.zeros((height, width, 3), np.float32)
    for cells in (4, 16, 64, 256):
        shape = (cells * height // width + 1, cells, 3)
        noise = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return (total / 2 - 128).clip(0, 255).astype(np.uint8)


def make_clip(path: Path, gop: int, frames: int) -> None:
    """A camera that wanders over a texture, six smaller ones that wander through it, and grain."""
    rng = np.random.default_rng(0)
    layers = [texture(rng, 900, 1600), *(texture(rng, 120, 160) for _ in range(6))]
    phase, rate = rng.uniform(0, 2 * np.pi, (7, 2)), rng.uniform(0.005, 0.02, (7, 2))
    room = np.array([[900 - HEIGHT, 1600 - WIDTH]] + 6 * [[HEIGHT - 120, WIDTH - 160]])
    partial = path.with_suffix(".partial")
    with av.open(str(partial), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, 3
        stream.options = {"crf": "23", "preset": "fast", "sc_threshold": "0"}
        for number in range(frames):
            corners = ((0.5 + 0.5 * np.sin(phase + rate * number)) * room).astype(int)
            top, left = corners[0]
            picture = layers[0][top : top + HEIGHT, left : left + WIDTH].astype(np.int16)
            for layer, (y, x) in zip(layers[1:], corners[1:], strict=True):
                picture[y : y + 120, x : x + 160] = layer
            picture += rng.integers(-3, 4, picture.shape, dtype=np.int16)
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8))
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    partial.rename(path)


def times_s(info: VideoInfo, chosen: Sequence[int]) -> list[float]:
    """The times of frames by their number."""
    return info.times_s[np.asarray(chosen)].tolist()


def ours(info: VideoInfo, chosen: Sequence[int], threads: int) -> Frames:
    """mmavlm, its key-frame table at hand; the whole frame to RGB, then antialiased bicubic."""
    transform = ClipTransform(SIZE, None)
    return read_frames(info.path, times_s(info, chosen), transform, info=info, threads=threads)[0]


def ours_cold(info: VideoInfo, chosen: Sequence[int], threads: int) -> Frames:
    """The same of a film never seen before."""
    return ours(probe(info.path), chosen, threads)


def by_pyav(info: VideoInfo, chosen: Sequence[int], threads: int, seek: bool) -> Frames:
    """PyAV with the conversion of ours, decoding all from the start or from before each frame."""
    transform, reformatter, found = ClipTransform(SIZE, None), VideoReformatter(), []
    wanted = info.frame_pts[np.asarray(chosen)].tolist()
    with av.open(str(info.path)) as file:
        stream = file.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.thread_type = "NONE" if threads == 1 else "AUTO"
        decoded = file.decode(stream)
        for pts in wanted:
            if seek:
                file.seek(pts, stream=stream)
                decoded = file.decode(stream)
            frame = next(frame for frame in decoded if frame.pts == pts)
            rgb = reformatter.reformat(frame, format="rgb24", **ONE_THREAD)
            found.append(transform(rgb.to_ndarray()))
    return torch.stack(found)


def by_decord(info: VideoInfo, chosen: Sequence[int], threads: int) -> Frames:
    """Decord's get_batch, which scales and converts while decoding (FFmpeg's bicubic)."""
    import decord

    reader = decord.VideoReader(str(info.path), width=SIZE, height=SIZE, num_threads=threads)
    return reader.get_batch(list(chosen)).asnumpy().transpose(0, 3, 1, 2)


def by_opencv(info: VideoInfo, chosen: Sequence[int], threads: int, seek: bool) -> Frames:
    """OpenCV: `grab` all and `retrieve` the wanted, or set the position; INTER_AREA, then RGB."""
    import cv2

    cv2.setNumThreads(threads)
    film = cv2.VideoCapture(str(info.path), cv2.CAP_FFMPEG, [int(cv2.CAP_PROP_N_THREADS), threads])
    found, at = [], 0
    for number in chosen:
        if seek:
            film.set(cv2.CAP_PROP_POS_FRAMES, number)
        else:
            for _ in range(number - at):
                film.grab()
            at = number + 1
        small = cv2.resize(film.read()[1], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        found.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    film.release()
    return np.stack(found).transpose(0, 3, 1, 2)


WAYS: dict[str, Way] = {
    OURS: ours,
    OURS_COLD: ours_cold,
    IN_ORDER: lambda *task: by_pyav(*task, seek=False),
    SEEK: lambda *task: by_pyav(*task, seek=True),
    DECORD: by_decord,
    CV_ORDER: lambda *task: by_opencv(*task, seek=False),
    CV_SEEK: lambda *task: by_opencv(*task, seek=True),
}


def bench(info: VideoInfo, count: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all ways to take `count` frames of a film."""
    chosen = np.linspace(0, len(info.frame_pts) - 1, count).round().astype(int).tolist()
    here = {n: way for n, way in WAYS.items() if n not in LIBRARY or find_spec(LIBRARY[n])}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in here}
    frames: dict[str, NDArray[np.uint8]] = {}
    for _ in range(options.repeat + 1):
        for name, way in here.items():
            if seconds[name] and seconds[name][0][0] > options.patience:
                continue
            start = time.perf_counter(), time.process_time()
            frames[name] = np.asarray(way(info, chosen, options.threads))
            seconds[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    rows = []
    for name in WAYS:
        row: dict[str, Any] = {"frames": count, "way": name, "threads": options.threads}
        if name in here:
            measured = seconds[name][1:] or seconds[name]
            row["wall_s"], row["cpu_s"] = map(median, zip(*measured, strict=True))
            row["repeats"] = len(measured)
            apart = frames[name].astype(np.int16) - frames[IN_ORDER]
            row["mean_difference"] = float(np.abs(apart).mean())
            row["bit_equal"] = not apart.any()
        else:
            row["missing"] = f"{LIBRARY[name]} is not installed"
        rows.append(row)
    return rows


def ratios(rows: list[dict[str, Any]], clock: str) -> dict[str, float]:
    """Seconds of ours, the table at hand, as a share of the others' best."""
    took = {row["way"]: row[clock] for row in rows if clock in row}
    others = {
        "in order or seek each": (IN_ORDER, SEEK),
        "decord": (DECORD,),
        "OpenCV": (CV_ORDER, CV_SEEK),
    }
    best = {name: [took[w] for w in ways if w in took] for name, ways in others.items()}
    return {name: took[OURS] / min(of) for name, of in best.items() if of}


def versions() -> dict[str, str]:
    """What was measured, by its distributions; decord2 is the maintained decord."""
    found = {}
    for name in ("av", "torch", "torchvision", "decord", "decord2", "opencv-python-headless"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def show(case: dict[str, Any]) -> None:
    """Print one clip and number of frames as a table."""
    of_best = ", ".join(f"{share:.2f} of {name}" for name, share in case["wall_ratios"].items())
    title = f"{case['rows'][0]['frames']} frames, a key frame every {case['gop']}"
    table = Table("way", "wall", "cpu", "difference", title=title, caption=f"ours takes {of_best}")
    for row in case["rows"]:
        if "missing" in row:
            table.add_row(row["way"], row["missing"])
        else:
            apart = "none" if row["bit_equal"] else f"{row['mean_difference']:.2f}"
            table.add_row(row["way"], f"{row['wall_s']:.2f} s", f"{row['cpu_s']:.2f} s", apart)
    Console().print(table)


def main() -> None:
    """Parse the command line, make what clips are missing, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--clips", type=Path, default=Path("outputs/clips"), help="kept there")
    parser.add_argument("--seconds", type=int, default=180, help="length of the clips")
    parser.add_argument("--gops", type=int, nargs="+", default=[48, 250])
    parser.add_argument("--frames", type=int, nargs="+", default=[20, 100, 360])
    parser.add_argument("--threads", type=int, default=1, help="FFmpeg's, as in a worker")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--patience", type=float, default=30.0)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    options = parser.parse_args()
    options.clips.mkdir(parents=True, exist_ok=True)
    cases = []
    for gop in options.gops:
        path = options.clips / f"gop{gop}_{options.seconds}s.mp4"
        if not path.is_file():
            make_clip(path, gop, options.seconds * FPS)
        info = probe(path)
        for count in options.frames:
            rows = bench(info, count, options)
            shares = {f"{clock}_ratios": ratios(rows, f"{clock}_s") for clock in ("wall", "cpu")}
            cases.append({"gop": gop, **shares, "rows": rows})
            if not options.json:
                show(cases[-1])
    if options.json:
        print(json.dumps({**machine(), "versions": versions(), "cases": cases}))


if __name__ == "__main__":
    main()
