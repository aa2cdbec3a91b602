"""The words that can follow on a command line: verbs, settings, groups, and their choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from mmavlm.commands.command import Command, Plain, truth
from mmavlm.commands.verbs import COMMANDS
from mmavlm.core.config_files import (
    choices,
    config_dir,
    groups,
    is_global,
    settings,
    settings_of_choice,
)

PROGRAM, MAIN = "mmavlm", "train"
TRUTHS = ("true", "false")
ALWAYS = ("--help", "--version")
WITH_CONFIG = (*ALWAYS, "--cfg", "-m", "--config-dir", "hydra.run.dir=", "hydra.searchpath=")
ASKS_HELP = {"-h", "--help"}


def candidates(words: Sequence[str]) -> list[str]:
    """What the last of `words` may become; the first is the program, such as mmavlm-train.

    Of a name that takes a value the sign = is the end, of one that holds others the dot. [] means
    that nothing is known, as of paths.
    """
    program, *rest = words
    verb = PurePath(program).name.removeprefix(PROGRAM).lstrip("-")
    if not verb and len(rest) < 2:
        return _beginning(rest, [*COMMANDS, *ALWAYS])
    if not verb:
        verb, *rest = rest
    if verb not in COMMANDS or not rest:
        return []
    command = COMMANDS[verb]
    *before, current = rest
    found = [] if command.configs else _plain(command, before, current)
    if command.configs or command.passes_on:
        found += _with_config(command, before, current)
    return _beginning([current], dict.fromkeys(found))


def _beginning(current: Sequence[str], words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(current[0] if current else "")]


def _plain(command: Command, before: Sequence[str], current: str) -> list[str]:
    """The words and settings of a command without a config."""
    key, given, _ = current.partition("=")
    by_key = {setting.key: setting for setting in command.settings}
    if given:
        return [f"{key}={value}" for value in _values(by_key.get(key))]
    place = sum("=" not in word for word in before)
    words = _values(command.words[place]) if place < len(command.words) else ()
    set_already = {word.partition("=")[0] for word in before}
    return [*words, *(f"{key}=" for key in by_key if key not in set_already), *ALWAYS]


def _values(setting: Plain | None) -> tuple[str, ...]:
    if setting is None:
        return ()
    return TRUTHS if setting.read is truth else setting.choices


def _with_config(command: Command, before: Sequence[str], current: str) -> list[str]:
    """The groups, choices and settings of a command with a config."""
    chosen = _chosen(before)
    if ASKS_HELP & {*before}:
        return [*chosen, *_choices(current)]
    if "=" in current:
        return _choices(current) or _truths(command, chosen, current)
    top, dot, _ = current.partition(".")
    if dot:
        return [f"{key}=" for key in _settings(command, chosen, top)]
    names = [key for config in _configs(command) for key in _of_file(config)]
    held = dict.fromkeys(f"{name.partition('.')[0]}." for name in names if "." in name)
    single = [f"{name}=" for name in names if "." not in name]
    of_groups = [f"{group}{sign}" for group in chosen for sign in ("=", ".")]
    return [*of_groups, *single, *held, *WITH_CONFIG]


def _configs(command: Command) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*command.configs, MAIN)))


def _of_file(config: str) -> dict[str, str]:
    """The settings of a file of conf/ and their values as written."""
    return {one.key: one.value for one in settings(config_dir() / f"{config}.yaml")}


def _chosen(before: Sequence[str]) -> dict[str, str]:
    """The choice of each group: by default, as the experiment has it, as the line says."""
    given = dict(word.split("=", 1) for word in before if "=" in word)
    found = {one.key: one.value for one in groups(config_dir() / f"{MAIN}.yaml")}
    found |= _brought("experiment", given.get("experiment", ""))
    found |= {group: given[group] for group in found if group in given}
    brought = _brought("model", found["model"])  # encoder, LLM and others
    return found | {group: given.get(group, choice) for group, choice in brought.items()}


def _brought(group: str, choice: str) -> dict[str, str]:
    """The choices of groups that a choice brings along, those that its own bring among them."""
    path = config_dir() / group / f"{choice}.yaml"
    found: dict[str, str] = {}
    if path.is_file():
        for one in groups(path):
            found |= {**_brought(one.key, one.value), one.key: one.value}
    return found


def _choices(current: str) -> list[str]:
    """`group=choice` for each choice; behind a comma, as in sweeps, for the next one."""
    group, _, value = current.partition("=")
    earlier = value[: value.rfind(",") + 1]
    return [f"{group}={earlier}{choice}" for choice in choices(group)]


def _settings(command: Command, chosen: dict[str, str], top: str) -> dict[str, str]:
    """The settings whose names begin with `top` and a dot, and their values as written."""
    found = {key: value for config in _configs(command) for key, value in _of_file(config).items()}
    choice = chosen.get(top, "")
    path = config_dir() / top / f"{choice}.yaml"
    if path.is_file() and not is_global(path):
        found |= {f"{top}.{one.key}": one.value for one in settings_of_choice(top, choice)}
    return {
        key: value
        for key, value in found.items()
        if key.startswith(f"{top}.") and not key.rpartition(".")[2].startswith("_")
    }


def _truths(command: Command, chosen: dict[str, str], current: str) -> list[str]:
    key = current.partition("=")[0]
    top, dot, _ = key.partition(".")
    if dot:
        known = _settings(command, chosen, top)
    else:
        known = {k: v for config in _configs(command) for k, v in _of_file(config).items()}
    return [f"{key}={value}" for value in TRUTHS] if known.get(key) in TRUTHS else []
