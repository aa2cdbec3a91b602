"""One command with verbs: `mmavlm train …` is `python -m mmavlm.train …`."""

from __future__ import annotations

import runpy
import sys

from mmavlm.commands.system_errors import exit_if_reader_left
from mmavlm.commands.verbs import COMMANDS, versions
from mmavlm.core.nearest import nearest


def main() -> None:
    """Entry point of `mmavlm`."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help", "help"):
        # Imported here, since `mmavlm doctor` also speaks where PyYAML is missing.
        from mmavlm.commands.help import overview

        try:
            print(overview(), flush=True)
        except BrokenPipeError as error:
            exit_if_reader_left(error)
            raise
    elif verb in ("-V", "--version"):
        print(versions())
    elif verb in COMMANDS:
        del sys.argv[1]
        # As `python -m` starts it, so that Lightning and multiprocessing start it again likewise.
        module = COMMANDS[verb].module or verb
        runpy.run_module(f"mmavlm.{module}", run_name="__main__", alter_sys=True)
    else:
        near = " or ".join(nearest(verb, COMMANDS)) or "one of " + ", ".join(COMMANDS)
        print(f"error: {verb} is no command of mmavlm; did you mean {near}?", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
