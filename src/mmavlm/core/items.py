"""Items: what readers make of annotation files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from typing_extensions import NotRequired, TypedDict, Unpack

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import DataError
from mmavlm.core.medium import FrameGrid, Medium
from mmavlm.core.options import Options


class ItemFields(TypedDict):
    """What `Item.question` takes beside the question itself: fields of `Item`."""

    item_id: str
    task: str
    references: NotRequired[tuple[str, ...]]
    label: NotRequired[int | None]
    options: NotRequired[Options | None]
    meta: NotRequired[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One conversation of a set, and what it is asked for.

    `references` are all texts that count as right, such as every caption of a video. `label` is the
    index of the target among the task's classes, or None. `options` are what there is to choose
    from, if the question brings them; the target is then one of their answers. `meta` holds what
    else the annotation says, such as the pair a question is of.
    """

    item_id: str
    conversation: Conversation
    task: str
    references: tuple[str, ...] = ()
    label: int | None = None
    options: Options | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def question(
        cls,
        *,
        video_id: str,
        source: Path,
        prompt: str,
        target: str,
        start_s: float = 0.0,
        end_s: float | None = None,
        grid: FrameGrid | None = None,
        subtitles: Path | None = None,
        **rest: Unpack[ItemFields],
    ) -> Item:
        """One question about one stretch of one film, and its answer."""
        film = Medium(
            medium_id=video_id,
            source=source,
            start_s=start_s,
            end_s=end_s,
            grid=grid,
            subtitles=subtitles,
        )
        return cls(conversation=Conversation.question(film, prompt, target), **rest)

    @property
    def prompt(self) -> str:
        """The text of the last turn of the user."""
        return self.conversation.prompt

    @property
    def target(self) -> str:
        """The text of the answer, "" where there is none."""
        return self.conversation.target

    @property
    def video_id(self) -> str:
        """The name of what is shown first, or of the item where nothing is."""
        media = self.conversation.media
        return media[0].medium_id if media else self.item_id

    @property
    def film(self) -> Medium:
        """What is shown, where that is one film or picture.

        Raises:
            DataError: naming the item, if nothing or several media are shown.
        """
        if len(self.conversation.media) != 1:
            raise DataError(
                f"item {self.item_id!r} shows {len(self.conversation.media)} media; expected one"
            )
        return self.conversation.media[0]


@runtime_checkable
class Reader(Protocol):
    """Annotation files → items. Raises DataError naming file, row and key on what stops it."""

    def __call__(self, root: Path, split: str, task: str | Sequence[str] | None) -> Sequence[Item]:
        """The items of one split (train, val or test) below the data root."""

    def classes(self, root: Path, task: str | Sequence[str] | None) -> dict[str, list[str]]:
        """Task → class names; tasks with open answers are absent."""
