"""One's own videos with prompts and answers: a jsonl or csv a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.core.options import Style, check_style
from mmavlm.data.readers.annotations import SplitFiles, SplitNames, listed
from mmavlm.data.readers.entries import Found, StrictReader, usable
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.tabled import Reading, TabledReader
from mmavlm.data.sources import inside, written_film

if TYPE_CHECKING:
    from mmavlm.data.item_writer import PlainRows

EVIDENCE = "evidence_s"  # also the key of it in an item's `meta`
STRETCH = ("start_s", "end_s")
TWIN_OF, REMOVED = "counterfactual_of", "removed"  # likewise
OPEN = "open"  # the task of rows that name none
LAYOUT = Layout(
    needed=("video", "prompt", "answer"),
    optional=(
        "id",
        *STRETCH,
        "task",
        "references",
        "options",
        "split",
        EVIDENCE,
        "subtitles",
        TWIN_OF,
        REMOVED,
    ),
    foreign=False,
)
MORE = ("references", "options", EVIDENCE, "subtitles", TWIN_OF, REMOVED)
OWN_ID = "give each row an id of its own"


class OwnReader(StrictReader, TabledReader):
    """Rows `{"video", "prompt", "answer"}` of `<root>/<folder>/{train,val,test}.jsonl` (or .csv).

    `video` is a path below the root, to a file or a folder of frames. May be given: `id`,
    `start_s`, `end_s`, `task`, `subtitles` (a file below the root with what is said in the film),
    `references` (other right answers; in a csv, with | in between), `options` (what there is to
    choose from, likewise; the answer is the text, letter or number of one), `evidence_s` (moments
    that show the answer, for reports); of a film that is a twin of another but for one object,
    `counterfactual_of` (that one's `video`) and `removed` (the object). Of a list of answers the
    first is the target, and all are right. See `SplitFiles` for other names of files and keys, and
    for one file with a `split` column. `closed` lists the tasks whose answers are classes, to be
    ranked; `options` says whether options are answered by letters, numbers or texts.

    Raises:
        ConfigError: if there is no such way to answer options, or no such key.
    """

    def __init__(
        self,
        folder: str = ".",
        closed: str | Sequence[str] = (),
        options: Style = "letters",
        keys: Mapping[str, str] | None = None,
        **named: Unpack[SplitNames],
    ) -> None:
        self.files = SplitFiles(folder, LAYOUT, keys=keys, **named)
        self.closed = tuple(listed(closed))
        self.style = check_style(options, "data.reader.options")

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a row of the split, of the given task or tasks if any, and broken rows.

        Raises:
            DataError: if the file cannot be read, or naming the tasks that there are if none of
                them is asked for.
        """
        root = Path(root)
        tasks = listed(task)
        there: set[str] = set()
        item_of = self.item_of(root, task)

        def of_row(key: str, row: Row) -> list[Item]:
            of_task = row.name("task", OPEN)
            there.add(of_task)
            return [] if tasks and of_task not in tasks else [item_of(key, row)]

        rows = ((row.place, row) for row in self.files.rows(root, split))
        found = usable(rows, of_row, layout=LAYOUT, again=OWN_ID)
        if there and not found.items and not found.skipped:
            raise DataError(
                f"{self.files.path(root, split)} has no rows of data.task={tasks}; its tasks are "
                f"{', '.join(sorted(there))}"
            )
        return found

    def reading(self, root: Path, split: str, task: str | Sequence[str] | None) -> Reading | None:
        """One item a row, if all tasks are asked for and none is closed; errors as of `read`."""
        if task or self.closed:
            return None
        source = cache(lambda video: written_film(root, video))
        return Reading(
            lambda: ((row.place, row) for row in self.files.rows(root, split)),
            lambda _, row: self._item(root, source, row, row.name("task", OPEN), []),
            self._plain,
            lambda video, _: source(video),
            task=OPEN,
            layout=LAYOUT,
            again=OWN_ID,
        )

    def _plain(self, entries: Sequence[tuple[str, Row]]) -> PlainRows:
        from mmavlm.data.item_writer import PlainRows
        from mmavlm.data.readers import plain

        rows = [row for _, row in entries]
        values = plain.columns(rows, "video", "prompt", "answer", "id", "task")
        video, films_plain = plain.names(values[0])
        prompt, asked_plain = plain.texts(values[1])
        answer, answers_plain = plain.texts(values[2])
        item_id, ids_plain = plain.texts_or(values[3], lambda: plain.places(video, rows))
        task, tasks_plain = plain.texts_or(values[4], lambda: [OPEN] * len(rows))
        start_s, end_s, stretches_plain = plain.stretches(rows)
        columns = {
            "item_id": item_id,
            "video": video,
            "source": video,
            "prompt": prompt,
            "target": answer,
            "task": task,
            "start_s": start_s,
            "end_s": end_s,
        }
        good = films_plain & asked_plain & answers_plain & ids_plain & tasks_plain & stretches_plain
        return PlainRows(columns, good & plain.without(rows, MORE), "any")

    def item_of(self, root: Path, task: str | Sequence[str] | None) -> Callable[[str, Row], Item]:
        """What makes the item of a row, of whatever task it is; raises DataError as of `read`."""
        classes = self._labels(root, task, lenient=True)
        source = cache(lambda video: written_film(root, video))

        def of_row(_: str, row: Row) -> Item:
            of_task = row.name("task", OPEN)
            return self._item(root, source, row, of_task, classes.get(of_task, []))

        return of_row

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Closed task → its answers in the training split, sorted.

        Raises:
            DataError: naming file, row and key of what cannot be used.
        """
        return self._labels(Path(root), task, lenient=False)

    def _labels(
        self, root: Path, task: str | Sequence[str] | None, *, lenient: bool
    ) -> dict[str, list[str]]:
        tasks = listed(task or self.closed)
        labels: dict[str, set[str]] = {name: set() for name in self.closed if name in tasks}
        for row in self.files.rows(root, "train") if labels else ():
            with suppress(DataError) if lenient else nullcontext():  # told where rows are read
                row.check()
                if (name := row.name("task", OPEN)) in labels:
                    labels[name].add(self._answers(row)[0])
        return {name: sorted(found) for name, found in labels.items()}

    def _answers(self, row: Row, choices: Sequence[str] = ()) -> list[str]:
        """The answer, and others that are given in a list with it."""
        if choices:
            return [row.text("answer", choices)]
        return row.texts("answer") or [row.text("answer")]

    def _item(
        self, root: Path, source: Callable[[str], Path], row: Row, task: str, classes: list[str]
    ) -> Item:
        video, choices = row.text("video"), row.choices("options")
        answer, *others = self._answers(row, choices or ())
        prompt = row.text("prompt")
        start_s, end_s = row.stretch_s()
        options = None
        if choices is not None:
            options, right = row.options(choices, self.style, answer)
            prompt, answer = options.ask(prompt), options.answers[right]
        evidence_s = row.moments_s(EVIDENCE)
        with row.placed("video"):
            film = source(video)
        return Item.question(
            item_id=row.name("id", f"{video}, {row.place}"),
            video_id=video,
            source=film,
            prompt=prompt,
            target=answer,
            task=task,
            start_s=start_s,
            end_s=end_s,
            subtitles=subtitles_in(root, row),
            references=(answer, *others, *(row.texts("references", split="|") or ())),
            label=classes.index(answer) if answer in classes else None,
            options=options,
            meta={
                **({EVIDENCE: evidence_s} if evidence_s else {}),
                **{key: row.text(key) for key in (TWIN_OF, REMOVED) if row.values.get(key)},
            },
        )


def subtitles_in(root: Path, row: Row) -> Path | None:
    """The file below the root that a row names for what is said in its film."""
    said = row.name("subtitles", "")
    with row.placed("subtitles"):
        return inside(root, said) if said else None
