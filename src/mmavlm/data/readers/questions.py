"""Questions about one's own films that nobody answered yet: one file, whose every row is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, islice
from pathlib import Path

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.core.options import Options, Style, check_style
from mmavlm.data.readers.annotations import read_rows
from mmavlm.data.readers.entries import Found, StrictReader, usable
from mmavlm.data.readers.layout import Layout, refuse_other_files
from mmavlm.data.readers.own import LAYOUT as OWN_LAYOUT
from mmavlm.data.readers.own import OPEN, OWN_ID, subtitles_in
from mmavlm.data.readers.rows import Row
from mmavlm.data.sources import written_film

LAYOUT = Layout(
    needed=("video", "prompt"),
    optional=(*OWN_LAYOUT.optional, "answer"),
    foreign=False,
)


class QuestionReader(StrictReader):
    """Rows `{"video", "prompt"}` of one file, whichever split they say they are of.

    They are those of `OwnReader`; an answer may be there and is not read. `question` may stand for
    `prompt`. `options` says whether options are answered by letters, numbers or texts.

    Raises:
        ConfigError: if there is no such way to answer options.
    """

    def __init__(self, file: str, options: Style = "letters") -> None:
        self.file = file
        self.style = check_style(options, "options")

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a row, and broken rows; films lie below the root.

        Raises:
            DataError: if the file cannot be read, or holds something else.
        """
        rows = map(_prompted, read_rows(root / self.file))
        head = list(islice(rows, 2))
        if not head:
            raise DataError(f"{root / self.file} holds no rows")
        refuse_other_files(head, LAYOUT)
        source = cache(lambda video: written_film(root, video))

        def of_row(_: str, row: Row) -> list[Item]:
            video, prompt = row.text("video"), row.text("prompt")
            start_s, end_s = row.stretch_s()
            options = None
            if (choices := row.choices("options")) is not None:
                with row.placed("options"):
                    options = Options(tuple(choices), self.style)
                prompt = options.ask(prompt)
            with row.placed("video"):
                film = source(video)
            item = Item.question(
                item_id=row.name("id", f"{video}, {row.place}"),
                video_id=video,
                source=film,
                subtitles=subtitles_in(root, row),
                prompt=prompt,
                target="",
                task=row.name("task", OPEN),
                start_s=start_s,
                end_s=end_s,
                options=options,
            )
            return [item]

        placed = ((row.place, row) for row in chain(head, rows))
        return usable(placed, of_row, layout=LAYOUT, again=OWN_ID)


def _prompted(row: Row) -> Row:
    if "prompt" in row.values or "question" not in row.values:
        return row
    values = {"prompt" if key == "question" else key: v for key, v in row.values.items()}
    return replace(row, values=values)
