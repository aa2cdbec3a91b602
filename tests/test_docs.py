"""What README and docs print can be typed as it stands, and what they name is there."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from mmavlm.commands.plain import read_plain
from mmavlm.commands.plain_verbs import PLAIN
from mmavlm.core.config_files import config_dir
from mmavlm.movies import __main__ as movies

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
IMPORT = re.compile(r"^from (mmavlm[\w.]*) import (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
PATH = re.compile(r"`((?:src|conf|scripts|tests|docs|notebooks)/[\w./-]+)`")
MADE_UP = {"conf/fusion/mine.yaml"}  # examples of what a user would write
COMMAND = re.compile(r"(?:-m mmavlm\.|^mmavlm )([\w-]+) +(.*)", re.MULTILINE)
# The config a command composes, by its name and, of `evaluate`, by what it is given.
CONFIGS = {"evaluate": "train"}
WITHOUT_MODEL = ("predictions=", "compare=")


def kind_of(name):
    """What reads the line of a command: a config, a table of its own, or the parser of films."""
    return "films" if name == "movies" else "plain" if name.replace("_", "-") in PLAIN else "config"


def commands(kind):
    """Name and arguments of every command of a kind in a page's bash blocks."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for name, rest in COMMAND.findall(block.replace("\\\n", " ").replace("…", "x")):
                words = shlex.split(rest, comments=True)
                given = words if kind == "plain" else [word for word in words if "=" in word]
                # parts of one's own are tested where they are
                if kind == kind_of(name) and "--config-dir" not in rest:
                    yield pytest.param(name, given, id=f"{page.name}: {name} {' '.join(given)}")


def composed_by(name, given):
    if any(word.startswith(WITHOUT_MODEL) for word in given):
        return "score"
    return CONFIGS.get(name, name)


def first_of_sweeps(given):
    """The overrides of the first job, without those of Hydra itself."""
    for override in OverridesParser.create().parse_overrides(given):
        if override.key_or_group.startswith("hydra."):
            continue
        if override.is_sweep_override():
            value = next(override.sweep_string_iterator())
            yield f"{override.get_key_element()}={value}"
        else:
            yield override.input_line


@pytest.mark.parametrize(("name", "given"), list(commands("config")))
def test_settings_of_a_command_in_the_docs_exist(name, given):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        compose(composed_by(name, given), list(first_of_sweeps(given)))


@pytest.mark.parametrize(("name", "given"), list(commands("plain")))
def test_a_command_without_a_config_takes_what_the_docs_give_it(name, given):
    assert read_plain(name.replace("_", "-"), given)


@pytest.mark.parametrize(("name", "given"), list(commands("films")))
def test_films_are_made_by_settings_that_exist(name, given):
    kind = next((word[5:] for word in given if word.startswith("kind=")), "lvu")
    rest = [f"--{word}" for word in given if not word.startswith("kind=")]
    assert movies._options(kind, rest)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_what_a_page_links_to_names_and_imports_is_there(page):
    text = page.read_text()
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []
    assert [p for p in {*PATH.findall(text)} - MADE_UP if not (ROOT / p).exists()] == []
    for module, names in IMPORT.findall(text):
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name)
