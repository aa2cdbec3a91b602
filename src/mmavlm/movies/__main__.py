"""The command `python -m mmavlm.movies out=<folder> [kind=lvu|stories|bias|…] …`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mmavlm.commands.system_errors import (
    exit_interrupted,
    refused_by_system,
    require_place,
    require_writable,
)
from mmavlm.commands.verbs import COMMANDS, versions
from mmavlm.core.errors import ConfigError, MmavlmError
from mmavlm.core.nearest import nearest
from mmavlm.movies.bias import BiasSettings, make_bias_set
from mmavlm.movies.bias_order import OrderSettings, make_order_set
from mmavlm.movies.bias_sound import SoundSettings, make_sound_set
from mmavlm.movies.duet import KINDS, DuetSettings
from mmavlm.movies.duet_set import make_duet_set
from mmavlm.movies.frames import ImageGenerator
from mmavlm.movies.generators import Grammar, ProceduralImages, TextGenerator
from mmavlm.movies.stories.make import StorySettings, make_stories
from mmavlm.movies.write import ensure_movie_set

Report = Callable[[str, int, int], None]
Options = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make synthetic movies; settings are key=value, as with the other commands."""
    given = sys.argv[1:] if arguments is None else arguments
    given = [f"--{a}" if "=" in a and a[0] != "-" else a for a in given]
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    try:
        kind, rest = _kind_parser().parse_known_args(given)
        options = _options(kind.kind, rest)
        out = options.pop("out")
        require_place()
        require_writable(Path(out), "out")
        with Progress(*columns) as bar:
            table = _MAKERS[kind.kind](out, options, _reporting(bar))
    except KeyboardInterrupt:
        exit_interrupted()
    except (MmavlmError, OSError) as error:
        message = str(error) if isinstance(error, MmavlmError) else refused_by_system(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    if table is not None:
        Console().print(table)
    print(out)


def _options(kind: str, given: Sequence[str]) -> Options:
    """The settings of a kind, as given or by default.

    Raises:
        ConfigError: naming settings that there are none of, and those that are nearest.
    """
    parser = _parser(kind)
    options, unknown = parser.parse_known_args(given)
    known = [action.dest for action in parser._actions if action.dest not in ("help", "version")]
    told = []
    for argument in unknown:
        name = argument.lstrip("-").partition("=")[0]
        near = " or ".join(nearest(name, known)) or "one of " + ", ".join(known)
        told.append(f"there is no setting {name} of kind={kind}; did you mean {near}?")
    if told:
        raise ConfigError("\n  ".join(told))
    return vars(options)


def _reporting(bar: Progress) -> Report:
    tasks: dict[str, Any] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total)

    return report


def _make_lvu(out: str, options: Options, report: Report) -> None:
    ensure_movie_set(out, **options, progress=lambda done, total: report("films", done, total))


def _make_stories(out: str, options: Options, report: Report) -> None:
    text, images = _writer(options), _painter(options)
    workers = options.pop("workers")
    make_stories(out, StorySettings(**options), text, images, workers=workers, progress=report)


def _make_bias(out: str, options: Options, report: Report) -> Table:
    images = _painter(options)
    found = make_bias_set(out, BiasSettings(**options), images, progress=_films(report))
    table = _pairs(found["pairs"])
    probes = [f"{name}: {n['yes']} yes, {n['no']} no" for name, n in found["probes"].items()]
    table.caption = f"probes of the test films: {'; '.join(probes)}"
    return table


def _make_order(out: str, options: Options, report: Report) -> Table:
    images = _painter(options)
    found = make_order_set(out, OrderSettings(**options), images, progress=_films(report))
    return _pairs(found["pairs"])


def _make_sound(out: str, options: Options, report: Report) -> Table:
    images = _painter(options)
    found = make_sound_set(out, SoundSettings(**options), images, progress=_films(report))
    return _pairs(found["pairs"])


def _films(report: Report) -> Callable[[int, int], None]:
    return lambda done, total: report("films", done, total)


def _pairs(rows: list[Options]) -> Table:
    table = Table("split", "films", "pair", "companion with anchor", "without")
    for row in rows:
        shares = (f"{row[key]:.3f}" for key in ("companion_with_anchor", "companion_without"))
        pair = f"{row['anchor']} → {row['companion']}"
        table.add_row(row["split"], str(row["films"]), pair, *shares)
    return table


def _make_duet(out: str, options: Options, report: Report) -> None:
    settings = DuetSettings(**options)
    make_duet_set(out, settings, progress=lambda done, total: report("films", done, total))


_MAKERS: dict[str, Callable[[str, Options, Report], Table | None]] = {
    "lvu": _make_lvu,
    "stories": _make_stories,
    "bias": _make_bias,
    "bias_order": _make_order,
    "bias_sound": _make_sound,
    "duet": _make_duet,
}


def _writer(options: Options) -> TextGenerator:
    name, model, base_url = (options.pop(key) for key in ("text", "model", "base_url"))
    key_env = options.pop("key_env")
    if name == "offline":
        return Grammar()
    if model is None or (base_url is None and name == "endpoint"):
        needed = "model=" if model is None else "base_url="
        raise ConfigError(f"text={name} needs {needed}, see docs/movies.md")
    if name == "endpoint":
        from mmavlm.movies.generators.endpoint import Endpoint

        return Endpoint(base_url, model, key_env=key_env)
    from mmavlm.movies.generators.local import LocalModel

    return LocalModel(model)


def _painter(options: Options) -> ImageGenerator:
    name, folder, size = (options.pop(key) for key in ("image", "image_model", "size"))
    embedding = options.pop("embedding")
    if name == "procedural":
        return ProceduralImages(size)
    if folder is None:
        raise ConfigError("image=diffusers needs image_model=, the folder of a pipeline")
    # Imported here: torch and a pipeline take seconds that drawings do not need.
    from mmavlm.movies.generators.diffusion import DiffusionImages

    return DiffusionImages(folder, size=size, embedding=embedding)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints speak of settings as typed, and end like other mistakes."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.replace('--', '')}; see python -m mmavlm.movies --help")


def _kind_parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--kind", choices=tuple(_MAKERS), default="lvu")
    return parser


def _parser(kind: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mmavlm-movies",
        usage=f"mmavlm-movies out=FOLDER [kind={'|'.join(_MAKERS)}] [key=value ...]",
        description=f"{COMMANDS['movies'].does} Settings of kind={kind}:",
        epilog="\n".join(
            ["examples:", *(f"  mmavlm movies {e}" for e in COMMANDS["movies"].lines)]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=versions())
    add("--out", required=True, help="the folder to make the set in")
    add("--seed", type=int, default=0, help="what all chance follows from (0)")
    add("--size", type=int, default=96, help="side of the picture in pixels (96)")
    _SETTINGS[kind](add)
    return parser


def _lvu_settings(add: Callable[..., Any]) -> None:
    add("--clips", type=int, default=400, help="how many films (400)")
    add("--duration_s", type=float, default=12.0, help="length in seconds (12)")
    add("--fps", type=int, default=10, help="frames per second (10)")
    sound = "true: films have a sound track, and questions about it (false)"
    add("--sound", type=_truth, default=False, help=sound)
    workers = "processes to draw in; 0 draws in this one (all cores)"
    add("--workers", type=int, default=os.cpu_count() or 1, help=workers)


def _story_settings(add: Callable[..., Any]) -> None:
    add("--films", type=int, default=10, help="how many films (10)")
    parts = "chapters, scenes a chapter, frames a scene (11,11,11)"
    add("--fan_out", type=_numbers, default=(11, 11, 11), help=parts)
    asked = "of each category, about a scene; twice as many a chapter, four times a film (1)"
    add("--questions", type=int, default=1, help=asked)
    add("--fps", type=int, default=2, help="frames per second (2)")
    add("--workers", type=int, default=1, help="stories told at once; for an endpoint (1)")
    writers = ("offline", "transformers", "endpoint")
    add("--text", choices=writers, default="offline", help="who tells (offline)")
    add("--model", help="a folder (transformers) or the server's name of a model (endpoint)")
    add("--base_url", help="of an OpenAI-compatible endpoint, such as https://host/v1")
    key = "the environment variable that holds its key (OPENAI_API_KEY)"
    add("--key_env", default="OPENAI_API_KEY", help=key)
    _image_settings(add)


def _bias_settings(add: Callable[..., Any]) -> None:
    add("--films", type=int, default=400, help="how many films (400)")
    together = "how often paired objects come together in training (0.9); in the test it is 0.5"
    add("--bias", type=float, default=0.9, help=together)
    add("--scenes", type=int, default=1, help="places a film goes through (1)")
    add("--frames", type=int, default=8, help="frames of each (8)")
    add("--fps", type=int, default=2, help="frames per second (2)")
    twins = "true: training films also have twins that lack one object (false)"
    add("--counterfactual", type=_truth, default=False, help=twins)
    _image_settings(add)


def _order_settings(add: Callable[..., Any]) -> None:
    add("--films", type=int, default=400, help="how many films (400)")
    follows = "how often one object follows the other in training (0.9); in the test it is 0.5"
    add("--bias", type=float, default=0.9, help=follows)
    add("--frames", type=int, default=1, help="frames of each of a film's two parts (1)")
    absent = "share of unusual objects that are left out, not shown in the other part (0)"
    add("--absent", type=float, default=0.0, help=absent)
    add("--fps", type=int, default=2, help="frames per second (2)")
    _image_settings(add)


def _sound_settings(add: Callable[..., Any]) -> None:
    add("--films", type=int, default=400, help="how many films (400)")
    heard = "how often what is seen is heard in training (0.9); in the test it is 0.5"
    add("--bias", type=float, default=0.9, help=heard)
    add("--frames", type=int, default=2, help="frames of a film (2)")
    add("--fps", type=int, default=1, help="frames per second (1)")
    _image_settings(add)


def _duet_settings(add: Callable[..., Any]) -> None:
    add("--films", type=int, default=400, help="how many films (400)")
    add("--duration_s", type=float, default=12.0, help="length in seconds (12)")
    add("--fps", type=int, default=4, help="frames per second (4)")
    what = f"what happens: one or more of {', '.join(KINDS)} (all)"
    add("--events", type=_words, default=KINDS, help=what)


_SETTINGS: dict[str, Callable[[Callable[..., Any]], None]] = {
    "lvu": _lvu_settings,
    "stories": _story_settings,
    "bias": _bias_settings,
    "bias_order": _order_settings,
    "bias_sound": _sound_settings,
    "duet": _duet_settings,
}


def _image_settings(add: Callable[..., Any]) -> None:
    add("--image", choices=("procedural", "diffusers"), default="procedural", help="who draws")
    add("--image_model", help="the folder of a text-to-image pipeline (diffusers)")
    add("--embedding", help="a textual inversion that holds the style (diffusers)")


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
