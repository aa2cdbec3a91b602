"""Pictures as a player turns them: the display matrix of phones and front cameras."""

from __future__ import annotations

import logging
import math
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.sidedata import sidedata
from numpy.typing import NDArray

log = logging.getLogger(__name__)

SIDE_DATA: Any = sidedata.SideDataContainer  # its stub knows of no argument
MATRIX = struct.Struct("=9i")
SLANT_DEG = 1.0  # what a matrix may lack of a quarter turn without being told of


class Orientation(NamedTuple):
    """How a picture is to be shown: mirrored left to right first, then turned."""

    mirrored: bool
    quarters: int  # counterclockwise
    slant_deg: float  # what is left of the turn, at most 45

    def shown(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture (H,W,3) as it is to be shown."""
        return np.rot90(picture[:, ::-1] if self.mirrored else picture, self.quarters)


UPRIGHT = Orientation(False, 0, 0.0)


def orientation(frame: Any, name: Path | str) -> Orientation:
    """How a frame is to be shown: by the nearest quarter turn, which is said once of each file."""
    try:
        # frame.side_data would keep the frame, which keeps it, until the garbage collector comes
        matrix = SIDE_DATA(frame).get(sidedata.Type.DISPLAYMATRIX)
    except ValueError:  # PyAV gives none where one is of a kind that it does not know
        found = from_angle(frame.rotation)
    else:
        found = UPRIGHT if matrix is None else from_matrix(MATRIX.unpack_from(matrix))
    if abs(found.slant_deg) > SLANT_DEG:
        _say_once(name, round(found.slant_deg))
    return found


@lru_cache
def from_matrix(matrix: tuple[int, ...]) -> Orientation:
    """The orientation of a display matrix (a b u, c d v, x y w) as of ISO/IEC 14496-12, 8.3.2.

    It maps (x, y) to (a·x + c·y, b·x + d·y), y pointing down. The sign of its determinant says
    whether it mirrors; one that has none, as a matrix of zeros, says nothing.
    """
    a, b, _, c, d = matrix[:5]
    determinant = a * d - b * c
    if not determinant:
        return UPRIGHT
    mirrored = determinant < 0
    # of a matrix that mirrors, what turns after x has changed its sign; pixels may not be square
    right, down = a / math.hypot(a, c), b / math.hypot(b, d)
    angle = math.degrees(math.atan2(-down, -right) if mirrored else math.atan2(down, right))
    quarters = round(angle / 90)
    return Orientation(mirrored, -quarters % 4, angle - 90 * quarters)


def from_angle(degrees: int) -> Orientation:
    """The orientation of a counterclockwise angle; what is no angle, as of zeros, says nothing."""
    if abs(degrees) > 180:
        return UPRIGHT
    quarters = round(degrees / 90)
    return Orientation(False, quarters % 4, 90.0 * quarters - degrees)


@lru_cache
def _say_once(name: Path | str, slant_deg: int) -> None:
    log.warning(
        "%s is to be shown %d° off a quarter turn; it is turned to the nearest one", name, slant_deg
    )
