"""What lies over the drawn set: the light and particles of a mood, the look of an era.

All of it works on one (size, size, 3) frame after the camera; a mood shows in shape as well as in
colour, so that it stays readable in black and white.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmavlm.movies.labels import Look, Mood
from mmavlm.movies.sprites import COLOURS, Pen, sketch

Frame = NDArray[np.uint8]
Floats = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
GRAIN_TILES = 6
NEW_GRAIN_PER_S = 10
LETTERBOX = 0.09  # of the height, above and below


class Light:
    """The light of a mood: an even, a soft central, a striped, or a spotlit one, and its tint."""

    def __init__(self, mood: Mood, size: int) -> None:
        y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size
        radius = np.hypot(x - 0.5, y - 0.55)
        tint, level = {
            "merry": ((1.08, 1.05, 0.92), np.ones_like(x)),
            "tender": ((1.08, 0.93, 0.99), 1.12 - 0.75 * radius**2),
            "fierce": ((1.10, 0.95, 0.80), np.where((x + y) % 0.36 < 0.18, 1.08, 0.82)),
            "eerie": ((0.74, 0.84, 1.04), np.clip(1.16 - 1.7 * radius**1.3, 0.22, None)),
        }[mood]
        self.gain = level[..., None].astype(np.float32) * np.asarray(tint, dtype=np.float32)


class Particles:
    """What drifts through the picture: confetti falls, hearts rise, sparks fly, fog creeps."""

    def __init__(self, mood: Mood, size: int, rng: np.random.Generator) -> None:
        self.size = size
        speeds = {"merry": (0.04, 0.22), "tender": (0.03, -0.12), "fierce": (0.9, 0.5)}
        count = {"merry": 14, "tender": 8, "fierce": 10, "eerie": 3}[mood]
        self._start = rng.random((count, 2))
        velocity = np.array(speeds.get(mood, (0.06, 0.0)))
        self._velocity = velocity * rng.uniform(0.7, 1.3, (count, 1))
        if mood == "eerie":
            self._start[:, 1] = [0.42, 0.66, 0.86]
            self._velocity[1] *= -1
        self._sprites = [_particle(mood, i, size) for i in range(count)]

    def draw(self, frame: Image.Image, t_s: float) -> None:
        """Paste every particle where it is at `t_s`; those that leave come in on the other side."""
        places = (self._start + self._velocity * t_s) % 1.0
        for sprite, (x, y) in zip(self._sprites, places.tolist(), strict=True):
            left = round(x * (self.size + sprite.width)) - sprite.width
            top = round(y * self.size) - sprite.height // 2
            frame.paste(sprite, (left, top), sprite)


def _particle(mood: Mood, index: int, size: int) -> Image.Image:
    def heart(pen: Pen) -> None:
        pink = (255, 86, 140)
        pen.oval((-0.48, 0.05, 0.04, 0.57), pink)
        pen.oval((-0.04, 0.05, 0.48, 0.57), pink)
        pen.shape((-0.46, 0.4, 0.46, 0.4, 0.0, 1.0), pink)

    def spark(pen: Pen) -> None:
        pen.line((-0.9, 0.1, 0.9, 0.9), (255, 214, 60), 0.22)
        pen.line((-0.2, 0.4, 0.9, 0.9), (255, 250, 210), 0.22)

    if mood == "merry":
        colour = COLOURS[("red", "yellow", "green", "blue", "purple", "white")[index % 6]]
        side = max(2, round(size * (0.034 + 0.01 * (index % 2))))
        return sketch(side, side, lambda pen: pen.box((-0.5, 0.0, 0.5, 1.0), colour))
    if mood == "tender":
        side = max(4, round(size * (0.07 + 0.015 * (index % 3))))
        return sketch(side, side, heart)
    if mood == "fierce":
        return sketch(max(6, round(size * 0.1)), max(3, round(size * 0.05)), spark)
    width, height = round(size * 1.2), round(size * 0.16)
    y, x = np.mgrid[:height, :width]
    band = np.sin(np.pi * (y + 0.5) / height) * np.sin(np.pi * (x + 0.5) / width)
    ripple = 0.8 + 0.2 * np.sin(x * 9.0 / size + index)
    fog = np.full((height, width, 4), (214, 226, 232, 0), dtype=np.uint8)
    fog[..., 3] = np.round(165 * band * ripple)
    return Image.fromarray(fog)


class Era:
    """The look of an era's film stock, and the light of the mood on the way.

    `develop` maps a drawn frame to the film's: light, colour, grain, then what masks the picture.
    """

    def __init__(self, look: Look, light: Light, size: int, rng: np.random.Generator) -> None:
        self._gain, self._look, self._size = light.gain, look, size
        self._colour = _colour_matrix(look)
        strength = {"silent": 8.0, "sepia": 4.0}.get(look, 0.0)
        grain = strength * rng.standard_normal((GRAIN_TILES, size, size, 1), np.float32)
        self._grain = grain.repeat(3, axis=-1)  # broadcasting over a last axis of 1 is slow
        self._scratches = rng.integers(size, size=64).tolist()
        self._flicker = rng.uniform(0.93, 1.07, 64).astype(np.float32).tolist()
        self._mask = _mask(look, size)

    def develop(self, frame: Frame, t_s: float) -> Frame:
        """uint8 (size, size, 3) as drawn → uint8 (size, size, 3) as seen at `t_s`."""
        tick = int(t_s * NEW_GRAIN_PER_S)
        lit = (frame * self._gain).reshape(-1, 3)  # flat: one product instead of one a row
        film = (lit @ self._colour).reshape(frame.shape)
        if self._look in ("silent", "sepia"):
            film += self._grain[tick % GRAIN_TILES]
        if self._look == "silent":
            film *= self._flicker[tick % 64]
            film[:, self._scratches[tick % 64]] += 70.0
        if self._mask is not None:
            film *= self._mask
        return np.clip(film, 0.0, 255.0, out=film).astype(np.uint8)


def _colour_matrix(look: Look) -> Floats:
    """Row-vector colour transform: saturation around luma, then the tone of the stock."""
    saturation, tone = {
        "silent": (0.0, (1.05, 1.05, 1.05)),
        "sepia": (0.5, (1.12, 0.98, 0.72)),
        "vivid": (1.3, (1.0, 1.0, 1.0)),
        "wide": (0.95, (0.98, 1.0, 1.03)),
    }[look]
    grey = np.repeat(LUMA[:, None], 3, axis=1)
    mixed = saturation * np.eye(3, dtype=np.float32) + (1.0 - saturation) * grey
    return np.asarray(mixed * np.asarray(tone), dtype=np.float32)


def _mask(look: Look, size: int) -> Floats | None:
    if look == "silent":
        return None
    mask = np.ones((size, size, 1), dtype=np.float32)
    if look == "sepia":
        y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size - 0.5
        corner = (np.abs(x) ** 6 + np.abs(y) ** 6) ** (1 / 6)
        mask[..., 0] = np.clip((0.56 - corner) / 0.05, 0.15, 1.0)
        mask[..., 0] *= np.where(np.hypot(x, y) > 0.64, 0.2, 1.0)
    elif look == "vivid":
        mask[::4] = 0.78
    elif look == "wide":
        bar = round(LETTERBOX * size)
        mask[:bar] = mask[-bar:] = 0.0
    return mask.repeat(3, axis=-1)
