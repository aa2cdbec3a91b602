"""Where in the picture the model looked: attention over the patches of a few frames."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from numpy.typing import NDArray
from PIL import Image

from mmavlm.model.explain import Explanation

MOST_PLACES = 4
PIXELS = 192  # longest side of a frame that is drawn
# Full colour is at least so many times what a patch has where attention is even, or the colours of
# attention that is nearly even would look like a find.
LEAST_PEAK = 4.0
HEAT = LinearSegmentedColormap.from_list("heat", [(0.85, 0.33, 0.0, 0.0), (0.85, 0.33, 0.0, 0.75)])


def drawable(explanation: Explanation) -> bool:
    """Whether there are frames to draw on and a place for their tokens."""
    return explanation.frames is not None and explanation.patch_grid is not None


def looked_at(explanation: Explanation) -> list[tuple[int, int]]:
    """Slot and frame of the most looked-at slots, most first.

    Of each slot it is the frame through which most of the slot's attention passes; a slot whose
    frame stands for another one already is passed over.
    """
    attention = explanation.slot_attention.mean(dim=(0, 1))
    of_frame = explanation.patch_attention.sum(dim=1)
    frame_of = (explanation.slots * of_frame).argmax(dim=1).tolist()
    found: dict[int, int] = {}
    for slot in attention.argsort(descending=True, stable=True).tolist():
        found.setdefault(frame_of[slot], slot)
    return [(slot, frame) for frame, slot in found.items()][:MOST_PLACES]


def heat_map(explanation: Explanation, frame: int) -> NDArray[np.float64]:
    """Attention to the patches of a frame, rows × columns, in multiples of an even share.

    An even share is one of all tokens of all frames.
    """
    grid = explanation.patch_grid
    assert grid is not None  # see `drawable`
    attention = explanation.patch_attention.double().numpy()
    patches = attention[frame, grid.first : grid.stop].reshape(grid.rows, grid.columns)
    return patches * attention.size


def draw_places(figure: Figure, row: SubplotSpec, explanation: Explanation) -> None:
    """The frames of the most looked-at slots side by side, with the attention laid over them."""
    assert explanation.frames is not None  # see `drawable`
    shown = looked_at(explanation)
    maps = [heat_map(explanation, frame) for _, frame in shown]
    peak = max(LEAST_PEAK, *(float(heat.max()) for heat in maps))
    share = explanation.slot_attention.mean(dim=(0, 1)).tolist()
    grid = row.subgridspec(1, MOST_PLACES + 1, width_ratios=[*[1] * MOST_PLACES, 0.06])
    for column, (slot, frame) in enumerate(shown):
        axes = figure.add_subplot(grid[0, column])
        picture = Image.fromarray(explanation.frames[frame]).convert("L")
        picture.thumbnail((PIXELS, PIXELS))
        extent = (0, picture.width, picture.height, 0)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255, extent=extent, alpha=0.75)
        mesh = axes.imshow(maps[column], cmap=HEAT, vmin=0, vmax=peak, extent=extent)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        when = f"{float(explanation.times_s[frame]):.1f} s"
        axes.set_xlabel(f"slot {slot + 1} ({share[slot]:.0%}), at {when}", fontsize=8)
        if column == 0:
            heading = (
                "Where in the picture: frames of the most looked-at slots (share of attention)"
            )
            axes.set_title(heading, loc="left", fontsize=9).set_in_layout(False)
    bar = figure.colorbar(mesh, cax=figure.add_subplot(grid[0, MOST_PLACES]))
    bar.outline.set_visible(False)
    bar.set_label("× even")
