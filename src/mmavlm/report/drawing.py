"""How pictures are drawn into a page: in its own colours and font, equal from run to run."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

FRAME_SIZE = 224  # longest side in pixels of a frame in the page
INK = "#010203"  # stands for the page's own text colour, which follows light and dark
NUMBERED_ID = re.compile(r' id="[\w.]+_\d+"')  # figure_1, axes_1: the same in every drawing
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # no address, no clock in a page
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # texts stay texts, in the page's font
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
}


@contextmanager
def style(salt: str) -> Iterator[None]:
    """What a figure is drawn and written in; `salt` tells the ids of drawings of one page apart."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": salt}):
        yield


def as_svg(figure: Figure) -> str:
    """A figure as an svg element in the page's colours; to be called within `style`."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata=NO_METADATA)
    svg = out.getvalue()
    svg = NUMBERED_ID.sub("", svg[svg.index("<svg") :])
    return svg.replace(INK, "currentColor")


def data_uri(frame: NDArray[np.uint8]) -> str:
    """A frame (H,W,3) as a JPEG within the page."""
    image = Image.fromarray(frame)
    image.thumbnail((FRAME_SIZE, FRAME_SIZE))
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")
