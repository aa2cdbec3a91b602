"""Plot → scenes → shots, each level written from the one above and tried on the world."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmavlm.core.errors import ConfigError
from mmavlm.movies.generators.text import TextGenerator, TextRequest, ask
from mmavlm.movies.stories.plan import Plot, SceneOutline, Scenes, Shots, check_plot, check_scenes
from mmavlm.movies.stories.world import Moment, World, check_shots

FanOut = tuple[int, int, int]
Progress = Callable[[int, int], None]

PLOT = (
    "Write the plot of a film with the asked number of chapters: title, overview, one style for "
    "the whole film, at least twelve locations, two or three people who can be told apart by "
    "gender and clothes, up to six things and where they lie. Chapter by chapter, say what happens."
)
SCENES = (
    "Divide this chapter into the asked number of scenes. Each plays in one location, with two or "
    "three people by name. Tell nothing that belongs to other chapters."
)
SHOTS = (
    "Write the asked number of shots of this scene, one frame each. The first only shows it. "
    "stand, sit and point have neither thing nor to nor line; talk has a line; take and put have a "
    "thing, called by colour and name; give has a thing and to; ask has a thing, to, and a line. "
    "`world` says where things lie and who holds them: nobody takes what does not lie in the "
    "location, holds two things, or gives what is not held. No more than two shots in a row alike."
)


@dataclass(frozen=True)
class Told:
    """A scene of the film: its outline, its place in the story, and its moments."""

    chapter: int
    scene: int
    outline: SceneOutline
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class Story:
    """A whole film: the plot, its scenes in order, and all their moments."""

    plot: Plot
    scenes: tuple[Told, ...]

    @property
    def moments(self) -> list[Moment]:
        """Every frame in order."""
        return [moment for told in self.scenes for moment in told.moments]

    @property
    def log(self) -> list[dict[str, Any]]:
        """The world after every frame: who is where in which mood, where every thing is."""
        return [moment.row for moment in self.moments]


def check_fan_out(fan_out: FanOut) -> None:
    """Whether a film can be expanded so.

    Raises:
        ConfigError: if a level has no parts, or a scene fewer than two frames.
    """
    if len(fan_out) != 3 or min(fan_out) < 1 or fan_out[2] < 2:
        raise ConfigError(
            f"fan_out={','.join(map(str, fan_out))} cannot be told; give chapters, scenes a "
            "chapter (1 or more each) and frames a scene (2 or more: the first only shows it)"
        )


def expand(
    generator: TextGenerator,
    fan_out: FanOut = (11, 11, 11),
    *,
    seed: str = "0",
    decor: Mapping[str, tuple[str, ...]] | None = None,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> Story:
    """The story that a generator tells, a·b·c frames of `fan_out` (a, b, c).

    All chance follows from `seed`. Levels below see the world as the scenes before left it, and of
    the plot their own chapter alone. `decor` says what stands in a place through the film; answers
    are kept in the folder `keep`. `progress` is called with (scenes done, scenes in all).
    (MovieLLM, three-level expansion.)

    Raises:
        ConfigError: if the fan-out has an empty level.
        DataError: if the generator gives no answer that can be used.
    """
    check_fan_out(fan_out)
    chapters, scenes, shots = fan_out
    plot = ask(
        generator,
        _request("plot", PLOT, {"chapters": chapters}, Plot, seed),
        Plot,
        lambda answer: check_plot(answer, chapters),
        keep=keep,
    )
    teller = _Teller(generator, plot, seed, shots, decor or {}, keep)
    told: list[Told] = []
    for chapter in range(chapters):
        for number, outline in enumerate(teller.scenes(chapter, scenes)):
            told.append(Told(chapter, number, outline, teller.tell(chapter, number, outline)))
            if progress is not None:
                progress(len(told), chapters * scenes)
    return Story(plot, tuple(told))


class _Teller:
    """Tells scene after scene, and keeps the world on the way."""

    def __init__(
        self,
        generator: TextGenerator,
        plot: Plot,
        seed: str,
        shots: int,
        decor: Mapping[str, tuple[str, ...]],
        keep: Path | None,
    ) -> None:
        self.generator, self.plot, self.seed, self.shots = generator, plot, seed, shots
        self.decor, self.keep = decor, keep
        self.world = World.of(plot)
        self.frames = 0

    def _context(self, chapter: int) -> dict[str, Any]:
        plot = self.plot.model_dump(mode="json")
        plot["chapters"] = [plot["chapters"][chapter]]
        return {"plot": plot, "world": self.world.summary()}

    def scenes(self, chapter: int, count: int) -> tuple[SceneOutline, ...]:
        """Level 2 of a chapter."""
        context = {**self._context(chapter), "count": count}
        request = _request("scenes", SCENES, context, Scenes, f"{self.seed}/{chapter}")
        return ask(
            self.generator,
            request,
            Scenes,
            lambda answer: check_scenes(answer, self.plot, count),
            keep=self.keep,
        ).scenes

    def tell(self, chapter: int, number: int, scene: SceneOutline) -> tuple[Moment, ...]:
        """Level 3 of a scene: its moments, the world going on."""
        outline = scene.model_dump(mode="json")
        context = {**self._context(chapter), "scene": outline, "count": self.shots}
        request = _request("shots", SHOTS, context, Shots, f"{self.seed}/{chapter}/{number}")
        self.world.open(scene)
        shots = ask(
            self.generator,
            request,
            Shots,
            lambda answer: check_shots(answer, self.world, scene, self.shots),
            keep=self.keep,
        ).shots
        moments = []
        for index, shot in enumerate(shots):
            asker, because = self.world.act(shot, scene, self.frames) or (None, None)
            place = {"frame": self.frames, "chapter": chapter, "scene": number, "shot": index}
            decor = self.decor.get(scene.location, ())
            row = {
                **place,
                **self.world.row(shot, scene),
                "because": because,
                "asked_by": self.world.people[asker].phrase if asker else None,
                "decor": list(decor),
            }
            moments.append(Moment(self.world.frame(shot, scene, decor), row))
            self.frames += 1
        return tuple(moments)


def _request(
    task: str, instruction: str, context: Mapping[str, Any], form: Any, seed: str
) -> TextRequest:
    digest = hashlib.sha256(f"{seed} {task}".encode()).digest()
    number = int.from_bytes(digest[:4], "big") >> 1  # models take 31 bits
    return TextRequest(task, instruction, context, form.model_json_schema(), number)
