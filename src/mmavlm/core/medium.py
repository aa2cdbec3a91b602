"""Films, pictures and sounds: where they lie, and which stretch of them is meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mmavlm.core.errors import DataError

Kind = Literal["film", "picture", "sound"]
GridSampling = Literal["windows", "segments"]
KINDS, SAMPLINGS = get_args(Kind), get_args(GridSampling)


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """The grid of extracted frames that an annotation counts, and how frames are taken of it.

    `windows`: evenly, as MA-LMM takes LVU's; `segments`: one of each of T equal segments.

    Raises:
        DataError: if the sampling is unknown.
    """

    frames: int
    sampling: GridSampling

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            known = ", ".join(SAMPLINGS)
            raise DataError(f"a grid is sampled by {self.sampling!r}; expected one of {known}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A stretch of a film, a picture (a film of one frame) or a sound.

    `source` is a file or a folder of frames. `start_s` and `end_s` bound the stretch; None is the
    end. `grid` is there where the annotation counts frames of its own. `subtitles` is a file with
    what is said in a film.

    Raises:
        DataError: if the kind is unknown.
    """

    medium_id: str
    source: Path
    kind: Kind = "film"
    start_s: float = 0.0
    end_s: float | None = None
    grid: FrameGrid | None = None
    subtitles: Path | None = None

    @property
    def is_sound(self) -> bool:
        """Whether it is heard, and not seen."""
        return self.kind == "sound"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise DataError(
                f"{self.medium_id!r} is a medium of kind {self.kind!r}; expected one of {known}"
            )

    def as_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes it again."""
        plain: dict[str, Any] = {
            "id": self.medium_id,
            "source": str(self.source),
            "kind": self.kind,
            "start_s": self.start_s,
            "end_s": self.end_s,
        }
        if self.grid is not None:
            plain["grid"] = {"frames": self.grid.frames, "sampling": self.grid.sampling}
        if self.subtitles is not None:
            plain["subtitles"] = str(self.subtitles)
        return plain

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Medium:
        """The medium of such values; raises KeyError, TypeError or ValueError for others."""
        grid = values.get("grid")
        end_s = values.get("end_s")
        return cls(
            medium_id=str(values["id"]),
            source=Path(values["source"]),
            kind=values.get("kind", "film"),
            start_s=float(values.get("start_s", 0.0)),
            end_s=None if end_s is None else float(end_s),
            grid=None if grid is None else FrameGrid(int(grid["frames"]), grid["sampling"]),
            subtitles=None if values.get("subtitles") is None else Path(values["subtitles"]),
        )
