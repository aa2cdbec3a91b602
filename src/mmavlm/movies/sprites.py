"""Drawings of people and things: RGBA pictures, antialiased by drawing large and reducing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFilter

from mmavlm.movies.script import Character

Colour = tuple[int, int, int] | tuple[int, int, int, int]  # with or without opacity
Box = tuple[float, float, float, float]

OVERSAMPLING = 4
COLOURS: dict[str, Colour] = {
    "red": (222, 38, 42),
    "orange": (246, 132, 24),
    "yellow": (248, 218, 40),
    "green": (34, 160, 62),
    "blue": (36, 92, 224),
    "purple": (164, 52, 186),
    "white": (246, 246, 246),
    "golden": (238, 186, 44),
    "black": (34, 30, 34),
    "brown": (112, 66, 34),
    "blond": (240, 208, 110),
    "ginger": (206, 98, 34),
}
SKINS: tuple[Colour, ...] = ((250, 214, 182), (206, 152, 110), (124, 80, 54))
INK: Colour = (36, 32, 40)
TROUSERS: Colour = (58, 58, 74)


class Pen:
    """Draws in units of the picture's height, y downwards, x = 0 in the middle."""

    def __init__(self, image: Image.Image) -> None:
        self._draw = ImageDraw.Draw(image)
        self._scale = image.height
        self._middle = image.width / 2

    def _points(self, points: Sequence[float]) -> list[tuple[float, float]]:
        pairs = zip(points[::2], points[1::2], strict=True)
        return [(self._middle + x * self._scale, y * self._scale) for x, y in pairs]

    def oval(self, box: Box, colour: Colour) -> None:
        """A filled ellipse in `box`."""
        self._draw.ellipse(self._points(box), fill=colour)

    def box(self, box: Box, colour: Colour, radius: float = 0.0) -> None:
        """A filled rectangle, its corners rounded by `radius`."""
        self._draw.rounded_rectangle(self._points(box), radius * self._scale, fill=colour)

    def shape(self, points: Sequence[float], colour: Colour) -> None:
        """A filled polygon through `points`: x, y, x, y, and so on."""
        self._draw.polygon(self._points(points), fill=colour)

    def line(self, points: Sequence[float], colour: Colour, width: float) -> None:
        """A stroke of `width` through `points`: x, y, x, y, and so on."""
        self._draw.line(
            self._points(points),
            fill=colour,
            width=max(1, round(width * self._scale)),
            joint="curve",
        )


def sketch(width: int, height: int, paint: Callable[[Pen], None]) -> Image.Image:
    """A (height, width) RGBA picture of what `paint` draws on a transparent ground."""
    large = Image.new("RGBA", (width * OVERSAMPLING, height * OVERSAMPLING), (0, 0, 0, 0))
    paint(Pen(large))
    return large.reduce(OVERSAMPLING)


def outlined(sprite: Image.Image) -> Image.Image:
    """The sprite on its own dark silhouette, one pixel wider, so that it stands out anywhere."""
    ground = Image.new("RGBA", sprite.size, (*INK, 0))
    ground.putalpha(sprite.getchannel("A").filter(ImageFilter.MaxFilter(3)))
    return Image.alpha_composite(ground, sprite)


def draw_character(
    character: Character,
    height: int,
    *,
    stride: bool,
    mouth_open: bool,
    gesture: str,
    expression: str = "neutral",
) -> Image.Image:
    """One pose of a character looking right, `height` pixels from hat to shoe."""
    cloth, skin = COLOURS[character.clothes], SKINS[character.skin]

    def paint(pen: Pen) -> None:
        _body(pen, character, cloth, skin, stride)
        _arms(pen, cloth, skin, gesture)
        _head(pen, character, skin, mouth_open, expression)
        _hat(pen, character.hat)

    return outlined(sketch(round(height * 0.76), height, paint))


def _body(pen: Pen, character: Character, cloth: Colour, skin: Colour, stride: bool) -> None:
    spread = 0.15 if stride else 0.08
    woman = character.gender == "woman"
    for side in (-1, 1):
        foot = side * spread
        leg = skin if woman else TROUSERS
        pen.line((side * 0.06, 0.76, foot, 0.96), leg, 0.085 if not woman else 0.06)
        pen.oval((foot - 0.05, 0.93, foot + 0.09, 1.0), INK)
    if woman:
        pen.shape((-0.11, 0.42, 0.11, 0.42, 0.23, 0.86, -0.23, 0.86), cloth)
    else:
        pen.box((-0.16, 0.42, 0.16, 0.79), cloth, 0.06)


def _arms(pen: Pen, cloth: Colour, skin: Colour, gesture: str) -> None:
    dark: Colour = (cloth[0] * 3 // 4, cloth[1] * 3 // 4, cloth[2] * 3 // 4)
    pen.line((-0.14, 0.47, -0.21, 0.66), dark, 0.08)
    pen.oval((-0.26, 0.63, -0.17, 0.72), skin)
    if gesture == "none":
        pen.line((0.14, 0.47, 0.21, 0.66), dark, 0.08)
        pen.oval((0.17, 0.63, 0.26, 0.72), skin)
    elif gesture == "point":
        pen.line((0.13, 0.48, 0.29, 0.36), dark, 0.08)
        pen.line((0.28, 0.37, 0.35, 0.27), skin, 0.05)
    else:
        pen.line((0.13, 0.48, 0.27, 0.34), dark, 0.08)
        pen.oval((0.20, 0.20, 0.35, 0.35), skin)


def _head(pen: Pen, character: Character, skin: Colour, mouth_open: bool, expression: str) -> None:
    hair = COLOURS[character.hair]
    if character.gender == "woman":
        pen.box((-0.19, 0.12, 0.15, 0.48), hair, 0.12)
    pen.oval((-0.145, 0.14, 0.155, 0.44), skin)
    pen.shape((-0.15, 0.29, -0.14, 0.15, 0.0, 0.10, 0.14, 0.16, 0.13, 0.22, -0.06, 0.21), hair)
    for eye in (0.02, 0.10):
        pen.oval((eye - 0.018, 0.25, eye + 0.018, 0.30), INK)
    if mouth_open:
        pen.oval((0.015, 0.335, 0.105, 0.415), (120, 20, 30))
    else:
        bent = {
            "happy": (0.02, 0.345, 0.06, 0.37, 0.10, 0.345),
            "sad": (0.02, 0.395, 0.06, 0.37, 0.10, 0.395),
        }
        pen.line(bent.get(expression, (0.02, 0.37, 0.10, 0.37)), (150, 50, 50), 0.02)
    if expression == "angry":
        pen.line((0.0, 0.215, 0.055, 0.25, 0.06, 0.25, 0.12, 0.215), INK, 0.022)


def _hat(pen: Pen, hat: str | None) -> None:
    if hat == "top hat":
        pen.box((-0.12, -0.01, 0.12, 0.15), INK, 0.01)
        pen.box((-0.20, 0.13, 0.20, 0.175), INK, 0.01)
        pen.box((-0.12, 0.09, 0.12, 0.13), COLOURS["red"])
    elif hat == "cap":
        pen.oval((-0.16, 0.03, 0.15, 0.25), COLOURS["blue"])
        pen.box((0.02, 0.15, 0.26, 0.19), COLOURS["blue"], 0.02)
    elif hat == "beanie":
        pen.oval((-0.16, 0.04, 0.16, 0.27), COLOURS["green"])
        pen.box((-0.165, 0.15, 0.165, 0.21), COLOURS["white"], 0.02)
        pen.oval((-0.05, 0.0, 0.05, 0.09), COLOURS["white"])
    elif hat == "crown":
        spikes = (-0.15, 0.02, -0.08, 0.1, 0.0, 0.0, 0.08, 0.1, 0.15, 0.02, 0.14, 0.19, -0.14, 0.19)
        pen.shape(spikes, COLOURS["golden"])


def draw_bubble(tone: str, size: int) -> Image.Image:
    """A speech bubble: round with three dots when calm, jagged with a bang when sharp."""

    def paint(pen: Pen) -> None:
        if tone == "calm":
            pen.oval((-0.49, 0.06, 0.49, 0.8), COLOURS["white"])
            pen.shape((-0.1, 0.72, 0.12, 0.72, 0.0, 0.99), COLOURS["white"])
            for x in (-0.24, 0.0, 0.24):
                pen.oval((x - 0.075, 0.35, x + 0.075, 0.5), INK)
        else:
            pen.shape(_star(9, 0.5, 0.34), COLOURS["white"])
            pen.shape((-0.08, 0.2, 0.08, 0.2, 0.04, 0.58, -0.04, 0.58), COLOURS["red"])
            pen.oval((-0.06, 0.63, 0.06, 0.75), COLOURS["red"])

    return outlined(sketch(size, size, paint))


def draw_spotlight(width: int, height: int) -> Image.Image:
    """A cone of light from above with its pool on the ground, translucent."""
    glow = (255, 246, 196, 120)

    def paint(pen: Pen) -> None:
        half = 0.5 * width / height
        pen.shape((-0.3 * half, 0.0, 0.3 * half, 0.0, 0.95 * half, 0.93, -0.95 * half, 0.93), glow)
        pen.oval((-half, 0.86, half, 1.0), (255, 250, 214, 190))

    return sketch(width, height, paint)


def draw_token(name: str, colour: str | None, size: int) -> Image.Image:
    """The thing that is taken or put: cup, ball, gift, book, star or key."""
    fill = COLOURS[colour or "golden"]
    painters: dict[str, Callable[[Pen], None]] = {
        "cup": lambda pen: _cup(pen, fill),
        "ball": lambda pen: _ball(pen, fill),
        "gift": lambda pen: _gift(pen, fill),
        "book": lambda pen: _book(pen, fill),
        "star": lambda pen: pen.shape(_star(5, 0.5, 0.22), fill),
        "key": lambda pen: _key(pen, fill),
    }
    return outlined(sketch(size, size, painters[name]))


def _star(spikes: int, outer: float, inner: float) -> list[float]:
    points = []
    for i in range(2 * spikes):
        angle, radius = math.pi * i / spikes, outer if i % 2 == 0 else inner
        points += [radius * math.sin(angle), 0.5 - radius * math.cos(angle)]
    return points


def _cup(pen: Pen, fill: Colour) -> None:
    for side in (-1, 1):
        pen.oval((min(side * 0.2, side * 0.46), 0.12, max(side * 0.2, side * 0.46), 0.42), fill)
    pen.shape((-0.32, 0.06, 0.32, 0.06, 0.2, 0.52, 0.06, 0.6, -0.06, 0.6, -0.2, 0.52), fill)
    pen.box((-0.07, 0.55, 0.07, 0.85), fill)
    pen.box((-0.25, 0.82, 0.25, 1.0), fill, 0.03)


def _ball(pen: Pen, fill: Colour) -> None:
    pen.oval((-0.47, 0.05, 0.47, 0.99), fill)
    pen.box((-0.46, 0.45, 0.46, 0.6), COLOURS["white"])


def _gift(pen: Pen, fill: Colour) -> None:
    pen.box((-0.44, 0.28, 0.44, 1.0), fill)
    pen.box((-0.09, 0.28, 0.09, 1.0), COLOURS["white"])
    pen.box((-0.44, 0.55, 0.44, 0.7), COLOURS["white"])
    for side in (-1, 1):
        pen.shape((0.0, 0.3, side * 0.34, 0.02, side * 0.36, 0.26), COLOURS["white"])


def _book(pen: Pen, fill: Colour) -> None:
    pen.box((-0.38, 0.05, 0.38, 1.0), fill, 0.05)
    pen.box((-0.38, 0.05, -0.26, 1.0), INK, 0.03)
    pen.box((-0.14, 0.22, 0.26, 0.42), COLOURS["white"])


def _key(pen: Pen, fill: Colour) -> None:
    pen.oval((-0.28, 0.0, 0.28, 0.5), fill)
    pen.oval((-0.11, 0.13, 0.11, 0.37), INK)
    pen.box((-0.08, 0.46, 0.08, 1.0), fill)
    pen.box((0.0, 0.66, 0.28, 0.76), fill)
    pen.box((0.0, 0.86, 0.28, 0.98), fill)
