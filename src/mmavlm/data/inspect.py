"""What a data set holds, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from mmavlm.core.errors import DataError, VideoError
from mmavlm.core.items import Item, Reader
from mmavlm.core.medium import Medium
from mmavlm.data.films import Films, films_of
from mmavlm.data.items import asked_once, sources_of
from mmavlm.data.readers.annotations import SPLITS, listed
from mmavlm.data.readers.entries import Found, SkippingReader
from mmavlm.data.sampling import frame_times
from mmavlm.data.sources import FrameSource
from mmavlm.data.talks import TokenLengths, described

if TYPE_CHECKING:
    import torch

    from mmavlm.data.video import Picture

LISTED = 20  # videos
LISTED_ROWS = 200
SHOWN = 5


@dataclass(frozen=True)
class SplitInspection:
    """Counts of one split; `missing` and `broken` list videos, `problem` says what stops a run.

    `asked` counts the items that evaluation asks, fewer than `items` where many captions describe
    one video. `skipped` tells of every entry that cannot be used, and why; `notes` say what else is
    to be known: keys that nothing reads, and what conversations hold.
    """

    items: int = 0
    asked: int = 0
    videos: int = 0
    missing_videos: int = 0
    missing: list[str] = field(default_factory=list)
    opened: bool = False  # whether films were opened, without which none is known to be broken
    broken_videos: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped_entries: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: str | None = None

    def skipped_lines(self) -> list[str]:
        """The first entries left out, with the reason of each, and how many there are beyond."""
        reasons = list(self.skipped.values())[:LISTED_ROWS]
        lines = [f"skipped: {reason}" for reason in reasons]
        if more := self.skipped_entries - len(lines):
            lines.append(f"skipped: {more} more, which format=json lists")
        return lines


@dataclass(frozen=True)
class Inspection:
    """All splits of a set."""

    root: str
    task: list[str]
    splits: dict[str, SplitInspection]

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return asdict(self)

    def print(self, name: str = "") -> None:
        """A table of the splits, then classes and problems; `name` is that of the set in a mix."""
        console = Console()
        columns = ("split", "items", "skipped", "videos", "missing", "broken")
        table = Table(*columns, title=escape(f"{name}: {self.root}" if name else self.root))
        for name, split in self.splits.items():
            lost = (split.missing_videos, split.broken_videos if split.opened else "not opened")
            numbers = (split.items, split.skipped_entries, split.videos, *lost)
            table.add_row(name, *map(str, numbers))
        console.print(table)
        for name, split in self.splits.items():
            for task, counts in split.classes.items():
                share = ", ".join(f"{label} {count}" for label, count in counts.items())
                console.print(f"{name} · {task}: {share}", markup=False, soft_wrap=True)
            if split.asked != split.items:
                console.print(f"{name}: evaluation asks {split.asked} questions of these items")
            for line in split.skipped_lines():
                console.print(f"{name}: {line}", markup=False, soft_wrap=True)
            if split.problem and split.problem not in split.skipped.values():
                first = split.problem.partition(":\n")[0]  # the rows are listed above
                console.print(f"{name}: {first}", markup=False, soft_wrap=True, style="red")
            for video, reason in split.broken.items():
                console.print(
                    f"{name}: broken {video}: {reason}", markup=False, soft_wrap=True, style="red"
                )
        for line in self.shared_lines():
            console.print(line, markup=False, soft_wrap=True)

    def shared_lines(self) -> list[str]:
        """Notes and missing videos, each once with the splits it is of."""
        notes: dict[str, list[str]] = {}
        missing: dict[str, list[str]] = {}
        for name, split in self.splits.items():
            for note in split.notes:
                notes.setdefault(note, []).append(name)
            for video in split.missing:
                missing.setdefault(video, []).append(name)
        lines = [f"{', '.join(names)}: {note}" for note, names in notes.items()]
        together: dict[str, list[str]] = {}
        for video, names in missing.items():
            together.setdefault(", ".join(names), []).append(video)
        for splits, videos in together.items():
            more = ", …" if len(videos) > SHOWN else ""
            lines.append(f"{splits}: missing videos, such as {', '.join(videos[:SHOWN])}{more}")
        return lines


def inspect(
    reader: Reader,
    root: str | Path,
    task: str | Sequence[str] | None,
    *,
    splits: Sequence[str] = SPLITS,
    decode: bool = False,
    tokens: TokenLengths | None = None,
    seen_s: float | None = None,
) -> Inspection:
    """Read every split; with `decode`, also open every video, and with `tokens` count those.

    `seen_s` are the seconds that are seen of a film at most, None for all: where videos are opened,
    those are counted of which something is not seen.

    Raises:
        ConfigError: if the root is no folder or a task is unknown.
        DataError: if no split has any entry, be it a broken one.
    """
    films = films_of(reader)
    folder = films.folder(root)
    opened = _Opened(seen_s, films) if decode else None
    found = {split: _inspect_split(reader, folder, split, task, opened, tokens) for split in splits}
    if not any(split.items or split.skipped for split in found.values()):
        raise DataError(next(split.problem for split in found.values() if split.problem))
    tasks = listed(task)
    return Inspection(str(root), tasks, found)


def _inspect_split(
    reader: Reader,
    root: Path,
    split: str,
    task: Any,
    opened: _Opened | None,
    tokens: TokenLengths | None,
) -> SplitInspection:
    found, problem = Found([], {}), None
    try:
        if isinstance(reader, SkippingReader):
            found = reader.read(root, split, task)
            problem = reader.refusal(found)
        else:
            found = Found(reader(root, split, task), {})
    except DataError as error:
        problem = str(error)
    items = found.items
    if not items and problem is None:
        of_task = f" of task {', '.join(listed(task))}" if task else ""
        problem = f"the annotation of the {split} split has no entries{of_task}"
    sources = sources_of(items)
    missing = films_of(reader).there(split, items).missing
    present = [name for name in sources if name not in missing]
    media: dict[str, Medium] = {}  # of each the stretch that begins last
    for medium in (m for item in items for m in item.conversation.media):
        kept = media.setdefault(medium.medium_id, medium)
        if medium.start_s > kept.start_s:
            media[medium.medium_id] = medium
    broken = opened.broken([media[name] for name in present]) if opened else {}
    unseen = opened.unseen(items, {*present} - {*broken}) if opened else []
    return SplitInspection(
        items=len(items),
        asked=len(items if split == "train" else asked_once(items)),
        videos=len(sources),
        missing_videos=len(missing),
        missing=list(missing)[:LISTED],
        opened=opened is not None,
        broken_videos=len(broken),
        broken=broken,
        classes=_balance(items),
        skipped_entries=len(found.skipped),
        skipped=found.skipped,
        notes=[*(note for _, note in found.notes), *described(items, tokens), *unseen],
        problem=problem,
    )


class _Opened:
    """What opening films and pictures shows; `seen_s` are the seconds seen of one, None for all."""

    def __init__(self, seen_s: float | None, films: Films) -> None:
        self.seen_s = seen_s
        self.films = films

    def broken(self, media: Sequence[Medium]) -> dict[str, str]:
        """Film or picture → reason, of those whose first and last frame do not decode.

        Films that end before the stretch that is asked about are told of likewise.
        """
        reasons = {}
        seen = [medium for medium in media if medium.kind != "sound"]
        for medium in track(seen, "opening videos", console=Console(stderr=True)):
            try:
                with self.films.lent(medium):
                    source = FrameSource.of(medium)
                    source.read([0.0, float(source.times_s[-1])], _first_pixel)
                    if medium.kind == "film":
                        frame_times(medium, source, 1, None)
            except VideoError as error:
                reasons[medium.medium_id] = str(error)
        return reasons

    def unseen(self, items: Sequence[Item], whole: set[str]) -> list[str]:
        """A line about stretches of `whole` films that are longer than what is seen of them."""
        if self.seen_s is None:
            return []
        films = {m for i in items for m in i.conversation.media if m.kind == "film"}
        there = [medium for medium in films if medium.medium_id in whole]
        long = sum(self._length_s(medium) > self.seen_s for medium in there)
        if not long:
            return []
        return [
            f"{long} of {len(there)} stretches of films are longer than the {self.seen_s:g} s that "
            "are seen of each, and end unseen; raise data.num_frames, or lower data.sample_fps"
        ]

    def _length_s(self, medium: Medium) -> float:
        with self.films.lent(medium):
            duration_s = FrameSource.of(medium).duration_s
        end_s = duration_s if medium.end_s is None else min(medium.end_s, duration_s)
        return end_s - medium.start_s


def _first_pixel(picture: Picture) -> torch.Tensor:
    import torch

    return torch.from_numpy(picture[:1, :1].copy()).permute(2, 0, 1)


def _balance(items: Sequence[Item]) -> dict[str, dict[str, int]]:
    """Task → class → items, for items that have a class."""
    counts: dict[str, Counter[str]] = {}
    for item in items:
        if item.label is not None:
            counts.setdefault(item.task, Counter())[item.target] += 1
    return {task: dict(sorted(of_task.items())) for task, of_task in counts.items()}
