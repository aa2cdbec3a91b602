"""The yaml files of the Hydra groups: what is set there, and what their comments say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

OF_HYDRA = "hydra"  # settings and groups that are Hydra's own
CONTINUES = 10  # a comment line so much further in than its key goes on with the line above


@dataclass(frozen=True)
class Setting:
    """A key with its value as written ("" for one that holds others), and its comment."""

    key: str
    value: str
    says: str


def config_dir() -> Path:
    """The folder of the Hydra groups: inside the installed package, or beside its sources."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def choices(group: str) -> list[str]:
    """The choices of a group, sorted; [] if there is no such group."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def headline(path: Path) -> str:
    """What the comments at the head of a file say, as one line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.lstrip("# "))
    return " ".join(lines)


def is_global(path: Path) -> bool:
    """Whether a choice sets settings anywhere, and not those of its group alone."""
    return path.read_text(encoding="utf-8").startswith("# @package _global_")


def groups(path: Path) -> list[Setting]:
    """The groups in a file's defaults list, with the choice of each and its comment."""
    lines, root = _read(path)
    found = []
    for entry in _value(root, "defaults"):
        if isinstance(entry, yaml.MappingNode):
            ((key, value),) = entry.value
            name = key.value.removeprefix("override ").lstrip("/")
            if not name.startswith(OF_HYDRA):
                found.append(Setting(name, value.value, _comment(lines, key, value)))
    return found


def settings(path: Path) -> list[Setting]:
    """The settings of a file, those of mappings with dots in their keys, Hydra's own left out."""
    lines, root = _read(path)
    left_out = {"defaults", OF_HYDRA}
    pairs = [] if root is None else [p for p in root.value if p[0].value not in left_out]
    return [setting for pair in pairs for setting in _flat(lines, pair, "")]


def settings_of_choice(group: str, choice: str) -> list[Setting]:
    """The settings of a group's choice, those of the choices it is laid over included."""
    path = config_dir() / group / f"{choice}.yaml"
    found: dict[str, Setting] = {}
    for base in _bases(path):
        if base != "_self_":
            found |= {setting.key: setting for setting in settings_of_choice(group, base)}
    for setting in settings(path):
        before = found.get(setting.key)
        says = setting.says or (before.says if before else "")
        found[setting.key] = Setting(setting.key, setting.value, says)
    return list(found.values())


def _bases(path: Path) -> Iterator[str]:
    """The choices of the same group that a file names in its defaults."""
    _, root = _read(path)
    for entry in _value(root, "defaults"):
        if isinstance(entry, yaml.ScalarNode):
            yield entry.value


def _read(path: Path) -> tuple[list[str], yaml.Node | None]:
    text = path.read_text(encoding="utf-8")
    return text.splitlines(), yaml.compose(text, Loader=yaml.SafeLoader)


def _value(root: yaml.Node | None, key: str) -> list[yaml.Node]:
    pairs = [] if root is None else root.value
    return next((value.value for name, value in pairs if name.value == key), [])


def _flat(lines: list[str], pair: tuple[yaml.Node, yaml.Node], above: str) -> Iterator[Setting]:
    key, value = pair
    name = f"{above}{key.value}"
    says = _comment(lines, key, value)
    block = isinstance(value, yaml.MappingNode) and not value.flow_style
    if not block or says:
        written = "" if block else lines[value.start_mark.line][value.start_mark.column :]
        yield Setting(name, "" if block else _written(written, value), says)
    if block:
        for inner in value.value:
            yield from _flat(lines, inner, f"{name}.")


def _written(rest: str, value: yaml.Node) -> str:
    one_line = value.start_mark.line == value.end_mark.line
    return rest[: value.end_mark.column - value.start_mark.column] if one_line else rest


def _comment(lines: list[str], key: yaml.Node, value: yaml.Node) -> str:
    """The comment behind a setting and its continuation, or else the lines above it."""
    at = key.start_mark.line
    block = value.start_mark.line > at
    end = key.end_mark.column if block else value.end_mark.column
    _, mark, says = lines[at][end:].partition("#")
    if not mark:
        return _above(lines, key)
    told = [says.strip()]
    for line in lines[at + 1 :]:
        indent = len(line) - len(line.lstrip())
        if not line.lstrip().startswith("#") or indent < key.start_mark.column + CONTINUES:
            break
        told.append(line.strip("# "))
    return " ".join(told)


def _above(lines: list[str], key: yaml.Node) -> str:
    told: list[str] = []
    for line in reversed(lines[: key.start_mark.line]):
        if not line.strip().startswith("#") or line.find("#") != key.start_mark.column:
            break
        told.insert(0, line.strip("# "))
    else:
        return ""  # these are the file's own head
    return " ".join(told)
