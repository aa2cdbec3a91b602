"""What a shell offers behind a tab: only what there is, all of it, and at once."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from mmavlm import completion
from mmavlm.commands.complete import candidates
from mmavlm.commands.mistakes import _is_there
from mmavlm.commands.verbs import COMMANDS
from mmavlm.core.config_files import choices, config_dir, groups
from mmavlm.movies.__main__ import _MAKERS

SRC = Path(completion.__file__).parents[1]
GROUPS = [group.key for group in groups(config_dir() / "train.yaml")]


def offered(line):
    return candidates(line.split(" "))


def test_verbs_are_offered_by_their_beginning():
    assert offered("mmavlm ") == [*COMMANDS, "--help", "--version"]
    assert offered("mmavlm pre") == ["predict", "prepare"]
    assert offered("/opt/env/bin/mmavlm tra") == ["train"]
    assert offered("mmavlm trian exp") == []


@pytest.mark.parametrize("group", GROUPS)
def test_all_choices_of_a_group_are_offered_also_behind_a_comma(group):
    found = choices(group)
    assert offered(f"mmavlm train {group}=") == [f"{group}={choice}" for choice in found]
    begun = found[0][:2]
    again = [f"{group}=a,{choice}" for choice in found if choice.startswith(begun)]
    assert offered(f"mmavlm train -m {group}=a,{begun}") == again


@pytest.mark.parametrize(
    "line",
    ["", "experiment=demo", "experiment=own_videos data=captions", "model=tiny memory=fifo",
     "experiment=duet_movies", "sound=clip_qformer model=tiny"],
)  # fmt: skip
def test_every_setting_that_is_offered_exists(line):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose("train", line.split()), resolve=False)
    names = offered(f"mmavlm train {line} " if line else "mmavlm train ")
    held = [name for name in names if name.endswith(".")]
    deep = [
        key for name in held for key in offered(f"mmavlm train {line} {name}".replace("  ", " "))
    ]
    keys = [name[:-1] for name in (*names, *deep) if name.endswith("=")]
    assert len(keys) > 80
    groups_alone = {key for key in keys if choices(key)}
    absent = [key for key in keys if not _is_there(config, key) and key not in groups_alone
              and not key.startswith("hydra.")]  # fmt: skip
    assert absent == []


def test_settings_are_those_of_the_choices_on_the_line():
    assert "data.reader.closed=" in offered("mmavlm train data=own_videos data.reader.")
    assert "data.reader.closed=" not in offered("mmavlm train data=lvu data.reader.")
    assert "data.reader.closed=" in offered("mmavlm train experiment=own_videos data.reader.")
    assert "encoder.patch_size=" in offered("mmavlm-train model=tiny encoder.")
    assert offered("mmavlm-predict stream_") == ["stream_fps="]
    assert offered("mmavlm train data.crop=") == ["data.crop=true", "data.crop=false"]
    assert offered("mmavlm train data.root=/us") == [], "which the shell completes as a path"


def test_help_is_offered_the_groups_it_tells_of():
    assert "data" in offered("mmavlm train --help ")
    assert "data=own_videos" in offered("mmavlm train --help data=own")


def test_words_and_settings_of_commands_without_a_config():
    assert offered("mmavlm completion ")[:3] == ["bash", "zsh", "fish"]
    assert offered("mmavlm new f") == ["fusion", "folder="]
    assert offered("mmavlm-prepare lvu root=/data wr") == ["write_counts="]
    assert offered("mmavlm prepare write_counts=") == ["write_counts=true", "write_counts=false"]
    assert offered("mmavlm prepare root=/data ro") == []
    assert offered("mmavlm doctor format=j") == ["format=json"]
    assert offered("mmavlm demo quick=t") == ["quick=true"]
    assert offered("mmavlm demo fusion=bi") == ["fusion=bidirectional"]
    assert offered("mmavlm movies kind=") == [f"kind={kind}" for kind in _MAKERS]


def started(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-c", "from mmavlm.__main__ import main; main()", *arguments],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(SRC)}, **more,
    )  # fmt: skip


def test_a_tab_waits_for_neither_torch_nor_hydra():
    code = (
        "import sys; sys.argv = ['mmavlm', 'completion', 'query', 'mmavlm', 'train', 'data.']\n"
        "from mmavlm.completion import main; main(sys.argv[2:])\n"
        "print(sorted({'torch', 'hydra', 'numpy', 'rich', 'lightning'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.splitlines()[-1] == "[]"
    assert "data.root=" in printed.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_for_all_entry_points_and_has_no_gaps(shell):
    script = started("completion", shell).stdout
    assert "mmavlm-extract-frames" in script
    assert "$$" not in script
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here to read it")
    check = [shell, "--no-execute"] if shell == "fish" else [shell, "-n"]
    subprocess.run(check, input=script, text=True, check=True)


@pytest.fixture
def bash(tmp_path):
    """A function that types into an interactive bash with our completion; gives what it shows."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    program = tmp_path / "bin/mmavlm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mmavlm "$@"\n')
    program.chmod(0o755)
    (tmp_path / "films").mkdir()
    (tmp_path / "rc").write_text(
        "PS1='> '\nbind 'set enable-bracketed-paste off'\nbind 'set bell-style none'\n"
        'eval "$(mmavlm completion bash)"\n'
    )
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ |= {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(SRC),
                       "TERM": "dumb", "COLUMNS": "200", "INPUTRC": "/dev/null"}  # fmt: skip
        os.execvp("bash", ["bash", "--noprofile", "--rcfile", str(tmp_path / "rc"), "-i"])

    def shown(until, seconds=30):
        text, end = "", time.monotonic() + seconds
        while not re.search(until, text) and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                text += os.read(terminal, 65536).decode()
        return text

    def type_(keys, until):
        os.write(terminal, keys.encode())
        text = shown(until)
        os.write(terminal, b"\x15")  # empties the line
        return text

    assert shown("> $").endswith("> ")
    yield type_
    os.write(terminal, b"\x15exit\n")
    os.waitpid(child, 0)
    os.close(terminal)


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("mmavlm trai\t", "mmavlm train "),
        ("mmavlm train experiment=demo_al\t", "experiment=demo_alignment "),
        ("mmavlm train fusion=none,bi\t", "fusion=none,bidirectional "),
        ("mmavlm train data.roo\t", "data.root="),
        ("mmavlm train data.root=fil\t", "data.root=films/"),
        ("mmavlm doctor form\tj\t", "format=json "),
    ],
)
def test_bash_completes_what_is_typed(bash, typed, becomes):
    assert becomes in bash(typed, re.escape(becomes))
