"""What items of very large sets take: the first start, the second, and memory of all processes.

    python scripts/bench_items.py --rows 10000 100000 1000000 [--formats captions_csv] [--json]
    python scripts/bench_items.py --rows 100000 --lists    # items as lists, as small sets are

Annotations are written for it, with ten rows a film; `shards` are of ten thousand rows each, packed
by `data.shards`. A start is a process of its own that reads the
items of a split, films looked for and all; the first writes the table, the second finds it. Then
`--ranks` processes with `--workers` each take the first batch of an epoch together, and their
memory is told: proportional set size (PSS), so that shared pages count once, of what is theirs and
of tables of items, less that of a thousand rows. Seconds of a core are the process's own, whatever
else the machine does.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from machine import machine

FILM_ROWS = 10
FOLDER_FILMS = 1000
SHARD_ROWS = 10_000
BASE_ROWS = 1000
SENTENCE = "a man in a red coat rides a brown horse along the beach while two dogs look on"


def caption(number: int) -> str:
    """Sixty letters or so, another for each row."""
    return f"{SENTENCE[number % 20 :]}, take {number}"


def film(number: int) -> str:
    """The film of a row, below the folder of films."""
    which = number // FILM_ROWS
    return f"{which // FOLDER_FILMS:05d}/{which:08d}.mp4"


def captions_csv(root: Path, rows: int) -> None:
    """`captions/train.csv`."""
    with (root / "captions" / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "video", "caption"])
        writer.writerows((n, f"videos/{film(n)}", caption(n)) for n in range(rows))


def captions_jsonl(root: Path, rows: int) -> None:
    """`captions/train.jsonl`."""
    with (root / "captions" / "train.jsonl").open("w") as file:
        for n in range(rows):
            row = {"id": f"c{n}", "video": f"videos/{film(n)}", "caption": caption(n)}
            file.write(json.dumps(row) + "\n")


def qa_json(root: Path, rows: int) -> None:
    """`annotation/qa_train.json`, one object of entries."""
    with (root / "annotation" / "qa_train.json").open("w") as file:
        for n in range(rows):
            entry = {
                "question": f"what does {caption(n)[:30]} show",
                "answer": SENTENCE.split()[n % 9],
            }
            entry |= {"video": film(n).removesuffix(".mp4"), "frame_length": 50}
            file.write(("{" if n == 0 else ",\n") + f'"q{n}": {json.dumps(entry)}')
        file.write("}")


def shards(root: Path, rows: int) -> None:
    """`train-*.tar`, with their indices."""
    numbers = range(-(-rows // SHARD_ROWS))
    with multiprocessing.get_context("spawn").Pool() as pool:
        for _ in pool.imap_unordered(partial(_shard, root, rows), numbers):
            pass


def _shard(root: Path, rows: int, number: int) -> None:
    from mmavlm.core.items import Item
    from mmavlm.data.readers.captions import PROMPT
    from mmavlm.data.shards.packing import Packing, Plan
    from mmavlm.data.shards.places import Place
    from mmavlm.data.shards.writing import Job, write_shard

    first = number * SHARD_ROWS
    items = tuple(
        Item.question(
            item_id=f"c{n}",
            video_id=film(n),
            source=root / "videos" / film(n % SHARD_ROWS),
            prompt=PROMPT,
            target=caption(n),
            task="caption",
            references=(caption(n),),
        )
        for n in range(first, min(rows, first + SHARD_ROWS))
    )
    plan = Plan(f"train-{number:06d}.tar", items, Packing())
    write_shard(Job(plan, Place(str(root / plan.name))))


FORMATS: dict[str, Callable[[Path, int], None]] = {
    "captions_csv": captions_csv,
    "captions_jsonl": captions_jsonl,
    "qa_json": qa_json,
    "shards": shards,
}


def make_films(root: Path, rows: int) -> None:
    """The films of all rows: the bytes of one small film under as many names."""
    import numpy as np

    from mmavlm.movies.encode import write_video

    one = root / "one.mp4"
    write_video((np.full((32, 32, 3), 20 * n, np.uint8) for n in range(8)), one, fps=8)
    content = one.read_bytes()
    for number in range(0, rows, FILM_ROWS):
        path = root / "videos" / film(number)
        if number % (FILM_ROWS * FOLDER_FILMS) == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(content)


def data_of(root: Path, kind: str, workers: int) -> Any:
    """The datamodule of a set."""
    from mmavlm.data.datamodule import VideoDataModule
    from mmavlm.data.readers import CaptionReader
    from mmavlm.data.readers.malmm import QuestionReader
    from mmavlm.data.shards.reader import ShardReader
    from mmavlm.data.shards.store import ShardStore

    reader: Any = CaptionReader()
    if kind == "qa_json":
        reader = QuestionReader(".", "Question: {question} Answer:")
    elif kind == "shards":
        reader = ShardReader(root, ShardStore(root / "kept"))
    return VideoDataModule(
        reader, root, num_frames=2, image_size=32, batch_size=8, num_workers=workers,
        index=root / ".mmavlm",
    )  # fmt: skip


def start(root: Path, kind: str, lists: bool) -> dict[str, float]:
    """One start: wall and core seconds until the items are there, and the most memory in bytes."""
    data = data_of(root, kind, 0)
    if lists:
        data.index = None
    wall, core = time.perf_counter(), time.process_time()
    items = data.items("train")
    taken = {"wall_s": time.perf_counter() - wall, "core_s": time.process_time() - core}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"items": len(items), **taken, "bytes": 1024 * most}


def rank(root: Path, kind: str, place: tuple[int, int, int], lists: bool, tell: Any) -> None:
    """One rank of a run: the seconds to its first batch, then wait to be looked at."""
    import torch

    number, ranks, workers = place
    where = f"file://{root}/ranks"
    torch.distributed.init_process_group("gloo", where, rank=number, world_size=ranks)
    data = data_of(root, kind, workers)
    if lists:
        data.index = None
    begin = time.perf_counter()
    batches = iter(data.train_dataloader())
    next(batches)
    tell.send(time.perf_counter() - begin)
    tell.recv()
    torch.distributed.destroy_process_group()


def together(root: Path, kind: str, options: argparse.Namespace) -> dict[str, float]:
    """The ranks of a run at once: the slowest one's first batch, and bytes of all processes."""
    import psutil

    (root / "ranks").unlink(missing_ok=True)
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for number in range(options.ranks):
        ours, theirs = spawn.Pipe()
        place = (number, options.ranks, options.workers)
        process = spawn.Process(target=rank, args=(root, kind, place, options.lists, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    seconds = [pipe.recv() for pipe in pipes]
    trees = [psutil.Process(process.pid) for process in processes]
    everyone = [p for tree in trees for p in (tree, *tree.children(recursive=True))]
    total = sum(m.pss for p in everyone for m in p.memory_maps(grouped=False) if counts(m.path))
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join()
    return {"first_batch_s": max(seconds), "pss_bytes": total}


def counts(path: str) -> bool:
    """Whether a mapping is a process's own or of a table; libraries are shared with all others."""
    return not path.startswith("/") or path.startswith("/dev/shm") or "/.mmavlm/items/" in path


def in_a_process(call: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What a call gives in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call)


def measure(kind: str, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one set."""
    root = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        for folder in ("captions", "annotation"):
            (root / folder).mkdir()
        make_films(root, min(rows, SHARD_ROWS) if kind == "shards" else rows)
        FORMATS[kind](root, rows)
        first = in_a_process(partial(start, root, kind, options.lists))
        second = in_a_process(partial(start, root, kind, options.lists))
        table = sum(p.stat().st_size for p in root.glob(".mmavlm/items/*/*") if p.is_file())
        return {
            "first": first,
            "second": second,
            "items_a_core_second": rows / first["core_s"],
            "table_bytes_an_item": table / rows,
            **together(root, kind, options),
        }
    finally:
        shutil.rmtree(root)


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Every format at every size; memory beyond that of `BASE_ROWS`, an item."""
    found: dict[str, dict[str, Any]] = {}
    for kind in options.formats:
        base = measure(kind, BASE_ROWS, options)["pss_bytes"]
        for rows in options.rows:
            figures = measure(kind, rows, options)
            figures["node_bytes_an_item"] = (figures["pss_bytes"] - base) / rows
            found.setdefault(kind, {})[str(rows)] = figures
            print(kind, rows, json.dumps(figures), flush=True)
    return {"formats": found, "settings": vars(options), **machine()}


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Seconds of the first and the second start, and memory of a node, against rows."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for kind, sizes in found.items():
        rows = [int(size) for size in sizes]
        [line] = left.loglog(rows, [s["first"]["wall_s"] for s in sizes.values()], "o-", label=kind)
        left.loglog(
            rows, [s["second"]["wall_s"] for s in sizes.values()], "o:", color=line.get_color()
        )
        right.loglog(rows, [s["node_bytes_an_item"] for s in sizes.values()], "o-", label=kind)
    left.set(xlabel="rows", ylabel="seconds", title="first start, and second (dotted)")
    right.set(xlabel="rows", ylabel="bytes an item, all processes", title="memory of a node")
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    left.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def lines(found: dict[str, dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The rows of the table that is printed."""
    for kind, sizes in found.items():
        for size, s in sizes.items():
            yield (
                kind,
                f"{int(size):,}",
                f"{s['first']['wall_s']:.2f}",
                f"{s['second']['wall_s']:.2f}",
                f"{s['items_a_core_second']:,.0f}",
                f"{s['first_batch_s']:.1f}",
                f"{s['first']['bytes'] / 2**20:.0f}",
                f"{s['node_bytes_an_item']:.0f}",
            )


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2, help="processes of each rank")
    parser.add_argument("--lists", action="store_true", help="items as lists, not as tables")
    parser.add_argument("--folder", type=Path, help="where sets are written; several GB")
    parser.add_argument("--plot", type=Path, help="where to draw the figures (svg, png, pdf)")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    result = bench(options)
    if options.plot:
        plot(result["formats"], options.plot)
    if options.json:
        print(json.dumps(result, default=str))
        return
    table = Table(
        "set", "rows", "first start (s)", "second (s)", "items/s of a core", "first batch (s)",
        "MiB of the first start", "bytes an item of a node", title="items of large sets",
    )  # fmt: skip
    for line in lines(result["formats"]):
        table.add_row(*line)
    Console().print(table)


if __name__ == "__main__":
    main()
