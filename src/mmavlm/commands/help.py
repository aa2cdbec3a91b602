"""What `--help` prints: what a command does, its commonest lines, its settings and groups."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from mmavlm.commands.command import Command, Plain
from mmavlm.commands.verbs import COMMANDS
from mmavlm.core.config_files import (
    Setting,
    choices,
    config_dir,
    groups,
    headline,
    is_global,
    settings,
    settings_of_choice,
)
from mmavlm.core.errors import ConfigError
from mmavlm.core.nearest import nearest

MAIN = "train"  # the config that those of most other commands are laid over
KEYS = 30  # columns of settings before their sentences
NOT_SAID = ("_target_", "_partial_")  # keys that name code
ALL = "all"  # asks for every setting and group
WRITTEN = (
    (
        "  key=value",
        "no dashes, no spaces; in quotes what the shell reads: 'data.task=[genre,scene]'",
    ),
    ("  group=choice", "changes a whole part: fusion=bidirectional, model=tiny (small, on a CPU)"),
    ("  group.key=value", "changes a setting of it: data.batch_size=4, trainer.max_epochs=5"),
    ("  experiment=name", "a recipe of groups and settings; what you type is laid over it"),
)


def overview() -> str:
    """All commands, a line each."""
    rows = [(verb, command.does) for verb, command in COMMANDS.items()]
    width = 2 + max(map(len, COMMANDS))
    return "\n".join(
        [
            "mmavlm: video-language models that hallucinate less.",
            "",
            "usage: mmavlm <command> [key=value …]   (or python -m mmavlm.<command>)",
            "",
            *_rows(rows, width),
            "",
            "mmavlm <command> --help says more; mmavlm --version tells the versions.",
        ]
    )


def command_help(verb: str, asked: Sequence[str] = ()) -> str:
    """The help of a command, or of the groups that are `asked` of it: `data` or `data=lvu`.

    `all` asks for every setting and group of it.

    Raises:
        ConfigError: if there is no such group or choice.
    """
    command = COMMANDS[verb]
    named = [a for a in asked if not a.startswith("-")]
    if named == [ALL]:
        return "\n".join(_every_line(verb, command))
    if unknown := [a for a in named if not _is_group(a)]:
        near = ", ".join(nearest(unknown[0], [g.key for g in _groups(command)], 5, least=3))
        raise ConfigError(f"--help {unknown[0]}: there is no such group; nearest are {near}")
    blocks = [_group_help(command, argument) for argument in named]
    return "\n\n".join(blocks or ["\n".join(_command_lines(verb, command))])


def plain_help(verb: str) -> str:
    """The help of a command without a config."""
    command = COMMANDS[verb]
    named = "".join(f" <{word.key}>" for word in command.words)
    told = [f"mmavlm {verb}: {command.does}", ""]
    told += [f"usage: mmavlm {verb}{named} [key=value …]", ""]
    told += [f"  mmavlm {verb} {line}".rstrip() for line in command.lines]
    for title, rows in (
        ("What is given in this order:", [(f"  <{w.key}>", w.says) for w in command.words]),
        ("Settings:", [(f"  {s.key}={_by_default(s)}", _said(s)) for s in command.settings]),
    ):
        told += ["", title, *_rows(rows)] if rows else []
    if command.passes_on:
        told += ["", "All other settings go to the training: mmavlm train --help lists them."]
    return "\n".join(told)


def _by_default(setting: Plain) -> str:
    value = setting.default
    return "…" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def _said(setting: Plain) -> str:
    return f"{setting.says} (needed)" if setting.needed else setting.says


def _command_lines(verb: str, command: Command) -> Iterator[str]:
    """A screen for who has never seen the command: examples, how to write settings, where to go."""
    yield from _head(verb, command)
    yield ""
    yield "How settings are written:"
    yield from _rows(WRITTEN, width=20)
    for note in command.notes:
        yield ""
        yield from note.splitlines()
    for config in command.configs:
        own = settings(config_dir() / f"{config}.yaml") if config != MAIN else []
        if own:
            yield ""
            yield headline(config_dir() / f"{config}.yaml")
            yield from _settings(own)
    yield ""
    yield "More:"
    yield from _rows(
        [
            (f"  mmavlm {verb} --help experiment", "the recipes, a line each; so of any group"),
            (f"  mmavlm {verb} --help data=own_videos", "the settings of a choice"),
            (f"  mmavlm {verb} --help {ALL}", "every setting and every group"),
            (f"  mmavlm {verb} … --cfg job", "prints what would run, and runs nothing"),
        ],
        width=len(verb) + 36,
    )
    names = ", ".join(group.key for group in _groups(command))
    yield from _rows([("  groups:", names)], width=12)


def _head(verb: str, command: Command) -> Iterator[str]:
    yield f"mmavlm {verb}: {command.does}"
    yield ""
    yield from (f"  mmavlm {verb} {line}" for line in command.lines)


def _every_line(verb: str, command: Command) -> Iterator[str]:
    """All that can be set."""
    yield from _head(verb, command)
    for config in command.configs:
        if found := settings(config_dir() / f"{config}.yaml"):
            yield ""
            yield headline(config_dir() / f"{config}.yaml")
            yield from _settings(found)
    if MAIN not in command.configs:
        yield ""
        yield "Settings that all commands with a config share:"
        yield from _settings(settings(config_dir() / f"{MAIN}.yaml"))
    yield ""
    yield f"Groups, each with its choice by default (mmavlm {verb} --help data says more of one):"
    for group in _groups(command):
        listed = f"{group.says}: {', '.join(choices(group.key))}"
        yield from _rows([(f"  {group.key}={group.value}", listed)])
    yield ""
    yield "Also: -m sweeps over settings, --cfg job prints the config, --hydra-help, --version."


def _group_help(command: Command, argument: str) -> str:
    """The choices of a group, and the settings of the one that is given or taken by default."""
    name, given, choice = argument.partition("=")
    by_default = next((g.value for g in _groups(command) if g.key == name), "null")
    chosen = choice if given else by_default
    folder = config_dir() / name
    rows = [(f"  {name}={one}", headline(folder / f"{one}.yaml")) for one in choices(name)]
    told = [f"The choices of {name}, {by_default} by default:", *_rows(rows, KEYS + 8)]
    if chosen in ("null", ""):
        return "\n".join(told)
    if chosen not in choices(name):
        near = ", ".join(nearest(chosen, choices(name), 5, least=3))
        raise ConfigError(f"{argument}: there is no such choice; nearest are {near}")
    above = "" if is_global(folder / f"{chosen}.yaml") else f"{name}."
    found = [
        Setting(above + one.key, one.value, one.says)
        for one in settings_of_choice(name, chosen)
        if one.key.rpartition(".")[2] not in NOT_SAID
    ]
    return "\n".join([*told, "", f"Settings of {name}={chosen}:", *_settings(found)])


def _groups(command: Command) -> list[Setting]:
    """The groups of the main config that a command's settings are laid over."""
    return groups(config_dir() / f"{MAIN}.yaml") if command.configs else []


def _is_group(argument: str) -> bool:
    return bool(choices(argument.partition("=")[0]))


def _settings(found: Iterable[Setting]) -> list[str]:
    return _rows((f"  {s.key}={s.value}" if s.value else f"  {s.key}", s.says) for s in found)


def _rows(rows: Iterable[tuple[str, str]], width: int = KEYS) -> list[str]:
    """Two columns, the second wrapped to the terminal."""
    columns = max(shutil.get_terminal_size((100, 24)).columns, width + 30)
    lines: list[str] = []
    for key, says in rows:
        wrapped = textwrap.wrap(
            says, columns - width - 1, break_long_words=False, break_on_hyphens=False
        ) or [""]
        if len(key) >= width:
            lines.append(key)
        else:
            wrapped[0], key = f"{key:<{width}}{wrapped[0]}", ""
            lines.append(wrapped.pop(0).rstrip())
        lines += [" " * width + line for line in wrapped if line]
    return lines
