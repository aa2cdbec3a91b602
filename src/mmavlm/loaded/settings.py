"""Settings from Python: the same as on the command line, and composed by the same configs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import Any, ParamSpec, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mmavlm.commands.arguments import parsed
from mmavlm.commands.cli import causes, user_message
from mmavlm.commands.mistakes import refuse_mistakes
from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import ConfigError, MmavlmError
from mmavlm.core.quoting import literal

P = ParamSpec("P")
T = TypeVar("T")
_COMPOSING = RLock()  # Hydra is one for a process


def plainly(do: Callable[P, T]) -> Callable[P, T]:
    """Let a user's mistake come as itself, and not wrapped by what built the model."""

    @wraps(do)
    def done(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return do(*args, **kwargs)
        except MmavlmError:
            raise
        except Exception as error:
            if (mistake := _mistake(error)) is None:
                raise
        raise mistake  # out here, where it is not told a second time as its own context

    return done


def _mistake(error: Exception) -> MmavlmError | None:
    """What a user can mend of an error, if anything."""
    if (message := user_message(error)) is None:
        return None
    own = (cause for cause in causes(error) if isinstance(cause, MmavlmError))
    return next(own, ConfigError(message))


def spelt(value: Any) -> str:
    """A Python value as it stands behind `key=`: nothing, a number, a text, a list, a dict.

    Raises:
        ConfigError: naming a value of another kind.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return literal(str(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{spelt(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelt, value)) + "]"
    raise ConfigError(
        f"a setting is {value!r}, of type {type(value).__name__}; give None, a number, a text, or "
        "a list or dict of them"
    )


def lines_of(settings: Mapping[str, Any], taken: Mapping[str, str]) -> list[str]:
    """Settings as the command line has them; those `taken` are made otherwise, as it says.

    Raises:
        ConfigError: naming one that is taken, or is of no kind that settings have.
    """
    for name in settings:
        if name in taken:
            raise ConfigError(f"{name}=… is no setting here; {taken[name]}")
    return [f"{name}={spelt(value)}" for name, value in settings.items()]


def laid_over(lines: Sequence[str], anew: Sequence[str]) -> list[str]:
    """A command line with other settings in place of its own; a group takes all below it along."""
    given = {str(one.key_or_group) for one in parsed(anew)}
    kept = [
        str(one.input_line)
        for one in parsed(lines)
        if not {str(one.key_or_group), str(one.key_or_group).split(".")[0]} & given
    ]
    return [*kept, *anew]


def composed(verb: str, lines: Sequence[str]) -> DictConfig:
    """The config of a command with a command line.

    Raises:
        ConfigError: naming what is not there, with what was probably meant.
    """
    with _own_hydra():
        try:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                return compose(verb, list(lines))
        except (HydraException, OmegaConfBaseException) as error:
            wrong = " ".join(str(error).split())
        refuse_mistakes(verb, lines)  # which says better what is wrong
        raise ConfigError(wrong)


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Leave Hydra as it was found: the program around may use it itself."""
    with _COMPOSING:
        theirs, version = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
        GlobalHydra.instance().clear()
        try:
            yield
        finally:
            GlobalHydra.instance().hydra = theirs
            VersionBase.instance().version_base = version
