"""Films with captions, for stage 1: a jsonl of one's own, or WebVid's csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import Unpack

from mmavlm.data.readers.annotations import SplitFiles, SplitNames, distinct, refuse_task
from mmavlm.data.readers.entries import Items, SkippingReader, usable
from mmavlm.data.readers.rows import Row
from mmavlm.data.sources import film_at
from mmavlm.interfaces import VideoItem

PROMPT = "what does the video describe?"


class CaptionReader:
    """Rows `{"video", "caption"}` of `<root>/<folder>/{train,val,test}.jsonl` (or .csv).

    `video` is a path below the root; `id`, `start_s` and `end_s` may be given. See `SplitFiles` for
    other names of the files, `clean_caption` for what becomes of a caption.
    """

    def __init__(
        self,
        folder: str = "captions",
        max_words: int = 50,
        **named: Unpack[SplitNames],
    ) -> None:
        self.files = SplitFiles(folder, **named)
        self.max_words = max_words

    def __call__(self, root: Path, split: str, task: str | Sequence[str] | None) -> list[VideoItem]:
        """One item a row.

        Raises:
            ConfigError: if a task is given.
            DataError: naming file, row and key of what cannot be used.
        """
        refuse_task(task, "captions")
        rows = self.files.rows(Path(root), split)
        return distinct([self._item(Path(root), row) for row in rows], self.files.path(root, split))

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Captions are open: no classes."""
        return {}

    def _item(self, root: Path, row: Row) -> VideoItem:
        video = str(row.need("video"))
        start_s, end_s = row.stretch_s()
        caption = row.words("caption", self.max_words)
        return VideoItem(
            item_id=row.name("id", f"{video}, {row.place}"),
            video_id=video,
            source=row.below(root, video),
            prompt=PROMPT,
            target=caption,
            task="caption",
            start_s=start_s,
            end_s=end_s,
            references=(caption,),
        )


class WebVidReader(SkippingReader):
    """WebVid's csv: columns `videoid,name,page_dir`, films in `videos/<page_dir>/<videoid>.mp4`."""

    def __init__(
        self,
        folder: str = ".",
        max_words: int = 50,
        **named: Unpack[SplitNames],
    ) -> None:
        self.files = SplitFiles(folder, **named)
        self.max_words = max_words

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Captions are open: no classes."""
        return {}

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Items:
        """One item a row, and row → reason of what was left out.

        Raises:
            ConfigError: if a task is given.
            DataError: if the file is missing or broken.
        """
        refuse_task(task, "captions")
        videos = Path(root) / self.files.folder / "videos"
        return usable(
            ((row.place, row) for row in self.files.rows(Path(root), split)),
            lambda _, row: [self._item(videos, row)],
        )

    def _item(self, videos: Path, row: Row) -> VideoItem:
        video_id, page = row.text("videoid"), row.text("page_dir")
        caption = row.words("name", self.max_words)
        return VideoItem(
            item_id=video_id,
            video_id=video_id,
            source=film_at(row.below(videos, f"{page}/{video_id}")),
            prompt=PROMPT,
            target=caption,
            task="caption",
            references=(caption,),
        )
