"""The command line as it was typed, and as Hydra is to read it."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from mmavlm.core.errors import ConfigError
from mmavlm.core.given_files import checkpoint_of_run
from mmavlm.core.quoting import literal, quoted

QUOTES = ("'", '"')
REFERENCE, ESCAPED = re.compile(r"(?<!\\)\$\{"), r"\\${"  # to another setting, and as text
NESTED = ("[", "{")  # how lists and dicts begin
SWEEP = ("-m", "--multirun")
ABOUT_HYDRA = {"--hydra-help", "--shell-completion", "-sc"}
SHOW_CONFIG = {"--cfg", "-c", "--info", "-i"}


def read_arguments(texts: Collection[str] = ()) -> None:
    """Write the command line anew, so that Hydra takes it as it was meant.

    A home folder (`data.root=~/films`) is spelled out, as shells do only at the start of a word. A
    value whose signs mean nothing to Hydra (`film (1).mp4`) is quoted, and so are those of `texts`
    in any case; but in a sweep their commas tell jobs apart. What asks for one comes to the front,
    where Hydra takes it. As a checkpoint the folder of a run stands for its best one.

    Raises:
        CheckpointError: if such a run has kept none.
    """
    sweep = any(argument in SWEEP for argument in sys.argv[1:])
    as_they_stand = () if sweep else texts
    meant = [_of_run(_meant(argument, as_they_stand)) for argument in sys.argv[1:]]
    sys.argv[1:] = sorted(meant, key=lambda argument: argument not in SWEEP)


def _of_run(argument: str) -> str:
    """The best checkpoint in place of the folder of its run."""
    key, _, value = argument.partition("=")
    if key != "checkpoint" or not value:
        return argument
    given = Path(value[1:-1] if value[0] in QUOTES else value)
    found = checkpoint_of_run(given)
    return argument if found == given else f"{key}={literal(str(found))}"


def _meant(argument: str, as_they_stand: Collection[str]) -> str:
    key, given, value = argument.partition("=")
    if not given or not value or key.startswith("-"):
        return argument
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
        argument = f"{key}={value}"
    is_quoted = (
        len(value) > 1 and value[0] == value[-1] and value[0] in QUOTES and _is_readable(argument)
    )
    if key in as_they_stand and value != "null":
        return f"{key}={REFERENCE.sub(ESCAPED, value) if is_quoted else literal(value)}"
    if value[0] not in NESTED and not _is_readable(argument):
        return f"{key}={quoted(value)}"
    return argument


def asks_hydra(arguments: Sequence[str]) -> bool:
    """Whether Hydra itself is asked something that needs no checkpoint."""
    flags = {argument.partition("=")[0] for argument in arguments}
    given = {argument.partition("=")[0] for argument in arguments if "=" in argument}
    shown = bool(flags & SHOW_CONFIG) and not given & {"checkpoint", "experiment"}
    return shown or bool(flags & ABOUT_HYDRA)


def given_keys(arguments: Sequence[str]) -> set[str]:
    """The settings and groups that a command line sets."""
    return {str(override.key_or_group) for override in parsed(arguments)}


def parsed(arguments: Sequence[str]) -> Any:
    """Hydra's overrides of the settings in a command line.

    Raises:
        ConfigError: naming what cannot be read as a setting.
    """
    plain = [a for a in arguments if a.startswith("~") or ("=" in a and not a.startswith("-"))]
    try:
        return OverridesParser.create().parse_overrides(plain)
    except OverrideParseException as error:
        key = error.override.partition("=")[0]
        raise ConfigError(
            f"{error.override} cannot be read as a setting; write texts with signs in quotes of "
            f"their own: \"{key}='…'\", in lists \"{key}=['…','…']\""
        ) from None


def _is_readable(argument: str) -> bool:
    try:
        OverridesParser.create().parse_overrides([argument])
    except OverrideParseException:
        return False
    return True
