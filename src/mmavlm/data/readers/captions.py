"""Films with captions, for stage 1: a jsonl of one's own, or WebVid's csv."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from mmavlm.core.items import Item
from mmavlm.data.readers.annotations import SplitFiles, SplitNames, refuse_task
from mmavlm.data.readers.entries import Found, StrictReader
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.own import OWN_ID, REMOVED, TWIN_OF
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.tabled import Reading, TabledReader
from mmavlm.data.sources import VIDEO_SUFFIXES, VIDEOS, film_at, written_film

if TYPE_CHECKING:
    from mmavlm.data.item_writer import PlainRows

PROMPT = "what does the video describe?"
LAYOUT = Layout(
    needed=("video", "caption"),
    optional=("id", "start_s", "end_s", "split", TWIN_OF, REMOVED),
    foreign=False,
)
WEBVID = Layout(("videoid", "name", "page_dir"), ("split",))


class CaptionReader(StrictReader, TabledReader):
    """Rows `{"video", "caption"}` of `<root>/<folder>/{train,val,test}.jsonl` (or .csv).

    `video` is a path below the root; `id`, `start_s` and `end_s` may be given. See `SplitFiles` for
    other names of the files, `clean_caption` for what becomes of a caption.
    """

    def __init__(
        self,
        folder: str = "captions",
        max_words: int = 50,
        keys: Mapping[str, str] | None = None,
        **named: Unpack[SplitNames],
    ) -> None:
        self.files = SplitFiles(folder, LAYOUT, keys=keys, **named)
        self.max_words = max_words

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a row, and broken rows.

        Raises:
            ConfigError: if a task is given.
            DataError: if the file cannot be read.
        """
        return self.reading(Path(root), split, task).found()

    def reading(self, root: Path, split: str, task: str | Sequence[str] | None) -> Reading:
        """One item a row; errors as of `read`."""
        refuse_task(task, "captions")
        source = cache(partial(written_film, root))
        return Reading(
            lambda: ((row.place, row) for row in self.files.rows(root, split)),
            lambda _, row: self._item(source, row),
            self._plain,
            lambda video, _: source(video),
            prompt=PROMPT,
            task="caption",
            layout=LAYOUT,
            again=OWN_ID,
        )

    def _plain(self, entries: Sequence[tuple[str, Row]]) -> PlainRows:
        from mmavlm.data.item_writer import PlainRows
        from mmavlm.data.readers import plain

        rows = [row for _, row in entries]
        videos, captions, ids = plain.columns(rows, "video", "caption", "id")
        video, films_plain = plain.names(videos)
        caption, words_plain = plain.words(captions, self.max_words)
        start_s, end_s, stretches_plain = plain.stretches(rows)
        item_id, ids_plain = plain.texts_or(ids, lambda: plain.places(video, rows))
        columns = {
            "item_id": item_id,
            "video": video,
            "source": video,
            "target": caption,
            "start_s": start_s,
            "end_s": end_s,
        }
        good = films_plain & words_plain & stretches_plain & ids_plain
        return PlainRows(columns, good, "any")

    def _item(self, source: Callable[[str], Path], row: Row) -> Item:
        video = row.text("video")
        start_s, end_s = row.stretch_s()
        caption = row.words("caption", self.max_words)
        with row.placed("video"):
            film = source(video)
        return Item.question(
            item_id=row.name("id", f"{video}, {row.place}"),
            video_id=video,
            source=film,
            prompt=PROMPT,
            target=caption,
            task="caption",
            start_s=start_s,
            end_s=end_s,
            references=(caption,),
        )


class WebVidReader(TabledReader):
    """WebVid's csv: columns `videoid,name,page_dir`, films in `videos/<page_dir>/<videoid>.mp4`.

    Each is shown with `prompt`, which may be empty; None is `PROMPT`.
    """

    def __init__(
        self,
        folder: str = ".",
        max_words: int = 50,
        prompt: str | None = None,
        keys: Mapping[str, str] | None = None,
        **named: Unpack[SplitNames],
    ) -> None:
        self.files = SplitFiles(folder, WEBVID, keys=keys, **named)
        self.max_words = max_words
        self.prompt = PROMPT if prompt is None else prompt

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a row, and row → reason of what was left out.

        Raises:
            ConfigError: if a task is given.
            DataError: if the file is missing or broken.
        """
        return self.reading(Path(root), split, task).found()

    def reading(self, root: Path, split: str, task: str | Sequence[str] | None) -> Reading:
        """One item a row; errors as of `read`."""
        refuse_task(task, "captions")
        videos = root / self.files.folder / VIDEOS
        return Reading(
            lambda: ((row.place, row) for row in self.files.rows(root, split)),
            lambda _, row: self._item(videos, row),
            self._plain,
            lambda _, film: film_at(film.with_name(film.name.removesuffix(VIDEO_SUFFIXES[0]))),
            prompt=self.prompt,
            task="caption",
            layout=WEBVID,
        )

    def _plain(self, entries: Sequence[tuple[str, Row]]) -> PlainRows:
        import pyarrow.compute as pc

        from mmavlm.data.item_writer import PlainRows
        from mmavlm.data.readers import plain

        rows = [row for _, row in entries]
        videos, pages, captions = plain.columns(rows, "videoid", "page_dir", "name")
        video, films_plain = plain.names(videos)
        page, pages_plain = plain.names(pages)
        caption, words_plain = plain.words(captions, self.max_words)
        folder = (Path(self.files.folder) / VIDEOS).as_posix()
        source = plain.with_suffix(pc.binary_join_element_wise(folder, page, video, "/"))
        columns = {"item_id": video, "source": source, "target": caption}
        return PlainRows(columns, films_plain & pages_plain & words_plain)

    def _item(self, videos: Path, row: Row) -> Item:
        video_id, page = row.text("videoid"), row.text("page_dir")
        caption = row.words("name", self.max_words)
        return Item.question(
            item_id=video_id,
            video_id=video_id,
            source=film_at(row.below(row.below(videos, page, "page_dir"), video_id, "videoid")),
            prompt=self.prompt,
            target=caption,
            task="caption",
            references=(caption,),
        )
