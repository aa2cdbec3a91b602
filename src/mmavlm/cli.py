"""What the commands share: where the config lies, one clear message for a user's mistake."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

from mmavlm.errors import ConfigError, MmavlmError
from mmavlm.quoting import quoted

log = logging.getLogger(__name__)

QUOTES = ("'", '"')
NESTED = ("[", "{")  # how lists and dicts begin
FORMATS = ("table", "json")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What gloo and NCCL say of a process that is gone.
LOST = re.compile(
    r"gloo.*(?:closed|reset) by peer|remote process exited|Timed out waiting .*recv", re.S
)
NO_ACCESS = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.EEXIST,
)  # fmt: skip


def config_dir() -> Path:
    """The folder of the Hydra groups: inside the installed package, or beside its sources."""
    package = Path(__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def run_command(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Compose the config from the command line and run `task` on it; exit with 1 on a mistake."""
    read_arguments()
    # Frozen parts are in eval mode for good, which is no mistake.
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
    # Nor is a process, or a task, that has nothing of a kind to be counted.
    warnings.filterwarnings("ignore", r"The ``compute`` method of metric")
    # Nor can a user help what Lightning's own code is told of.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")

    @wraps(task)  # Hydra names the job, and with it the log file, after the task's module
    def guarded(config: DictConfig) -> Any:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return run_job(task, config)
        with exit_on_mistake():
            return task(config)

    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)(
        guarded
    )()


@contextmanager
def exit_on_mistake() -> Iterator[None]:
    """Turn a user's mistake into its message on stderr and exit code 1."""
    try:
        yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None


class MistakeError(CompactHydraException):
    """A user's mistake in one job of a sweep; Hydra prints its message alone and exits with 1."""


def run_job(task: Callable[[DictConfig], Any], config: DictConfig) -> Any:
    """Run `task` as a job of a sweep, which goes on with the next job whatever is raised here.

    Raises:
        MistakeError: in place of a user's mistake.
    """
    try:
        return task(config)
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
    # Raised out here, it keeps no frame of the job alive, and with it no model.
    raise MistakeError(message)


def user_message(error: BaseException) -> str | None:
    """What to tell the user of an error they can mend, or None if it is a fault of the library."""
    for cause in _causes(error):
        if isinstance(cause, MmavlmError):
            return str(cause)
        if isinstance(cause, MissingMandatoryValue):
            key = getattr(cause, "full_key", None) or "a setting"
            return f"{key} is not set; give it on the command line: {key}=…"
        if isinstance(cause, OSError) and cause.errno in DISK_FULL:
            return (
                f"{cause.filename or 'a file'} cannot be written: {cause.strerror}; make room or "
                "raise the quota, and go on with resume=auto and the same hydra.run.dir"
            )
        if isinstance(cause, RuntimeError) and LOST.search(str(cause)):
            return (
                "another process of this run has ended, or cannot be reached any more; its log, or "
                "the system's (such as of memory), says why. All processes end; go on with "
                f"resume=auto and the same hydra.run.dir ({str(cause).partition('. ')[0]})"
            )
        if isinstance(cause, OSError) and cause.errno in NO_ACCESS and cause.filename:
            return (
                f"{cause.filename} cannot be read or written: {cause.strerror}; mend that, and go "
                "on with resume=auto and the same hydra.run.dir"
            )
    if isinstance(error, InstantiationException) and not os.environ.get("HYDRA_FULL_ERROR"):
        return _not_built(error)
    return None


def _not_built(error: InstantiationException) -> str:
    """What a part said of its settings, such as Lightning of those of the trainer."""
    *_, cause = _causes(error)
    key = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
    said = " ".join(str(cause).split()) or type(cause).__name__
    return (
        f"{key[1] if key else 'a part'} cannot be built from its settings: {said} "
        "(HYDRA_FULL_ERROR=1 shows where)"
    )


def read_arguments(texts: Collection[str] = ()) -> None:
    """Write the command line anew, so that Hydra takes it as it was meant.

    A home folder (`data.root=~/films`) is spelled out, as shells do only at the start of a word. A
    value whose signs mean nothing to Hydra (`film (1).mp4`) is quoted, and so are those of `texts`
    in any case; but in a sweep their commas tell jobs apart.
    """
    sweep = any(argument in ("-m", "--multirun") for argument in sys.argv[1:])
    as_they_stand = () if sweep else texts
    sys.argv[1:] = [_meant(argument, as_they_stand) for argument in sys.argv[1:]]


def _meant(argument: str, as_they_stand: Collection[str]) -> str:
    key, given, value = argument.partition("=")
    if not given or not value or key.startswith("-"):
        return argument
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
        argument = f"{key}={value}"
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in QUOTES
    if key in as_they_stand and not is_quoted and value != "null":
        return f"{key}={quoted(value)}"
    if value[0] not in NESTED and not _is_readable(argument):
        return f"{key}={quoted(value)}"
    return argument


def check_format(given: object) -> None:
    """Refuse a form of output that there is none of.

    Raises:
        ConfigError: naming those there are.
    """
    if given not in FORMATS:
        raise ConfigError(f"format={given!r} is unknown; choose {' or '.join(FORMATS)}")


def given_keys(arguments: Sequence[str]) -> set[str]:
    """The settings and groups that a command line sets."""
    return {str(override.key_or_group) for override in _parse(arguments)}


# Settings that say which data a run was of: an experiment given with a checkpoint brings its own.
OF_DATA_SET = {
    "data", "data.root", "data.task", "data.reader", "data.cache", "data.limit_items",
    "data.sets", "data.weights", "data.temperature", "data.epoch_items",
}  # fmt: skip


def laid_over_checkpoint(arguments: Sequence[str]) -> list[str]:
    """The command line a checkpoint was trained with, and `arguments` laid over it.

    What is set anew is dropped from the old one; a group given anew (such as data=lvu) also drops
    the old settings below it. An experiment joins the one of the checkpoint, from which it takes
    all but the data: the model is built as it was trained. Without a checkpoint `arguments` are
    all there is, and an experiment must say what is to be asked.

    Raises:
        ConfigError: if neither a checkpoint nor an experiment is given.
        CheckpointError: if the checkpoint cannot be read.
    """
    # Imported here, since commands that run no model need no stage.
    from mmavlm.stages.checkpoint import RUN_KEY, read_checkpoint

    given = {str(override.key_or_group): override.value() for override in _parse(arguments)}
    if not given.get("checkpoint"):
        if given.get("experiment"):
            return list(arguments)
        raise ConfigError(
            "no checkpoint is given; say checkpoint=outputs/<run>/checkpoints/last.ckpt, or "
            "experiment=zero_shot_msvd_qa (or another) to ask pretrained weights as they are"
        )
    run = read_checkpoint(str(given["checkpoint"]))[RUN_KEY]
    dropped = {*given, "resume", "resume_accept", "checkpoint", "prepare"}
    dropped |= {"init.experiment", "init.alignment"}
    experiments = _names(given.get("experiment"))
    kept = []
    for override in _parse(run["overrides"]):
        key = str(override.key_or_group)
        if key == "experiment" and experiments:
            experiments = [*_names(override.value()), *experiments]
        elif experiments and OF_DATA_SET & {key, ".".join(key.split(".")[:2])}:
            continue
        elif key not in dropped and key.split(".")[0] not in given:
            kept.append(str(override.input_line))
    if experiments:
        arguments = [a for a in arguments if not a.startswith("experiment=")]
        kept.append(f"experiment=[{','.join(dict.fromkeys(experiments))}]")
    return [*kept, *arguments]


def _names(value: Any) -> list[str]:
    """The choices of a group: one, several, or none."""
    if value is None:
        return []
    return list(map(str, value)) if isinstance(value, list) else [str(value)]


def _parse(arguments: Sequence[str]) -> Any:
    plain = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
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


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
