"""Films with captions, for stage 1: a jsonl of one's own, or WebVid's csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmavlm.data.readers.annotations import read_rows
from mmavlm.data.readers.own import no_task
from mmavlm.data.sources import inside
from mmavlm.interfaces import VideoItem
from mmavlm.text import clean_caption

PROMPT = "what does the video describe?"


class CaptionReader:
    """Rows `{"video", "caption"}` of `<root>/<folder>/{train,val,test}.jsonl` (or .csv).

    `video` is a path below the root; `id`, `start_s` and `end_s` may be given.
    """

    def __init__(
        self,
        folder: str = "captions",
        train: str = "train.jsonl",
        val: str = "val.jsonl",
        test: str = "test.jsonl",
        max_words: int = 50,
    ) -> None:
        self.folder = folder
        self.files = {"train": train, "val": val, "test": test}
        self.max_words = max_words

    def __call__(self, root: Path, split: str, task: str | Sequence[str] | None) -> list[VideoItem]:
        """One item a row.

        Raises:
            ConfigError: if a task is given.
            DataError: naming file, row and key of what cannot be used.
        """
        no_task("captions", task)
        root = Path(root)
        items: list[VideoItem] = []
        for row in read_rows(root / self.folder / self.files[split]):
            video = str(row.need("video"))
            caption = clean_caption(str(row.need("caption")), self.max_words)
            items.append(
                VideoItem(
                    item_id=str(row.values.get("id") or f"{video}#{len(items)}"),
                    video_id=video,
                    source=inside(root, video),
                    prompt=PROMPT,
                    target=caption,
                    task="caption",
                    start_s=row.number("start_s", 0.0) or 0.0,
                    end_s=row.number("end_s", None),
                    references=(caption,),
                )
            )
        return items

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Captions are open: no classes."""
        return {}


class WebVidReader(CaptionReader):
    """WebVid's csv: columns `videoid,name,page_dir`, films in `videos/<page_dir>/<videoid>.mp4`."""

    def __init__(
        self,
        folder: str = ".",
        train: str = "train.csv",
        val: str = "val.csv",
        test: str = "test.csv",
        max_words: int = 50,
    ) -> None:
        super().__init__(folder, train, val, test, max_words)

    def __call__(self, root: Path, split: str, task: str | Sequence[str] | None) -> list[VideoItem]:
        """One item a row; see `CaptionReader` for errors."""
        no_task("webvid", task)
        folder = Path(root) / self.folder
        items = []
        for row in read_rows(folder / self.files[split]):
            video_id = str(row.need("videoid"))
            caption = clean_caption(str(row.need("name")), self.max_words)
            items.append(
                VideoItem(
                    item_id=video_id,
                    video_id=video_id,
                    source=inside(folder / "videos", f"{row.need('page_dir')}/{video_id}.mp4"),
                    prompt=PROMPT,
                    target=caption,
                    task="caption",
                    references=(caption,),
                )
            )
        return items
