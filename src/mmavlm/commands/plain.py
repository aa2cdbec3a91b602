"""How a command without a config reads its line, helps, and ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from mmavlm.commands.command import Command, Plain, truth
from mmavlm.commands.system_errors import (
    exit_if_reader_left,
    exit_interrupted,
    refused_by_system,
    require_place,
)
from mmavlm.commands.verbs import COMMANDS, versions
from mmavlm.core.errors import ConfigError, MmavlmError
from mmavlm.core.nearest import nearest

EXPECTED = {float: "a number", int: "a whole number", truth: "true or false"}


def run_plain(verb: str, task: Callable[..., int], arguments: Sequence[str] | None = None) -> None:
    """Run `task` with the settings of the command line; exit with its code if that is not 0.

    Help and versions are printed instead, if they are asked for. A mistake is told without a
    traceback and ends with 1.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        require_place()
        code = _run(verb, task, given)
    except KeyboardInterrupt:
        exit_interrupted()
    except (MmavlmError, OSError) as error:
        exit_if_reader_left(error)
        if (message := _message(verb, error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    if code:
        raise SystemExit(code)


def _run(verb: str, task: Callable[..., int], given: list[str]) -> int:
    if "--version" in given:
        print(versions())
    elif {"-h", "--help"} & {*given}:
        # Imported here, since `doctor` also speaks where PyYAML is missing.
        from mmavlm.commands.help import plain_help

        print(plain_help(verb))
    else:
        return task(**read_plain(verb, given))
    return 0


def _message(verb: str, error: MmavlmError | OSError) -> str | None:
    """What to tell of an error that a user can mend; None of others."""
    if isinstance(error, MmavlmError):
        return str(error)
    # what is passed on to a training, that has told of itself
    return None if COMMANDS[verb].passes_on else refused_by_system(error)


def read_plain(verb: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The words and settings of a command line by their keys, those left out by default.

    Words that may be many are a list; what is passed on is a list under `others`.

    Raises:
        ConfigError: naming each mistake with what was probably meant.
    """
    command = COMMANDS[verb]
    known = {setting.key: setting for setting in command.settings}
    found: dict[str, Any] = {s.key: s.default for s in command.settings}
    words: list[str] = []
    others: list[str] = []
    told: list[str] = []
    for argument in arguments:
        key, given, value = argument.partition("=")
        if key in known and given:
            found[key] = _value(known[key], argument, value, told)
        elif command.passes_on:
            others.append(argument)
        elif argument.startswith("-") or (given and key.isidentifier()):
            told.append(_told_unknown(verb, argument, known))
        else:
            words.append(argument)
    told += [
        f"{key} is not set; give it on the command line: {key}=…"
        for key, setting in known.items()
        if setting.needed and found[key] is None
    ]
    found |= _placed(verb, command, words, told)
    if told:
        more = f"{len(told)} mistakes:\n  " if len(told) > 1 else ""
        raise ConfigError(more + "\n  ".join(told))
    return found | ({"others": others} if command.passes_on else {})


def _placed(verb: str, command: Command, words: list[str], told: list[str]) -> dict[str, Any]:
    """The words that have a place, by their keys."""
    named = " ".join(f"<{word.key}>" for word in command.words)
    if len(words) < len(command.words):
        lacking = command.words[len(words)]
        told.append(f"<{lacking.key}> is not given, {lacking.says}: mmavlm {verb} {named} …")
        return {}
    if len(words) > len(command.words) and not command.many:
        more = words[len(command.words) :]
        takes = f"takes {named}" if named else "takes no words"
        told.append(f"{' '.join(more)}: mmavlm {verb} {takes}, and settings as key=value")
        return {}
    rest = len(command.words) - 1
    first, behind = words[: len(words) - rest], words[len(words) - rest :]
    found: dict[str, Any] = {}
    for word, texts in zip(command.words, [first, *([text] for text in behind)], strict=False):
        values = [_value(word, text, text, told) for text in texts]
        found[word.key] = values if command.many and word is command.words[0] else values[0]
    return found


def _value(setting: Plain, argument: str, text: str, told: list[str]) -> Any:
    if setting.choices and text not in setting.choices:
        near = ", ".join(nearest(text, setting.choices, 5, least=5))
        told.append(f"{argument} is no choice of {setting.key}; choose {near}")
        return None
    try:
        return setting.read(text)
    except ValueError:
        expected = EXPECTED.get(setting.read, "another value")
        told.append(f"{argument} cannot be read; {setting.key} is {expected}")
        return None


def _told_unknown(verb: str, argument: str, known: dict[str, Plain]) -> str:
    if not known:
        return f"{argument}: mmavlm {verb} takes no settings"
    name = argument.lstrip("-").partition("=")[0].replace("-", "_")
    if argument.startswith("-") and name in known:
        return f"{argument}: settings are written without dashes, key=value, such as {name}=…"
    near = " or ".join(nearest(name, known)) or "one of " + ", ".join(known)
    return f"{argument}: there is no setting {name}; did you mean {near}?"
