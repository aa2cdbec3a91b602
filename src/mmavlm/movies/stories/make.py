"""A set of story films on disk: told, asked about, drawn and exported, stage by stage.

Stages are named by a hash of all they depend on. What is there under its name is taken as it is, so
a set that was broken off goes on, and changed settings make other names beside the old ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmavlm.core.errors import ConfigError
from mmavlm.core.files import write_whole
from mmavlm.movies.claim import SET, claim, made
from mmavlm.movies.frames import FrameSpec, ImageGenerator
from mmavlm.movies.generators.grammar import Grammar
from mmavlm.movies.generators.text import TextGenerator
from mmavlm.movies.stories.expand import FanOut, Story, check_fan_out, expand
from mmavlm.movies.stories.questions import Question, choose, questions
from mmavlm.movies.stories.reel import digest, draw_film, write_rows
from mmavlm.movies.stories.verify import verify
from mmavlm.movies.vocabulary import Style
from mmavlm.movies.write import split_sizes

STORY_VERSION = 1
# Longer stretches have more to be asked about.
FILM, CHAPTER, SCENE = 4, 2, 1

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StorySettings:
    """What a set depends on besides its generators.

    `fan_out` is chapters, scenes a chapter, frames a scene; `questions` how many of each category a
    scene has (twice as many a chapter, four times a film); each frame lasts 1/`fps` seconds.

    Raises:
        ConfigError: if a value is outside what can be made.
    """

    films: int = 10
    seed: int = 0
    fan_out: FanOut = (11, 11, 11)
    questions: int = 1
    fps: int = 2

    def __post_init__(self) -> None:
        check_fan_out(self.fan_out)
        for key, least in {"films": 3, "seed": 0, "questions": 1, "fps": 1}.items():
            if getattr(self, key) < least:
                raise ConfigError(f"stories: {key}={getattr(self, key)} is below {least}")


class Film(NamedTuple):
    """A film of the set: its split, its folder of the story, and its video below the root."""

    split: str
    story: Path
    video: str


def make_stories(
    root: str | Path,
    settings: StorySettings,
    text: TextGenerator,
    images: ImageGenerator,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Make a set of story films below `root`, or what is missing of it, and return `root`.

    `workers` stories are told at once (an endpoint answers several); `progress` is called with
    (stage, done, in all). At last `{train,val,test}.jsonl` (`data=own_videos`), `llamavid/` and
    `set.json` are written for these settings; films of other settings stay.

    Raises:
        ConfigError: if settings cannot be made, or `root` holds tables of no made set.
        DataError: if a generator gives nothing that can be used.
    """
    root = Path(root)
    claim(root)
    report = progress or (lambda stage, done, total: None)

    def tell(index: int) -> Path:
        return tell_story(root, settings, text, index)

    stories: list[Path] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for story in pool.map(tell, range(settings.films)):
            stories.append(story)
            report("stories", len(stories), settings.films)
    splits = [split for split, count in split_sizes(settings.films).items() for _ in range(count)]
    films: list[Film] = []
    for split, story in zip(splits, stories, strict=True):
        films.append(Film(split, story, draw_story(root, story, images, settings.fps)))
        report("films", len(films), settings.films)
    _export(root, settings, films, {"text": text.fingerprint, "image": images.fingerprint})
    return root


def tell_story(root: Path, settings: StorySettings, text: TextGenerator, index: int) -> Path:
    """The folder of a story: `frames.jsonl`, `log.jsonl`, `questions.jsonl`, and `story.json`.

    `story.json` has MovieLLM's keys (character, img_diag, QA, overview) and the plot beside them.
    It is written last.

    Raises:
        DataError: if the generator's answers cannot be used, or a question is not borne out.
    """
    seed = f"{settings.seed}/{index}"
    # films and fps are no part of a story: more films keep those there are
    told = [STORY_VERSION, text.fingerprint, seed, settings.fan_out, settings.questions]
    folder = root / "stories" / digest("story", *told)
    if (folder / "story.json").is_file():
        return folder
    keep = None if isinstance(text, Grammar) else root / "texts"  # what is costly to ask again
    story = expand(text, settings.fan_out, seed=seed, keep=keep)
    asked = ask_about(story, settings.questions, int(digest(seed)[:8], 16))
    verify(asked, story.log)
    frames = [moment.frame for moment in story.moments]
    write_rows(folder / "frames.jsonl", [frame.model_dump(mode="json") for frame in frames])
    write_rows(folder / "log.jsonl", story.log)
    write_rows(folder / "questions.jsonl", [asdict(question) for question in asked])
    write_whole(folder / "story.json", _json(_movie_llm(story, asked)))
    return folder


def draw_story(root: Path, story: Path, images: ImageGenerator, fps: int) -> str:
    """The video of a told story, as a path below the root."""
    frames = [FrameSpec.model_validate(row) for row in _rows(story / "frames.jsonl")]
    plot = json.loads((story / "story.json").read_text(encoding="utf-8"))["plot"]
    style = Style.model_validate(plot["style"])
    film = draw_film(root / "films", frames, style, images, fps)
    return film.relative_to(root).as_posix()


def ask_about(story: Story, count: int, seed: int) -> list[Question]:
    """Questions about the whole film, each chapter, each scene; no stretch is taken twice."""
    log = story.log
    spans: dict[tuple[int, int], int] = {(0, len(log)): FILM}
    for keys, share in ((("chapter",), CHAPTER), (("chapter", "scene"), SCENE)):
        for start, end in _stretches(log, keys):
            spans.setdefault((start, end), share)
    asked: list[Question] = []
    for number, ((start, end), share) in enumerate(spans.items()):
        asked += choose(questions(log, start, end), share * count, seed + number)
    return asked


def _stretches(log: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = 0
    for index in range(1, len(log) + 1):
        if index == len(log) or any(log[index][key] != log[start][key] for key in keys):
            yield start, index
            start = index


def _movie_llm(story: Story, asked: Sequence[Question]) -> dict[str, Any]:
    steps: list[list[str]] = []
    for moment in story.moments:
        steps.append(["frame", moment.frame.text])
        if moment.frame.line:
            steps.append(["dialogue", moment.frame.line])
    return {
        "overview": story.plot.overview,
        "character": {person.name: person.appearance for person in story.plot.people},
        "img_diag": steps,
        "QA": [{"Question": q.question, "Answer": q.answer} for q in asked],
        "plot": story.plot.model_dump(mode="json"),
        "scenes": [
            {"chapter": told.chapter, "scene": told.scene, **told.outline.model_dump(mode="json")}
            for told in story.scenes
        ],
    }


def _export(
    root: Path, settings: StorySettings, films: Sequence[Film], generators: Mapping[str, str]
) -> None:
    counts = {}
    for split in split_sizes(settings.films):
        rows = [
            row
            for number, film in enumerate(films)
            if film.split == split
            for row in own_rows(film, number, settings.fps)
        ]
        write_rows(root / f"{split}.jsonl", rows)
        whole = [llamavid_row(row) for row in rows if "end_s" not in row]
        write_whole(root / "llamavid" / f"{split}.json", _json(whole))
        counts[split] = len(rows)
    videos = [{"split": f.split, "story": f.story.name, "video": f.video} for f in films]
    told = {"settings": asdict(settings), **generators, "questions": counts, "films": videos}
    write_whole(root / SET, _json(told))
    made(root)


def own_rows(film: Film, number: int, fps: int) -> Iterator[dict[str, Any]]:
    """The questions of a film as rows of `data=own_videos`; categories are the tasks.

    A question about a part of the film bounds it by `start_s` and `end_s`; `evidence_s` are moments
    that show the answer.
    """
    total = len(_rows(film.story / "frames.jsonl"))
    for index, asked in enumerate(_rows(film.story / "questions.jsonl")):
        part = (asked["start"], asked["end"]) != (0, total)
        yield {
            "id": f"film{number:04d}_q{index:04d}",
            "video": film.video,
            "prompt": asked["question"],
            "answer": asked["answer"],
            "task": asked["category"],
            **({"start_s": asked["start"] / fps, "end_s": asked["end"] / fps} if part else {}),
            "evidence_s": [(frame + 0.5) / fps for frame in asked["evidence"]],
        }


def llamavid_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A question about a whole film as LLaMA-VID's training data has it, one turn a row."""
    return {
        "id": row["id"],
        "video": row["video"],
        "conversations": [
            {"from": "human", "value": f"<image>\n{row['prompt']}"},
            {"from": "gpt", "value": row["answer"]},
        ],
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    # not splitlines: a text may hold other ends of a line, such as U+2028
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
