"""Published sets of instructions: conversations as LLaVA writes them, and as VideoChat does."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from typing_extensions import Unpack

from mmavlm.core.items import Item
from mmavlm.core.medium import Kind, Medium
from mmavlm.core.turns import Role
from mmavlm.data.readers.annotations import SplitFiles, SplitNames, refuse_task
from mmavlm.data.readers.entries import Found, SkippingReader, usable
from mmavlm.data.readers.held_out import HeldOut
from mmavlm.data.readers.layout import TURNS, Layout
from mmavlm.data.readers.rows import Row
from mmavlm.data.readers.spoken import Said, conversation, shown_again, under_guides
from mmavlm.data.readers.values import absent, shown
from mmavlm.data.sources import inside, written_film

TASK = "instruct"
PICTURES, FILMS = ("image", "images"), ("video", "videos")
LLAVA = Layout((), (*TURNS, *PICTURES, *FILMS, "id", "split"))
VIDEOCHAT = Layout(("video", "QA"), ("split",))
ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class InstructionReader(SkippingReader):
    """What both readers share: a file a split, or one of which a share is held out.

    With `held_out` all splits are read from the file of training (see `HeldOut`). With
    `guide_only` the texts of turns that show media guide what is seen of them, and the language
    model does not read them; with `show_again` each later turn of the user shows the media again,
    under its own question (LLaMA-VID's first and later stages). See `SplitFiles` for the names of
    the files.

    Raises:
        ConfigError: if the share cannot be.
    """

    def __init__(
        self,
        folder: str,
        layout: Layout,
        held_out: HeldOut,
        *,
        guide_only: bool,
        show_again: bool,
        **named: Unpack[SplitNames],
    ) -> None:
        self.files = SplitFiles(folder, layout, **named)
        self.held_out = held_out
        self.guide_only = guide_only
        self.show_again = show_again

    def read(self, root: Path, split: str, task: str | Sequence[str] | None) -> Found:
        """One item a row, and row → reason of what was left out.

        Raises:
            ConfigError: if a task is given.
            DataError: if the file is missing or broken.
        """
        refuse_task(task, "instructions")
        rows = self.files.rows(Path(root), "train" if self.held_out.share else split)
        of_row = self.of_row(Path(root))
        return usable(
            ((row.place, row) for row in self.held_out.of(split, rows)),
            lambda _, row: [self._as_shown(of_row(row))],
            layout=self.files.layout,
        )

    def _as_shown(self, item: Item) -> Item:
        talk = item.conversation
        if self.show_again:
            talk = shown_again(talk, item.item_id)
        if self.guide_only:
            talk = under_guides(talk)
        return replace(item, conversation=talk)

    @abstractmethod
    def of_row(self, root: Path) -> Callable[[Row], Item]:
        """What makes an item of a row, for a set below `root`."""


class LlavaReader(InstructionReader):
    """LLaVA's json: `{"id", "image" or "video", "conversations": [{"from", "value"}]}` rows.

    Pictures lie in the folder `images` and films in `videos`, both below the root. Each may be a
    list (also under `images`, `videos`) or missing. `<image>` and `<video>` in what the user says
    are the places where they are shown (see `spoken.conversation`). Roles are human or user, gpt or
    assistant, system; ShareGPT's spelling, `"messages": [{"role", "content"}]`, is read too.
    `image_prefix` stands in front of a picture's file name, such as COCO_train2014_. An id may be
    there several times, as in LLaVA-Instruct. (arXiv 2304.08485)

    Raises:
        ConfigError: if the share cannot be.
    """

    def __init__(
        self,
        folder: str = ".",
        images: str = ".",
        videos: str = ".",
        image_prefix: str = "",
        held_out: float = 0,
        guide_only: bool = False,
        show_again: bool = False,
        **named: Unpack[SplitNames],
    ) -> None:
        keys = (*PICTURES, *FILMS, "id")
        held = HeldOut(held_out, *keys)
        super().__init__(folder, LLAVA, held, guide_only=guide_only, show_again=show_again, **named)
        self.images = images
        self.videos = videos
        self.image_prefix = image_prefix

    def of_row(self, root: Path) -> Callable[[Row], Item]:
        """What makes an item of a row, for a set below `root`."""
        film = cache(partial(written_film, root / self.videos))

        def item(row: Row) -> Item:
            key, said = _said(row)
            media = [
                *_media(root, row, "picture", PICTURES, partial(self._picture, root)),
                *_media(root, row, "film", FILMS, film),
            ]
            talk = conversation(row, key, said, media)
            name = row.name("id", "")
            return Item(
                item_id=f"{name}, {row.place}" if name else row.place,
                conversation=talk,
                task=TASK,
                references=(talk.target,),
            )

        return item

    def _picture(self, root: Path, name: str) -> Path:
        folder, slash, file = name.rpartition("/")
        return inside(root / self.images, f"{folder}{slash}{self.image_prefix}{file}")


class VideoChatReader(InstructionReader):
    """VideoChat's json: `{"video", "QA": [{"q", "a"}]}` rows, a conversation about one film each.

    Films lie in the folder `videos` below the root. The first pair may have an instruction `i`,
    which is the system's turn, and no question, as captions do. (arXiv 2305.06355)

    Raises:
        ConfigError: if the share cannot be.
    """

    def __init__(
        self,
        folder: str = ".",
        videos: str = "videos",
        held_out: float = 0,
        guide_only: bool = False,
        show_again: bool = False,
        **named: Unpack[SplitNames],
    ) -> None:
        held = HeldOut(held_out, "video")
        super().__init__(
            folder, VIDEOCHAT, held, guide_only=guide_only, show_again=show_again, **named
        )
        self.videos = videos

    def of_row(self, root: Path) -> Callable[[Row], Item]:
        """What makes an item of a row, for a set below `root`."""
        film = cache(partial(written_film, root / self.videos))

        def item(row: Row) -> Item:
            video = row.text("video")
            said = [turn for n, pair in enumerate(_pairs(row)) for turn in _pair(pair, n == 0)]
            with row.placed("video"):
                medium = Medium(medium_id=video, source=film(video))
            talk = conversation(row, "QA", said, [medium])
            return Item(
                item_id=f"{video}, {row.place}",
                conversation=talk,
                task=TASK,
                references=(talk.target,),
            )

        return item


def _said(row: Row) -> tuple[str, list[Said]]:
    """Under which key a row has its turns, and who says what in them."""
    key = next((key for key in TURNS if not absent(row.values.get(key))), TURNS[0])
    turns = row.each(key, "turn")
    if not turns:
        raise row.error(f"{key!r} is an empty list; give turns, or remove the row")
    return key, [_one(turn) for turn in turns]


def _one(turn: Row) -> Said:
    role, text = ("role", "content") if "role" in turn.values else ("from", "value")
    who = turn.text(role)
    if who not in ROLES:
        raise turn.error(f"{role!r} must be one of {', '.join(ROLES)}, got {shown(who)}")
    return ROLES[who], turn.text(text)


def _media(
    root: Path, row: Row, kind: Kind, keys: Sequence[str], source: Callable[[str], Path]
) -> list[Medium]:
    """The media under some keys; each has its path below the root for a name."""
    found = []
    for key in keys:
        for name in row.texts(key) or ():
            with row.placed(key):
                path = source(name)
            below = path.relative_to(root).as_posix()
            found.append(Medium(medium_id=below, source=path, kind=kind))
    return found


def _pairs(row: Row) -> list[Row]:
    pairs = row.each("QA", "pair")
    if not pairs:
        raise row.error("'QA' is an empty list; give pairs, or remove the row")
    first = pairs[0].values.get("i")
    if other := next(
        (pair for pair in pairs[1:] if pair.values.get("i") not in (None, first)), None
    ):
        raise other.error(
            f"'i' is {shown(other.values['i'])}, but {shown(first)} in the first pair; a "
            "conversation has one instruction"
        )
    return pairs


def _pair(pair: Row, first: bool) -> list[Said]:
    """The turns of a question and its answer; those of the first may begin with an instruction."""
    said: list[Said] = []
    if first and not absent(pair.values.get("i")):
        said.append(("system", pair.text("i")))
    asked = "" if first and absent(pair.values.get("q")) else pair.text("q")
    return [*said, ("user", asked), ("assistant", pair.text("a"))]
