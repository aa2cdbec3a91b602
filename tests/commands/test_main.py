import sys

import pytest

from mmavlm.__main__ import main
from mmavlm.commands.verbs import COMMANDS


@pytest.fixture
def start(monkeypatch, capsys):
    """Start `mmavlm` with arguments; gives its exit code and what it printed."""

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["mmavlm", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, capsys.readouterr()

    return start


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_alone_it_lists_the_commands(start, arguments):
    code, printed = start(*arguments)
    assert code == 0
    assert all(command.does.split(".")[0][:40] in printed.out for command in COMMANDS.values())


def test_versions_are_those_of_mmavlm_torch_and_python(start):
    code, printed = start("--version")
    assert code == 0
    python = ".".join(map(str, sys.version_info[:3]))
    assert printed.out.startswith("mmavlm ")
    assert "torch " in printed.out
    assert f"python {python}" in printed.out


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_starts_its_command_as_python_does(start, verb):
    before = sys.modules["__main__"]
    code, printed = start(verb, "--version")
    assert code == 0
    assert printed.out.startswith("mmavlm ")
    assert sys.modules["__main__"] is before


def test_a_misspelt_verb_is_told_with_the_nearest(start):
    code, printed = start("trian", "experiment=demo")
    assert code == 1
    assert "trian is no command of mmavlm; did you mean train?" in printed.err
