"""MA-LMM's sets beside LVU: class labels, questions, and captions with references."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import Unpack

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import FrameGrid
from mmavlm.core.options import Style, check_style
from mmavlm.data.readers.annotations import SplitNames, listed, refuse_task
from mmavlm.data.readers.entries import EntryFiles, Found, SkippingReader, usable
from mmavlm.data.readers.json_files import elements
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.tabled import Reading, TabledReader
from mmavlm.data.sources import FRAMES, VIDEOS, locate

if TYPE_CHECKING:
    from mmavlm.data.item_writer import PlainRows

log = logging.getLogger(__name__)

Where = Callable[[str], Path]  # film → where it lies
COUNT = "frame_length"
QUESTION = "{question}"  # where a prompt takes the question


class EntryReader(SkippingReader):
    """One item an entry of a set's JSON files.

    Films lie in `<root>/<folder>/frames/<video>/` or `<root>/<folder>/videos/<video>.mp4`
    (`source`: auto, video, frames); `count_key` is the key of the number of frames extracted of a
    film, on which frames are chosen. `layout` says which keys entries have.
    """

    def __init__(
        self, files: EntryFiles, layout: Layout, *, prompt: str, source: str, count_key: str
    ) -> None:
        self.files = files
        self.layout = layout
        self.prompt = prompt
        self.source = source
        self.count_key = count_key

    def film(self, key: str, row: Row) -> str:
        """The name of an entry's film."""
        return row.text("video")

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """The items of a split, and entry → reason of what was left out."""
        refuse_task(task, f"the entries of {self.files.folder}")
        of_entry = partial(self.of_entry, self.where(Path(root)))
        entries = self.files.entries(root, split)
        return usable(entries, lambda key, row: [of_entry(key, row)], layout=self.layout)

    def where(self, root: Path) -> Where:
        """Film → where it lies."""
        # entries of one film stand beside each other, and looking for it takes long
        return cache(partial(locate, root / self.files.folder, kind=self.source))

    def of_entry(self, where: Where, key: str, row: Row) -> Item:
        """The item of an entry that is of its split; errors as of `item`."""
        self.files.check_subset(row)
        return self.item(where, key, row)

    @abstractmethod
    def item(self, where: Where, key: str, row: Row) -> Item:
        """The item of an entry; `where` says where its film lies.

        Raises:
            DataError: naming file, entry and key of what cannot be used.
        """

    def _item(self, where: Where, key: str, row: Row, target: str, **rest: Any) -> Item:
        """The item of an entry; `rest` are further arguments of `Item.question`."""
        frames = row.whole(self.count_key)
        video = self.film(key, row)
        try:
            source = where(video)
        except DataError as error:
            raise row.misplaced(error, "video" if "video" in row.values else None) from None
        return Item.question(
            item_id=key,
            video_id=video,
            source=source,
            target=target,
            references=(target,),
            grid=FrameGrid(frames, "segments"),
            **rest,
        )


class LabelReader(EntryReader):
    """Films with a class each: `{id: {<label>: class, <count_key>: frames}}`, as Breakfast, COIN.

    `name` is the task its metrics are told by; `skip` lists films that are left out.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        prompt: str,
        label: str,
        *,
        count_key: str = "frame_length",
        source: str = "auto",
        skip: str | Sequence[str] = (),
        shared: str | None = None,
        counted: bool = False,
        **named: Unpack[SplitNames],
    ) -> None:
        files = EntryFiles(folder, held_out=True, shared=shared, counted=counted, **named)
        layout = Layout((label, count_key), ("subset",))
        super().__init__(files, layout, prompt=prompt, source=source, count_key=count_key)
        self.name = name
        self.label = label
        self.skip = frozenset(listed(skip))

    def film(self, key: str, row: Row) -> str:
        """Its key."""
        return key

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """The task → its labels in the training split, sorted."""
        found = super().read(Path(root), "train", task)
        return {self.name: sorted({item.target for item in found.items})}

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """The items of a split with the indices of their classes, and what was left out."""
        known = {name: i for i, name in enumerate(self.classes(root, task)[self.name])}
        found = super().read(root, split, task)
        labelled = [replace(item, label=known.get(item.target)) for item in found.items]
        return found._replace(items=labelled)

    def item(self, where: Where, key: str, row: Row) -> Item:
        """The item of a film."""
        if key in self.skip:
            raise row.error("listed in data.reader.skip")
        label = row.words(self.label)
        return self._item(where, key, row, label, prompt=self.prompt, task=self.name)


class QuestionReader(EntryReader, TabledReader):
    """Questions with short answers: `{id: {question, answer, video, frame_length}}`.

    `prompt` holds `{question}`. Files are `qa_{train,val,test}.json`. An entry may have `options`,
    a list of texts of which the answer is one: they stand behind the question, to be answered by
    letters, numbers or texts, as `options` says.

    Raises:
        ConfigError: if the prompt has no place for the question, or options have no such answers.
    """

    def __init__(
        self,
        folder: str,
        prompt: str,
        *,
        options: Style = "letters",
        source: str = "auto",
        counted: bool = False,
        **named: Unpack[SplitNames],
    ) -> None:
        self.style = check_style(options, "data.reader.options")
        if QUESTION not in prompt:
            raise ConfigError(f"data.reader.prompt={prompt!r} has no {QUESTION} to fill in")
        files = EntryFiles(folder, "qa_", counted=counted, **named)
        layout = Layout(("question", "answer", "video", COUNT), ("options",))
        super().__init__(files, layout, prompt=prompt, source=source, count_key=COUNT)

    def reading(self, root: Path, split: str, task: str | Sequence[str] | None) -> Reading:
        """One question an entry; errors as of `read`."""
        refuse_task(task, f"the entries of {self.files.folder}")
        where = self.where(root)
        return Reading(
            lambda: self.files.entries(root, split),
            partial(self.of_entry, where),
            partial(self._plain, (root / self.files.folder / FRAMES).is_dir()),
            lambda video, _: where(video),
            task="qa",
            layout=self.layout,
        )

    def _plain(self, has_frames: bool, entries: Sequence[tuple[str, Row]]) -> PlainRows:
        import pyarrow as pa
        import pyarrow.compute as pc

        from mmavlm.data.item_writer import PlainRows
        from mmavlm.data.readers import plain

        rows = [row for _, row in entries]
        values = plain.columns(rows, "video", "question", "answer", COUNT)
        video, films_plain = plain.names(values[0])
        question, asked_plain = plain.words(values[1])
        answer, answers_plain = plain.words(values[2])
        frames, counts_plain = plain.whole(values[3])
        extracted = self.source == "frames" or (self.source == "auto" and has_frames)
        folder = (Path(self.files.folder) / (FRAMES if extracted else VIDEOS)).as_posix()
        source = pc.binary_join_element_wise(folder, video, "/")
        before, behind = self.prompt.split(QUESTION, 1)
        columns = {
            "item_id": pa.array([key for key, _ in entries], pa.string()),
            "video": video,
            "source": source if extracted else plain.with_suffix(source),
            "prompt": pc.binary_join_element_wise(before, question, behind, ""),
            "target": answer,
            "frames": frames,
        }
        others = np.array(["options" in row.values for row in rows], bool)
        told_apart = self.files.shared is not None or QUESTION in behind
        good = films_plain & asked_plain & answers_plain & counts_plain & ~others & (not told_apart)
        return PlainRows(columns, good, "folder" if extracted else "file")

    def item(self, where: Where, key: str, row: Row) -> Item:
        """The item of a question."""
        question, choices, options = row.words("question"), row.choices("options"), None
        if choices is None:
            answer = row.words("answer")
        else:
            right = row.text("answer", choices)
            options, at = row.options(choices, self.style, right)
            question, answer = options.ask(question), options.answers[at]
        prompt = self.prompt.replace(QUESTION, question)
        return self._item(where, key, row, answer, prompt=prompt, task="qa", options=options)


class ReferenceReader(EntryReader):
    """Captions: `{n: {caption, video, frame_length}}`, YouCook2's with `segment` and its times.

    Files are `cap_{train,val,test}.json`. Outside training an item's references are all captions
    of its video or segment, as they stand in `coco_gt/` of the annotation, or else in the split.
    """

    def __init__(
        self,
        folder: str,
        prompt: str,
        *,
        max_words: int = 50,
        source: str = "auto",
        counted: bool = False,
        **named: Unpack[SplitNames],
    ) -> None:
        files = EntryFiles(folder, "cap_", counted=counted, **named)
        layout = Layout(
            ("caption", "video", COUNT), ("segment", "start_time", "end_time", "duration")
        )
        super().__init__(files, layout, prompt=prompt, source=source, count_key=COUNT)
        self.max_words = max_words

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """The items of a split with their references, and what was left out."""
        found = super().read(root, split, task)
        items, skipped = found.items, found.skipped
        if split == "train":
            return found
        known: dict[str, list[str]] = {}
        for item in items:
            known.setdefault(_described(item), []).append(item.target)
        path = self.files.original(root, split)
        path = path.parent / "coco_gt" / path.name
        if path.is_file():
            published, unusable = read_references(path)
            skipped |= unusable
            if absent := known.keys() - published.keys():
                log.warning(
                    "%s has no captions of %d of %d videos, such as %s; those of the split itself "
                    "are their references", path, len(absent), len(known), min(absent)
                )  # fmt: skip
            known |= published
        shared = {name: tuple(captions) for name, captions in known.items()}
        items = [replace(item, references=shared[_described(item)]) for item in items]
        return found._replace(items=items, skipped=skipped)

    def item(self, where: Where, key: str, row: Row) -> Item:
        """The item of a caption."""
        caption = row.words("caption", self.max_words)
        segment = _segment(row) if "segment" in row.values else {}
        return self._item(where, key, row, caption, prompt=self.prompt, task="caption", **segment)


def read_references(path: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Captions by video or segment, of `{"annotations": [{image_id, caption}, …]}`.

    Beside them stands what could not be used, with its reason.

    Raises:
        DataError: if the file is missing, broken, or holds something else.
    """
    captions: dict[str, list[str]] = {}
    unusable = {}
    try:
        for number, values in enumerate(elements(path, under="annotations")):
            place = f"annotation {number}"
            try:
                row = Row.of(path, place, values)
                row.check()
                captions.setdefault(row.text("image_id"), []).append(row.text("caption"))
            except DataError as error:
                unusable[f"{path.name}, {place}"] = str(error)
    except DataError as error:
        raise DataError(
            f"{error}; captions are expected as in COCO's files: get it anew, or remove it to "
            "take the captions of the split"
        ) from None
    return captions, unusable


def _segment(row: Row) -> dict[str, Any]:
    """What the segment of a video says of an item."""
    start_s, end_s = row.stretch_s("start_time", "end_time")
    duration_s = row.number("duration")
    if duration_s is not None and start_s >= duration_s:
        raise row.error(f"start_time must be before duration={duration_s:g}, got {start_s:g}")
    return {"start_s": start_s, "end_s": end_s, "meta": {"segment": row.text("segment")}}


def _described(item: Item) -> str:
    """What a caption is about: a segment of a video, or all of it."""
    return str(item.meta.get("segment", item.video_id))
