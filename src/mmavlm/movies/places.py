"""Backgrounds: the wall, floor, furniture and decor of a place, drawn once a film.

Painters take the x of a thing relative to the middle of the set; y runs from 0 (top) to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from mmavlm.movies.labels import Place
from mmavlm.movies.script import Scene
from mmavlm.movies.sprites import COLOURS, INK, Box, Colour, Pen, sketch

FLOOR_Y = 0.74
SHELF_Y = 0.36
SET_WIDTH = 1.3  # of the widest view: what camera moves may uncover
WHITE = COLOURS["white"]
WOOD: Colour = (150, 98, 54)
STEEL: Colour = (120, 124, 134)


@dataclass(frozen=True)
class Room:
    """Colours of wall, wall pattern and floor, and the pattern: stripes, bricks, panels, tiles."""

    wall: Colour
    trim: Colour
    floor: Colour
    pattern: str


ROOMS: Mapping[Place, Room] = {
    "school": Room((238, 228, 190), (226, 214, 170), (196, 150, 96), "panels"),
    "prison": Room((150, 150, 152), (122, 122, 126), (104, 104, 108), "bricks"),
    "office": Room((206, 224, 236), (190, 210, 226), (126, 140, 158), "panels"),
    "hotel": Room((176, 84, 92), (156, 62, 74), (120, 44, 58), "stripes"),
    "restaurant": Room((96, 138, 120), (80, 118, 104), (226, 222, 210), "tiles"),
    "airport": Room((220, 230, 236), (200, 212, 222), (178, 188, 198), "panels"),
}


def draw_background(scene: Scene, height: int) -> Image.Image:
    """The empty set, RGB, `SET_WIDTH`·height wide; the shelf is there, the token is not."""

    def paint(pen: Pen) -> None:
        draw_room(pen, ROOMS[scene.place])
        for prop in scene.props:
            if prop.role == "token":
                _shelf(pen, prop.x - 0.5)
            else:
                PROPS[prop.name](pen, prop.x - 0.5)

    return sketch(round(SET_WIDTH * height), height, paint).convert("RGB")


def draw_room(pen: Pen, room: Room) -> None:
    """Wall, floor and the pattern of a room."""
    edge = SET_WIDTH / 2
    pen.box((-edge, 0.0, edge, 1.0), room.wall)
    if room.pattern == "stripes":
        for i in range(-7, 8, 2):
            pen.box((i * 0.09, 0.0, i * 0.09 + 0.09, FLOOR_Y), room.trim)
    elif room.pattern == "bricks":
        for row in range(9):
            y = row * 0.09
            pen.box((-edge, y, edge, y + 0.012), room.trim)
            for i in range(-5, 6):
                x = i * 0.16 + (0.08 if row % 2 else 0.0)
                pen.box((x, y, x + 0.012, y + 0.09), room.trim)
    else:
        pen.box((-edge, 0.56, edge, FLOOR_Y), room.trim)
    pen.box((-edge, FLOOR_Y, edge, 1.0), room.floor)
    if room.pattern == "tiles":
        for row in range(3):
            for i in range(-6, 7):
                if (i + row) % 2:
                    x, y = i * 0.11, FLOOR_Y + row * 0.09
                    pen.box((x, y, x + 0.11, y + 0.09), (58, 62, 66))
    pen.box((-edge, FLOOR_Y - 0.012, edge, FLOOR_Y + 0.006), INK)


def _shelf(pen: Pen, x: float) -> None:
    pen.box((x - 0.13, SHELF_Y, x + 0.13, SHELF_Y + 0.025), (96, 58, 30))
    for side in (-1, 1):
        pen.box((x + side * 0.09 - 0.01, SHELF_Y, x + side * 0.09 + 0.01, SHELF_Y + 0.06), WOOD)


def _frame(pen: Pen, x: float, rim: Colour, inside: Colour, half: float = 0.17) -> Box:
    pen.box((x - half, 0.17, x + half, 0.46), rim, 0.01)
    inner = (x - half + 0.02, 0.19, x + half - 0.02, 0.44)
    pen.box(inner, inside)
    return inner


def _blackboard(pen: Pen, x: float) -> None:
    _frame(pen, x, WOOD, (30, 84, 60))
    for y, width in ((0.25, 0.2), (0.31, 0.14), (0.37, 0.18)):
        pen.line((x - 0.11, y, x - 0.11 + width, y), WHITE, 0.016)


def _barred_window(pen: Pen, x: float) -> None:
    _frame(pen, x, (70, 70, 76), (150, 196, 226), 0.14)
    for i in range(-2, 3):
        pen.box((x + i * 0.05 - 0.009, 0.17, x + i * 0.05 + 0.009, 0.46), INK)


def _chart(pen: Pen, x: float) -> None:
    _frame(pen, x, STEEL, WHITE)
    for i, (top, name) in enumerate(
        ((0.36, "red"), (0.30, "orange"), (0.33, "green"), (0.23, "blue"))
    ):
        left = x - 0.12 + i * 0.065
        pen.box((left, top, left + 0.045, 0.43), COLOURS[name])


def _key_rack(pen: Pen, x: float) -> None:
    _frame(pen, x, (92, 52, 28), (140, 90, 50))
    for row in range(2):
        for i in range(4):
            left, top = x - 0.125 + i * 0.07, 0.21 + row * 0.12
            pen.oval((left, top, left + 0.04, top + 0.04), COLOURS["golden"])
            pen.box((left + 0.013, top + 0.03, left + 0.027, top + 0.09), COLOURS["golden"])


def _menu_board(pen: Pen, x: float) -> None:
    _frame(pen, x, WOOD, (44, 40, 44), 0.13)
    pen.oval((x - 0.06, 0.22, x + 0.06, 0.30), WHITE)
    pen.oval((x - 0.035, 0.235, x + 0.035, 0.285), COLOURS["orange"])
    for y in (0.34, 0.385):
        pen.line((x - 0.08, y, x + 0.08, y), WHITE, 0.016)


def _plane_window(pen: Pen, x: float) -> None:
    _frame(pen, x, STEEL, (120, 190, 240), 0.2)
    pen.box((x - 0.13, 0.28, x + 0.11, 0.34), WHITE, 0.03)
    pen.shape((x - 0.13, 0.3, x - 0.16, 0.21, x - 0.11, 0.21, x - 0.07, 0.29), COLOURS["red"])
    pen.shape((x - 0.02, 0.32, x + 0.06, 0.32, x - 0.05, 0.42, x - 0.09, 0.42), STEEL)


def _school_desk(pen: Pen, x: float) -> None:
    pen.box((x - 0.17, 0.63, x + 0.17, 0.67), WOOD)
    for side in (-0.14, 0.12):
        pen.box((x + side, 0.66, x + side + 0.025, 0.82), STEEL)
    pen.box((x - 0.08, 0.605, x + 0.04, 0.63), COLOURS["blue"])


def _bunk(pen: Pen, x: float) -> None:
    for side in (-0.24, 0.22):
        pen.box((x + side, 0.52, x + side + 0.025, 0.84), (60, 60, 66))
    for y in (0.58, 0.74):
        pen.box((x - 0.23, y, x + 0.23, y + 0.045), (90, 110, 120))
        pen.box((x - 0.22, y - 0.03, x - 0.12, y + 0.01), WHITE, 0.01)


def _computer_desk(pen: Pen, x: float) -> None:
    pen.box((x - 0.2, 0.65, x + 0.2, 0.68), (90, 76, 70))
    for side in (-0.19, 0.08):
        pen.box((x + side, 0.68, x + side + 0.11, 0.83), (118, 100, 92))
    pen.box((x - 0.1, 0.49, x + 0.1, 0.62), INK, 0.01)
    pen.box((x - 0.085, 0.505, x + 0.085, 0.605), (90, 200, 230))
    pen.box((x - 0.02, 0.61, x + 0.02, 0.65), INK)


def _bed(pen: Pen, x: float) -> None:
    pen.box((x - 0.28, 0.52, x - 0.23, 0.84), (92, 52, 28), 0.01)
    pen.box((x - 0.25, 0.68, x + 0.27, 0.8), (226, 196, 130), 0.02)
    pen.box((x - 0.22, 0.62, x - 0.08, 0.69), WHITE, 0.03)
    pen.box((x - 0.04, 0.65, x + 0.27, 0.72), (60, 90, 150), 0.02)


def _dining_table(pen: Pen, x: float) -> None:
    pen.shape((x - 0.16, 0.62, x + 0.16, 0.62, x + 0.2, 0.82, x - 0.2, 0.82), WHITE)
    pen.box((x - 0.03, 0.5, x + 0.03, 0.62), (40, 110, 60), 0.015)
    pen.box((x - 0.012, 0.45, x + 0.012, 0.52), (40, 110, 60))
    pen.oval((x - 0.14, 0.6, x - 0.05, 0.635), COLOURS["red"])


def _suitcases(pen: Pen, x: float) -> None:
    for left, top, name in ((-0.16, 0.6, "brown"), (0.0, 0.66, "orange")):
        pen.box((x + left + 0.04, top - 0.05, x + left + 0.1, top), INK, 0.01)
        pen.box((x + left, top, x + left + 0.14, 0.83), COLOURS[name], 0.02)
        pen.box((x + left, top + 0.06, x + left + 0.14, top + 0.08), INK)


def _clock(pen: Pen, x: float) -> None:
    pen.oval((x - 0.09, 0.2, x + 0.09, 0.38), INK)
    pen.oval((x - 0.075, 0.215, x + 0.075, 0.365), WHITE)
    pen.line((x, 0.23, x, 0.29, x + 0.05, 0.31), INK, 0.018)


def _painting(pen: Pen, x: float) -> None:
    pen.box((x - 0.11, 0.19, x + 0.11, 0.39), COLOURS["golden"])
    pen.box((x - 0.09, 0.21, x + 0.09, 0.37), (120, 190, 236))
    pen.shape((x - 0.09, 0.37, x - 0.02, 0.25, x + 0.05, 0.37), (60, 120, 80))
    pen.oval((x + 0.03, 0.22, x + 0.08, 0.27), COLOURS["yellow"])


def _mirror(pen: Pen, x: float) -> None:
    pen.oval((x - 0.09, 0.15, x + 0.09, 0.43), COLOURS["golden"])
    pen.oval((x - 0.07, 0.17, x + 0.07, 0.41), (196, 222, 234))
    pen.line((x - 0.03, 0.33, x + 0.03, 0.23), WHITE, 0.02)


def _poster(pen: Pen, x: float) -> None:
    pen.box((x - 0.09, 0.17, x + 0.09, 0.42), COLOURS["red"])
    pen.oval((x - 0.055, 0.2, x + 0.055, 0.31), COLOURS["yellow"])
    pen.box((x - 0.06, 0.35, x + 0.06, 0.37), WHITE)


def _plant(pen: Pen, x: float) -> None:
    for tip, top in ((-0.09, 0.56), (-0.04, 0.48), (0.04, 0.47), (0.09, 0.57)):
        pen.shape((x - 0.02, 0.72, x + tip, top, x + 0.02, 0.72), (34, 130, 62))
    pen.shape((x - 0.06, 0.7, x + 0.06, 0.7, x + 0.045, 0.83, x - 0.045, 0.83), (186, 92, 52))


def _lamp(pen: Pen, x: float) -> None:
    pen.box((x - 0.01, 0.55, x + 0.01, 0.82), INK)
    pen.box((x - 0.05, 0.81, x + 0.05, 0.83), INK)
    pen.shape((x - 0.04, 0.45, x + 0.04, 0.45, x + 0.08, 0.57, x - 0.08, 0.57), COLOURS["yellow"])


def _cat(pen: Pen, x: float) -> None:
    pen.oval((x - 0.06, 0.7, x + 0.06, 0.84), COLOURS["black"])
    pen.oval((x - 0.05, 0.61, x + 0.05, 0.71), COLOURS["black"])
    for side in (-1, 1):
        pen.shape(
            (x + side * 0.05, 0.58, x + side * 0.048, 0.66, x + side * 0.01, 0.63), COLOURS["black"]
        )
        pen.oval(
            (x + side * 0.022 - 0.009, 0.645, x + side * 0.022 + 0.009, 0.67), COLOURS["yellow"]
        )
    pen.line((x + 0.05, 0.82, x + 0.1, 0.76, x + 0.09, 0.7), COLOURS["black"], 0.02)


def _bin(pen: Pen, x: float) -> None:
    pen.shape((x - 0.06, 0.66, x + 0.06, 0.66, x + 0.045, 0.83, x - 0.045, 0.83), STEEL)
    pen.box((x - 0.065, 0.65, x + 0.065, 0.67), (80, 84, 92))


PROPS: Mapping[str, Callable[[Pen, float], None]] = {
    "blackboard": _blackboard,
    "barred window": _barred_window,
    "chart": _chart,
    "key rack": _key_rack,
    "menu board": _menu_board,
    "plane window": _plane_window,
    "school desk": _school_desk,
    "bunk": _bunk,
    "computer desk": _computer_desk,
    "bed": _bed,
    "dining table": _dining_table,
    "suitcases": _suitcases,
    "clock": _clock,
    "painting": _painting,
    "mirror": _mirror,
    "poster": _poster,
    "plant": _plant,
    "lamp": _lamp,
    "cat": _cat,
    "bin": _bin,
}
