"""Script + time → RGB frames: set, token and characters, then camera, particles, light, era."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mmavlm.movies.film import Era, Frame, Light, Particles
from mmavlm.movies.labels import Camera, Mood
from mmavlm.movies.places import SET_WIDTH, SHELF_Y, draw_background
from mmavlm.movies.script import TOGETHER_BELOW, Character, CharacterState, Movie, WorldState
from mmavlm.movies.sprites import draw_bubble, draw_character, draw_spotlight, draw_token

GROUND_Y = 0.9
TOKEN_SIZE = 0.15
BUBBLE_SIZE = 0.17
SPOTLIGHT_WIDTH = 0.5
DARKENED = 0.65  # the set around a spotlight
PAN = 0.09  # view widths to either side
ZOOM = 1.25
STRIDES_PER_S = 5.0
SHAKES_PER_S = 10


@dataclass(frozen=True)
class Pose:
    """A character's looks at one moment: the key of a drawn sprite."""

    stride: bool = False
    mouth_open: bool = False
    gesture: str = "none"


@dataclass
class Renderer:
    """Draws one film at `size`×`size` pixels; sprites and set are drawn once and composited."""

    movie: Movie
    size: int
    _poses: dict[tuple[str, Pose], Image.Image] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        movie, size = self.movie, self.size
        rng = np.random.default_rng(movie.seed)
        self._set = draw_background(movie.scene, size)
        self._dark_set = self._set.point(lambda value: round(DARKENED * value))
        token = movie.token
        self._token = draw_token(token.name, token.colour, round(TOKEN_SIZE * self.size))
        self._bubbles = {
            tone: draw_bubble(tone, round(BUBBLE_SIZE * self.size)) for tone in ("calm", "sharp")
        }
        self._spotlight = draw_spotlight(round(SPOTLIGHT_WIDTH * size), round(0.96 * size))
        self._particles = Particles(movie.mood, size, rng)
        self._era = Era(movie.look, Light(movie.mood, size), size, rng)
        amplitude = 0.02 if movie.mood == "fierce" else 0.0
        self._shake = (amplitude * rng.uniform(-1.0, 1.0, (256, 2))).tolist()

    def frame(self, t_s: float) -> Frame:
        """The picture at `t_s` seconds, uint8 (size, size, 3)."""
        world = self.movie.at(t_s)
        canvas = self._lit_set(world)
        self._draw_token(canvas, world)
        for index, character in enumerate(self.movie.characters):
            self._draw_character(canvas, index, character, world)
        picture = self._through_camera(canvas, t_s)
        self._particles.draw(picture, t_s)
        return self._era.develop(np.asarray(picture), t_s)

    def _px(self, x: float) -> float:
        return (x - 0.5 + SET_WIDTH / 2) * self.size

    def _paste(self, canvas: Image.Image, sprite: Image.Image, x: float, bottom_y: float) -> None:
        left = round(self._px(x) - sprite.width / 2)
        canvas.paste(sprite, (left, round(bottom_y * self.size) - sprite.height), sprite)

    def _lit_set(self, world: WorldState) -> Image.Image:
        """The set, or a dark one and a light on the two while they stand together."""
        left, right = (world.characters[c.name].x for c in self.movie.characters)
        if right - left >= TOGETHER_BELOW:
            return self._set.copy()
        canvas = self._dark_set.copy()
        self._paste(canvas, self._spotlight, (left + right) / 2, 0.96)
        return canvas

    def _draw_token(self, canvas: Image.Image, world: WorldState) -> None:
        share = world.token_on_shelf
        if share == 0.0:
            return
        token, sprite = self.movie.token, self._token
        holder = next(iter(self.movie.token_events)).subject
        x = token.x + (1.0 - share) * (world.characters[holder].x - token.x)
        y = SHELF_Y + (1.0 - share) * (GROUND_Y - 0.15 - SHELF_Y)
        self._paste(canvas, sprite, x, y)

    def _draw_character(
        self, canvas: Image.Image, index: int, character: Character, world: WorldState
    ) -> None:
        state = world.characters[character.name]
        x_shift, lift = sway(self.movie.mood, world.t_s, index)
        x, ground = state.x + x_shift, GROUND_Y - lift
        sprite = self._sprite(character, _pose(state, world.t_s), mirrored=index == 1)
        self._paste(canvas, sprite, x, ground)
        if state.speaking is not None:
            outward = -0.05 if index == 0 else 0.05
            bubble = self._bubbles[state.speaking.tone]
            self._paste(canvas, bubble, x + outward, ground - character.height + 0.01)

    def _sprite(self, character: Character, pose: Pose, *, mirrored: bool) -> Image.Image:
        key = (character.name, pose)
        if key not in self._poses:
            sprite = draw_character(
                character,
                round(character.height * self.size),
                stride=pose.stride,
                mouth_open=pose.mouth_open,
                gesture=pose.gesture,
            )
            flip = Image.Transpose.FLIP_LEFT_RIGHT
            self._poses[key] = sprite.transpose(flip) if mirrored else sprite
        return self._poses[key]

    def _through_camera(self, canvas: Image.Image, t_s: float) -> Image.Image:
        middle, zoom = camera_at(self.movie.camera, t_s / self.movie.duration_s)
        dx, dy = self._shake[int(t_s * SHAKES_PER_S) % len(self._shake)]
        half = 0.5 / zoom
        # Low enough to keep feet in the picture, high enough to keep what stands on the shelf.
        middle_y = min(max(0.53 + dy, half), 1.0 - half)
        left, top = self._px(middle + dx - half), (middle_y - half) * self.size
        if zoom == 1.0:
            left, top = round(left), round(top)
            return canvas.crop((left, top, left + self.size, top + self.size))
        side = 2 * half * self.size
        box = (left, top, left + side, top + side)
        return canvas.resize((self.size, self.size), Image.Resampling.BILINEAR, box)


def render(movie: Movie, *, fps: int, size: int) -> Iterator[Frame]:
    """Every frame of the film in order, uint8 (size, size, 3); round(duration_s·fps) of them."""
    renderer = Renderer(movie, size)
    for index in range(round(movie.duration_s * fps)):
        yield renderer.frame(index / fps)


def camera_at(camera: Camera, share: float) -> tuple[float, float]:
    """Where the view's middle is (view widths) and its zoom, `share` of the film having passed."""
    moves: dict[Camera, tuple[float, float]] = {
        "pan left": (0.5 + PAN * (1 - 2 * share), 1.0),
        "pan right": (0.5 - PAN * (1 - 2 * share), 1.0),
        "zoom in": (0.5, 1.0 + (ZOOM - 1.0) * share),
        "zoom out": (0.5, ZOOM - (ZOOM - 1.0) * share),
        "static": (0.5, 1.0),
    }
    return moves[camera]


def sway(mood: Mood, t_s: float, index: int) -> tuple[float, float]:
    """How a mood moves a character: sideways and upwards, in view widths."""
    phase = 2 * math.pi * t_s + index
    if mood == "merry":
        return 0.0, 0.045 * abs(math.sin(0.9 * phase))
    if mood == "tender":
        return 0.012 * math.sin(0.3 * phase), 0.0
    if mood == "eerie":
        return 0.005 * math.sin(3.3 * phase), 0.0
    return 0.0, 0.0


def _pose(state: CharacterState, t_s: float) -> Pose:
    speaking = state.speaking
    return Pose(
        stride=state.walking and int(t_s * STRIDES_PER_S) % 2 == 0,
        mouth_open=speaking is not None and int(t_s * STRIDES_PER_S) % 2 == 0,
        gesture=speaking.gesture if speaking is not None else "none",
    )
