"""Captions of other things than films: MiniGPT-4's pictures, and sounds of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import Unpack

from mmavlm.core.conversation import Conversation
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.data.readers.annotations import SplitFiles, SplitNames, refuse_task
from mmavlm.data.readers.entries import Found, SkippingReader, StrictReader, usable
from mmavlm.data.readers.held_out import HeldOut
from mmavlm.data.readers.json_files import elements
from mmavlm.data.readers.layout import Layout
from mmavlm.data.readers.own import OWN_ID
from mmavlm.data.readers.rows import Row

TASK = "caption"
MINIGPT4 = Layout(("image_id", "caption"))
SOUNDS = Layout(("sound", "caption"), ("id", "start_s", "end_s", "split"), foreign=False)


class MiniGPT4Reader(SkippingReader):
    """MiniGPT-4's `filter_cap.json`: `{"annotations": [{"image_id", "caption"}]}`.

    Pictures lie in `image/<image_id>.jpg` beside the file, in `folder` below the root. Each is
    shown with `prompt`, which may be empty. A share `held_out` is for validation and test (see
    `HeldOut`). CC3M-595k and the 3 439 pictures of stage 2 are laid out so. (arXiv 2304.10592)

    Raises:
        ConfigError: if the share cannot be.
    """

    def __init__(
        self,
        folder: str = ".",
        file: str = "filter_cap.json",
        prompt: str = "",
        held_out: float = 0,
    ) -> None:
        self.folder = folder
        self.file = file
        self.prompt = prompt
        self.held_out = HeldOut(held_out, "image_id")

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a caption, and entry → reason of what was left out.

        Raises:
            ConfigError: if a task is given.
            DataError: if the file is missing or broken.
        """
        refuse_task(task, "captions")
        folder = Path(root) / self.folder
        path = folder / self.file
        rows = (
            Row.of(path, f"entry {number}", values)
            for number, values in enumerate(elements(path, under="annotations"))
        )
        return usable(
            ((row.place, row) for row in self.held_out.of(split, rows)),
            lambda _, row: [self._item(folder / "image", row)],
            layout=MINIGPT4,
        )

    def _item(self, folder: Path, row: Row) -> Item:
        name, caption = row.text("image_id"), row.text("caption")
        path = row.below(folder, f"{name}.jpg", "image_id")
        picture = Medium(medium_id=name, source=path, kind="picture")
        return Item(
            item_id=f"{name}, {row.place}",
            conversation=Conversation.question(picture, self.prompt, caption),
            task=TASK,
            references=(caption,),
        )


class SoundReader(StrictReader):
    """Rows `{"sound", "caption"}` of `<root>/<folder>/{train,val,test}.jsonl` (or .csv).

    `sound` is a path below the root, of a sound file or of a film whose track is heard; `id`,
    `start_s` and `end_s` may be given. Each is heard with `prompt`, which may be empty. See
    `SplitFiles` for other names of files and keys.

    Raises:
        ConfigError: if there is no such key.
    """

    def __init__(
        self,
        folder: str = "sounds",
        prompt: str = "what do you hear?",
        keys: Mapping[str, str] | None = None,
        **named: Unpack[SplitNames],
    ) -> None:
        self.files = SplitFiles(folder, SOUNDS, keys=keys, **named)
        self.prompt = prompt

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a row, and broken rows.

        Raises:
            ConfigError: if a task is given.
            DataError: if the file cannot be read.
        """
        refuse_task(task, "captions")
        root = Path(root)
        rows = ((row.place, row) for row in self.files.rows(root, split))
        return usable(rows, lambda _, row: [self._item(root, row)], layout=SOUNDS, again=OWN_ID)

    def _item(self, root: Path, row: Row) -> Item:
        name, caption = row.text("sound"), row.text("caption")
        start_s, end_s = row.stretch_s()
        path = row.below(root, name, "sound")
        sound = Medium(medium_id=name, source=path, kind="sound", start_s=start_s, end_s=end_s)
        return Item(
            item_id=row.name("id", f"{name}, {row.place}"),
            conversation=Conversation.question(sound, self.prompt, caption),
            task=TASK,
            references=(caption,),
        )
