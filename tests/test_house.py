"""What docs/architecture.md and CONTRIBUTING.md promise of the whole house."""

import ast
import importlib
import pkgutil
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from hydra.utils import get_object

import mmavlm

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src/mmavlm").rglob("*.py"))
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))
MODULES = [m.name for m in pkgutil.walk_packages(mmavlm.__path__, "mmavlm.")]
LONGEST_FILE = 350
# What plugs into another program, which brings it along: no dependency of ours.
PLUGINS = {"mmavlm.loaded.harness": "lmms_eval"}
TARGET = re.compile(r"^\s*_target_: (\S+)", re.MULTILINE)


def relative(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    if name in PLUGINS:
        pytest.importorskip(PLUGINS[name], reason=f"{PLUGINS[name]} is not installed")
    importlib.import_module(name)


@pytest.mark.parametrize("path", CONFIGS, ids=relative)
def test_every_target_of_a_config_exists(path):
    for target in TARGET.findall(path.read_text()):
        assert callable(get_object(target))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_file_is_too_long_to_read(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


def test_the_picture_of_the_house_shows_every_room_and_every_file():
    picture = (ROOT / "docs/architecture.md").read_text()
    rooms = {m.name for m in pkgutil.iter_modules(mmavlm.__path__)}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", picture)} == set()
    tables = picture[picture.index("## The rooms") : picture.index("## Imports point down")]
    shown = set(re.findall(r"`(\w+\.py)`", tables))
    assert shown == {path.name for path in SOURCES} - {"__init__.py"}


def imported_packages(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def test_every_package_that_is_imported_is_declared():
    declared = {_plain(re.split(r"[ \[<>=;~!]", line)[0]) for line in requires("mmavlm")}
    providers = packages_distributions()
    imported = {package for path in SOURCES for package in imported_packages(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"mmavlm", *PLUGINS.values()}
    missing = {p for p in foreign if not {_plain(d) for d in providers.get(p, [p])} & declared}
    assert missing == set()


def _plain(distribution):
    return distribution.lower().replace("_", "-")
