"""The image generator that needs no model and no network: it draws what a frame says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmavlm.core.errors import ConfigError
from mmavlm.movies.film import Era, Light
from mmavlm.movies.frames import Actor, FrameSpec, Picture
from mmavlm.movies.places import PROPS, ROOMS, SET_WIDTH, WOOD, Room, draw_room
from mmavlm.movies.script import Character
from mmavlm.movies.sprites import Pen, draw_bubble, draw_character, draw_token, sketch
from mmavlm.movies.vocabulary import STYLES, Action, Style, Thing

MIN_SIZE = 32
GROUND_Y = 0.9
HEIGHT = 0.46  # of a person who stands
STOOL = 0.1
SHELF_Y = 0.24
THING, BUBBLE = 0.13, 0.24
GESTURES: Mapping[Action, str] = dict.fromkeys(("point", "take", "put", "give"), "point")
STANDS: Mapping[int, tuple[float, ...]] = {
    0: (),
    1: (0.0,),
    2: (-0.24, 0.24),
    3: (-0.33, 0.0, 0.33),
}
# What hangs and stands where: no two overlap, and nobody of two people stands before them.
SLOTS: Mapping[str, float] = {
    "clock": -0.38, "painting": -0.13, "mirror": 0.13, "poster": 0.38,
    "plant": -0.42, "lamp": -0.06, "cat": 0.08, "bin": 0.43,
}  # fmt: skip

PLACES: Mapping[str, tuple[Room, tuple[str, str]]] = {
    "school": (ROOMS["school"], ("blackboard", "school desk")),
    "prison": (ROOMS["prison"], ("barred window", "bunk")),
    "office": (ROOMS["office"], ("chart", "computer desk")),
    "hotel": (ROOMS["hotel"], ("key rack", "bed")),
    "restaurant": (ROOMS["restaurant"], ("menu board", "dining table")),
    "airport": (ROOMS["airport"], ("plane window", "suitcases")),
    "kitchen": (Room((250, 226, 150), (240, 206, 112), (226, 226, 226), "tiles"), ("clock", "bin")),
    "library": (Room((120, 82, 56), (98, 62, 40), (86, 54, 36), "stripes"), ("painting", "lamp")),
    "garden": (Room((156, 206, 244), (88, 168, 84), (70, 140, 66), "panels"), ("plant", "cat")),
    "museum": (
        Room((240, 240, 238), (222, 222, 220), (170, 120, 84), "panels"),
        ("mirror", "lamp"),
    ),
    "station": (
        Room((176, 112, 84), (146, 88, 64), (92, 92, 96), "bricks"),
        ("clock", "suitcases"),
    ),
    "workshop": (Room((112, 132, 96), (96, 114, 82), (110, 92, 70), "bricks"), ("poster", "bin")),
    "hospital": (
        Room((196, 236, 226), (172, 220, 208), (216, 226, 226), "panels"),
        ("chart", "bed"),
    ),
    "theatre": (Room((92, 30, 60), (116, 40, 76), (60, 24, 30), "stripes"), ("poster", "plant")),
}  # fmt: skip


@dataclass(frozen=True)
class Stock:
    """The style of one film: its light and stock are drawn once and lie over every frame."""

    era: Era


class ProceduralImages:
    """Draws frames at `size`×`size` pixels: the same frame and style, the same picture.

    Raises:
        ConfigError: if the size is odd or below 32.
    """

    def __init__(self, size: int = 96) -> None:
        if size < MIN_SIZE or size % 2:
            raise ConfigError(f"size={size} cannot be drawn; give an even number from {MIN_SIZE}")
        self.size = size
        self._sprites: dict[tuple[object, ...], Image.Image] = {}

    @property
    def fingerprint(self) -> str:
        """The version of the drawings, and their size."""
        return f"procedural 1, {self.size}"

    def prepare_style(self, style: Style, seed: int) -> Stock:
        """The light and stock of the style's keyword."""
        mood, look = STYLES[style.keyword]
        return Stock(Era(look, Light(mood, self.size), self.size, np.random.default_rng(seed)))

    def render(
        self, frames: Sequence[FrameSpec], style: Stock, seeds: Sequence[int]
    ) -> Iterator[Picture]:
        """The pictures; seeds play no part, since the frames leave nothing open."""
        for frame in frames:
            yield style.era.develop(np.asarray(self._draw(frame)), 0.0)

    def _draw(self, frame: FrameSpec) -> Image.Image:
        canvas = self._set(frame).copy()
        for number, thing in enumerate(frame.things):
            x = (number - (len(frame.things) - 1) / 2) * 1.15 * THING
            self._paste(canvas, self._token(thing, THING), x, SHELF_Y)
        for x, actor in zip(STANDS[len(frame.actors)], frame.actors, strict=True):
            self._draw_actor(canvas, actor, x)
        return canvas

    def _draw_actor(self, canvas: Image.Image, actor: Actor, x: float) -> None:
        sits = actor.action == "sit"
        ground = GROUND_Y - (STOOL if sits else 0.0)
        height = HEIGHT * (0.78 if sits else 1.0)
        left = x > 0.0
        if sits:
            self._paste(canvas, self._stool(), x, GROUND_Y)
        self._paste(canvas, self._person(actor, height, mirrored=left), x, ground)
        side = -1 if left else 1
        if actor.holds is not None:
            self._paste(canvas, self._token(actor.holds, THING), x + 0.1 * side, ground - 0.1)
        if actor.speaks:
            tone = "sharp" if actor.expression == "angry" and not actor.asks_for else "calm"
            above = ground - height + 0.02
            self._paste(canvas, self._bubble(tone, actor.asks_for), x + 0.04 * side, above)

    def _paste(self, canvas: Image.Image, sprite: Image.Image, x: float, bottom_y: float) -> None:
        left = round((x + 0.5) * self.size - sprite.width / 2)
        canvas.paste(sprite, (left, round(bottom_y * self.size) - sprite.height), sprite)

    def _set(self, frame: FrameSpec) -> Image.Image:
        """The place without its people and with an empty shelf."""
        key = ("set", frame.location, frame.furnished, bool(frame.things), *frame.decor)
        if key not in self._sprites:
            room, (on_wall, on_floor) = PLACES[frame.location]

            def paint(pen: Pen) -> None:
                draw_room(pen, room)
                if frame.furnished:
                    PROPS[on_wall](pen, -0.3)
                    PROPS[on_floor](pen, 0.08)
                for name in frame.decor:
                    PROPS[name](pen, SLOTS[name])
                if frame.furnished or frame.things:
                    pen.box((-0.5, SHELF_Y, 0.5, SHELF_Y + 0.02), WOOD)

            wide = sketch(round(SET_WIDTH * self.size), self.size, paint).convert("RGB")
            left = (wide.width - self.size) // 2
            self._sprites[key] = wide.crop((left, 0, left + self.size, self.size))
        return self._sprites[key]

    def _person(self, actor: Actor, height: float, *, mirrored: bool) -> Image.Image:
        person = actor.person
        gesture = GESTURES.get(actor.action, "none")
        key = (person, gesture, actor.speaks, actor.expression, height, mirrored)
        if key not in self._sprites:
            character = Character(
                name=person.name,
                gender=person.gender,
                clothes=person.clothes,
                hat=person.hat,
                hair=person.hair,
                skin=len(person.name) % 3,
                height=height,
            )
            sprite = draw_character(
                character,
                round(height * self.size),
                stride=False,
                mouth_open=actor.speaks,
                gesture=gesture,
                expression=actor.expression,
            )
            flip = Image.Transpose.FLIP_LEFT_RIGHT
            self._sprites[key] = sprite.transpose(flip) if mirrored else sprite
        return self._sprites[key]

    def _token(self, thing: Thing, size: float) -> Image.Image:
        key = (thing, size)
        if key not in self._sprites:
            self._sprites[key] = draw_token(thing.name, thing.colour, round(size * self.size))
        return self._sprites[key]

    def _bubble(self, tone: str, thing: Thing | None) -> Image.Image:
        """A speech bubble; what somebody asks for is drawn into it."""
        key = ("bubble", tone, thing)
        if key not in self._sprites:
            side = round(BUBBLE * self.size)
            bubble = draw_bubble(tone, side)
            if thing is not None:
                token = self._token(thing, 0.6 * BUBBLE)
                bubble.paste(token, ((side - token.width) // 2, round(0.12 * side)), token)
            self._sprites[key] = bubble
        return self._sprites[key]

    def _stool(self) -> Image.Image:
        if ("stool",) not in self._sprites:
            side = round(2 * STOOL * self.size)
            self._sprites["stool",] = sketch(
                side, side, lambda pen: pen.box((-0.4, 0.35, 0.4, 1.0), WOOD, 0.05)
            )
        return self._sprites["stool",]
