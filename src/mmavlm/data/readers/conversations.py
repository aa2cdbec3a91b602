"""One's own conversations about films, pictures and sounds: a jsonl a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from mmavlm.core.conversation import Conversation
from mmavlm.core.items import Item
from mmavlm.core.medium import FrameGrid, Medium
from mmavlm.core.turns import Part, Shown, Turn
from mmavlm.data.readers.annotations import SplitFiles, SplitNames, listed
from mmavlm.data.readers.entries import Found, StrictReader, usable
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.own import OPEN, OWN_ID
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.values import absent, as_text, shown
from mmavlm.data.sources import inside, written_film

LAYOUT = Layout(("turns",), ("id", "media", "task", "references", "split"), foreign=False)
ROW = '{"role": "user", "parts": [{"medium": 0}, "Why?"]}'


class ConversationReader(StrictReader):
    """Rows `{"media", "turns"}` of `<root>/<folder>/{train,val,test}.jsonl`.

    They are what `Conversation.as_json` gives: `media` have a `source` below the root and may have
    `id`, `kind`, `start_s`, `end_s` and `subtitles`; `turns` have a `role`, and as `parts` texts
    and `{"medium": number}`; `guide` may say under which text media are seen, where that is not the
    turn's own. Turns of the assistant are learned: all of them, or those that say `learned` where
    some turn of the row does. The last must be the assistant's. A row may have
    `id`, `task` and `references`, other right texts of the last answer. See `SplitFiles` for other
    names of files and keys.

    Raises:
        ConfigError: if there is no such key.
    """

    def __init__(
        self,
        folder: str = ".",
        keys: Mapping[str, str] | None = None,
        **named: Unpack[SplitNames],
    ) -> None:
        self.files = SplitFiles(folder, LAYOUT, keys=keys, **named)

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a row of the split, of the given task or tasks if any, and broken rows.

        Raises:
            DataError: if the file cannot be read.
        """
        root, tasks = Path(root), listed(task)
        film = cache(partial(written_film, root))
        named: dict[str, Path] = {}

        def of_row(_: str, row: Row) -> list[Item]:
            of_task = row.name("task", OPEN)
            if tasks and of_task not in tasks:
                return []
            return [_item(row, of_task, lambda one: _medium(one, root, film, named))]

        rows = ((row.place, row) for row in self.files.rows(root, split))
        return usable(rows, of_row, layout=LAYOUT, again=OWN_ID)


def _item(row: Row, task: str, medium: Callable[[Row], Medium]) -> Item:
    shows = not absent(row.values.get("media")) and row.values["media"] != []
    media = tuple(map(medium, row.each("media", "medium"))) if shows else ()
    turns = row.each("turns", "turn")
    marked = any("learned" in turn.values for turn in turns)
    with row.placed("turns"):
        talk = Conversation(tuple(_turn(turn, marked) for turn in turns), media)
    if not talk.target:
        raise row.error("'turns' ends with the user's; expected an answer of the assistant")
    return Item(
        item_id=row.name("id", row.place),
        conversation=talk,
        task=task,
        references=(talk.target, *(row.texts("references", split="|") or ())),
    )


def _medium(row: Row, root: Path, film: Callable[[str], Path], named: dict[str, Path]) -> Medium:
    source, kind = row.text("source"), row.name("kind", "film")
    name = row.name("id", source)
    with row.placed("source"):
        path = film(source) if kind == "film" else inside(root, source)
    if named.setdefault(name, path) != path:
        raise row.error(
            f"'id' {shown(name)} was that of {named[name]} before, and is {path}'s here; give each "
            "medium an id of its own, or leave it out"
        )
    start_s, end_s = row.stretch_s()
    grid = None if absent(row.values.get("grid")) else row.inner("grid")
    said = row.name("subtitles", "")
    with row.placed():
        return Medium(
            medium_id=name,
            source=path,
            kind=kind,  # type: ignore[arg-type]  # which checks it
            start_s=start_s,
            end_s=end_s,
            grid=None if grid is None else FrameGrid(grid.whole("frames"), grid.text("sampling")),  # type: ignore[arg-type]
            subtitles=inside(root, said) if said else None,
        )


def _turn(row: Row, marked: bool) -> Turn:
    role, parts = row.text("role"), row.need("parts")
    if not isinstance(parts, list):
        raise row.error(f"'parts' must be a list, got {shown(parts)}; a turn is {ROW}")
    learned = row.values.get("learned", role == "assistant" and not marked)
    if not isinstance(learned, bool):
        raise row.error(f"'learned' must be true or false, got {shown(learned)}")
    found = tuple(_part(row, part) for part in parts)
    guide = None if absent(row.values.get("guide")) else row.text("guide")
    with row.placed():
        return Turn(role, found, learned, guide)  # type: ignore[arg-type]  # which checks it


def _part(row: Row, part: Any) -> Part:
    if isinstance(part, dict):
        number = part.get("medium")
        if type(number) is not int or set(part) != {"medium"}:
            raise row.error(f"'parts' holds {shown(part)}; a medium is shown by {{\"medium\": 0}}")
        return Shown(number)
    try:
        return as_text(part)
    except ValueError as error:
        raise row.error(f"'parts' holds what {error}") from None
