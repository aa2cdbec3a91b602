"""What the commands share: how they start, one clear message for a user's mistake."""

from __future__ import annotations

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
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

from mmavlm.commands.arguments import SWEEP, asks_hydra, parsed, read_arguments
from mmavlm.commands.help import command_help
from mmavlm.commands.mistakes import refuse_mistakes
from mmavlm.commands.replay import laid_over_checkpoint
from mmavlm.commands.system_errors import (
    exit_if_reader_left,
    exit_interrupted,
    refused_by_system,
    require_place,
    require_writable,
)
from mmavlm.commands.verbs import versions
from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import ConfigError, MmavlmError
from mmavlm.core.given_files import require_checkpoint

FORMATS = ("table", "json")
OUTPUTS = "outputs"  # where runs go that are not sent elsewhere
WRITING = ("train", "evaluate", "score")
# What gloo and NCCL say of a process that is gone.
LOST = re.compile(
    r"gloo.*(?:closed|reset) by peer|remote process exited|Timed out waiting .*recv", re.S
)


def run_command(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Compose the config from the command line and run `task` on it; exit with 1 on a mistake.

    Help and versions are printed instead, if they are asked for.
    """
    if answered(config_name):
        return
    with exit_on_mistake():
        require_place()
        read_arguments()
        parsed(sys.argv[1:])  # which tells better than Hydra what cannot be read
        refuse_mistakes(config_name, sys.argv[1:])
        _require_output(config_name, sys.argv[1:])
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

    main = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=config_name)
    with exit_on_mistake():
        main(guarded)()


def run_on_checkpoint(
    task: Callable[[DictConfig], Any], config_name: str, texts: Collection[str] = ()
) -> None:
    """Run `task` on the config of a checkpoint, with the command line laid over it.

    The values of `texts` are taken as they stand.
    """
    if answered(config_name):
        return
    with exit_on_mistake():
        require_place()
        read_arguments(texts)
        if not asks_hydra(sys.argv[1:]):
            given = {str(one.key_or_group): one.value() for one in parsed(sys.argv[1:])}
            if checkpoint := given.get("checkpoint"):
                require_checkpoint(Path(str(checkpoint)))
                print(f"reading {checkpoint} …", file=sys.stderr, flush=True)
            else:
                refuse_mistakes(config_name, sys.argv[1:])
            sys.argv[1:] = laid_over_checkpoint(sys.argv[1:])
    run_command(task, config_name)


def _require_output(config_name: str, arguments: Sequence[str]) -> None:
    """Refuse a folder for a run that cannot be written to, of which Hydra gives a traceback."""
    if config_name not in WRITING:
        return
    given = {str(one.key_or_group): str(one.value()) for one in parsed(arguments)}
    key = "hydra.sweep.dir" if {*SWEEP} & {*arguments} else "hydra.run.dir"
    require_writable(Path(given.get(key, OUTPUTS).partition("${")[0]), key)


def answered(verb: str) -> bool:
    """Whether help or versions were asked for, which are then printed."""
    if "--version" in sys.argv[1:]:
        print(versions())
        return True
    at = next((i for i, argument in enumerate(sys.argv) if argument in ("-h", "--help")), None)
    if at is None:
        return False
    with exit_on_mistake():
        print(command_help(verb, sys.argv[at + 1 :]))
    return True


def announce(config: DictConfig, doing: str) -> None:
    """Say at once what is starting: parts that take seconds to import come after it."""
    of = HydraConfig.get()
    experiment = of.runtime.choices.get("experiment")
    about = f"experiment {experiment}" if experiment else f"data {of.runtime.choices.get('data')}"
    if config.checkpoint is not None:
        about = f"checkpoint {config.checkpoint}"
    # not logged: a log would leave a file in the folder where `check` was started
    print(f"{of.job.name}: {about}, {doing} …", file=sys.stderr, flush=True)


@contextmanager
def exit_on_mistake() -> Iterator[None]:
    """Turn a user's mistake into its message on stderr and exit code 1.

    Who reads what is printed may leave, as `head` does: that is no mistake, and ends a command in
    silence with the exit code of the shell's own. Ctrl-C ends it likewise, in one word.
    """
    try:
        yield
    except KeyboardInterrupt:
        exit_interrupted()
    except Exception as error:
        exit_if_reader_left(error)
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
    for cause in causes(error):
        if isinstance(cause, MmavlmError):
            return str(cause)
        if isinstance(cause, MissingMandatoryValue):
            key = getattr(cause, "full_key", None) or "a setting"
            return f"{key} is not set; give it on the command line: {key}=…"
        if (refused := refused_by_system(cause)) is not None:
            return refused
        if isinstance(cause, RuntimeError) and LOST.search(str(cause)):
            return (
                "another process of this run has ended, or cannot be reached any more; its log, or "
                "the system's (such as of memory), says why. All processes end; go on with "
                f"resume=auto and the same hydra.run.dir ({str(cause).partition('. ')[0]})"
            )
    if isinstance(error, InstantiationException) and not os.environ.get("HYDRA_FULL_ERROR"):
        return _not_built(error)
    return None


def _not_built(error: InstantiationException) -> str:
    """What a part said of its settings, such as Lightning of those of the trainer."""
    *_, cause = causes(error)
    key = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
    said = " ".join(str(cause).split()) or type(cause).__name__
    return (
        f"{key[1] if key else 'a part'} cannot be built from its settings: {said} "
        "(HYDRA_FULL_ERROR=1 shows where)"
    )


def check_format(given: object) -> None:
    """Refuse a form of output that there is none of.

    Raises:
        ConfigError: naming those there are.
    """
    if given not in FORMATS:
        raise ConfigError(f"format={given!r} is unknown; choose {' or '.join(FORMATS)}")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
