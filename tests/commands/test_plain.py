"""The line of a command without a config: words in their order, settings by their keys."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.commands.plain import read_plain, run_plain
from mmavlm.commands.plain_verbs import PLAIN
from mmavlm.core.errors import ConfigError, DataError

SETTINGS = {
    "videos": Path("films"), "write_counts": True, "fps": 2.5, "short_side": 64, "quality": 80,
    "workers": 3,
}  # fmt: skip


@given(st.permutations(["lvu", "root=/data", *SETTINGS]), st.sets(st.sampled_from([*SETTINGS])))
def test_settings_given_in_any_order_are_read_and_the_others_are_as_by_default(order, chosen):
    def typed(word):
        value = SETTINGS.get(word)
        return word if value is None else f"{word}={str(value).lower() if value is True else value}"

    line = [typed(word) for word in order if word not in SETTINGS or word in chosen]
    found = read_plain("prepare", line)
    defaults = {setting.key: setting.default for setting in PLAIN["prepare"].settings}
    given_ = {key: value for key, value in SETTINGS.items() if key in chosen}
    assert found == {**defaults, **given_, "set": "lvu", "root": Path("/data")}


@pytest.mark.parametrize(
    ("verb", "line", "message"),
    [
        ("prepare", "lvu root=/d writecounts=true", "did you mean write_counts?"),
        ("prepare", "lvu root=/d colour=red", "there is no setting colour; did you mean one of"),
        ("prepare", "lvu --root /d", "--root: settings are written without dashes, key=value, "
                                     "such as root=…"),
        ("prepare", "lvu --write-counts root=/d", "such as write_counts=…"),
        ("prepare", "lvu", "root is not set; give it on the command line: root=…"),
        ("prepare", "root=/d", "<set> is not given, a set of conf/data"),
        ("prepare", "lvu coin root=/d", "coin: mmavlm prepare takes <set>, and settings as key="),
        ("prepare", "lvu root=/d fps=ten", "fps=ten cannot be read; fps is a number"),
        ("prepare", "lvu root=/d workers=1.5", "workers=1.5 cannot be read; workers is a whole"),
        ("prepare", "lvu root=/d write_counts=yes", "write_counts is true or false"),
        ("completion", "bash short=1", "short=1: mmavlm completion takes no settings"),
        ("completion", "tcsh", "tcsh is no choice of shell; choose"),
        ("doctor", "json", "json: mmavlm doctor takes no words, and settings as key=value"),
        ("convert", "a.pth b.pth language_model=t6", "language_model=t6 is no choice of "
                                                     "language_model; choose t5, llm"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_what_was_meant(verb, line, message):
    with pytest.raises(ConfigError) as told:
        read_plain(verb, line.split())
    assert message in str(told.value)


def test_several_mistakes_are_told_at_once():
    with pytest.raises(ConfigError, match=r"3 mistakes:\n  fps=ten .*\n  rot=/d: .*\n  root is"):
        read_plain("prepare", ["lvu", "fps=ten", "rot=/d"])


def test_all_words_but_the_last_are_sources_and_a_path_may_hold_an_equals_sign():
    found = read_plain("convert", ["a.pkl", "./b=1.pkl", "~/c.pkl", "out"])
    assert found["source"] == [Path("a.pkl"), Path("./b=1.pkl"), Path.home() / "c.pkl"]
    assert found["target"] == Path("out")


def test_the_demo_passes_on_what_it_does_not_know():
    found = read_plain("demo", ["quick=true", "seed=3", "-m", "fusion=none,bidirectional"])
    assert found == {
        "quick": True, "threads": 2, "others": ["seed=3", "-m", "fusion=none,bidirectional"]
    }  # fmt: skip


def ended(task, capsys):
    """The exit code of a command that does `task`, and what it said."""
    code = 0
    try:
        run_plain("doctor", task, [])
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


def raising(error):
    def task(**_):
        raise error

    return task


def test_a_command_ends_with_the_code_of_what_it_did(capsys):
    assert ended(lambda **_: 0, capsys) == (0, "")
    assert ended(lambda **_: 1, capsys) == (1, "")


def test_a_mistake_and_a_full_disk_end_with_a_message_and_1_and_no_traceback(capsys):
    assert ended(raising(DataError("row 3 is broken")), capsys) == (1, "error: row 3 is broken\n")
    full = OSError(errno.ENOSPC, "No space left on device", "/data/a.jpg")
    code, said = ended(raising(full), capsys)
    assert code == 1
    assert "error: /data/a.jpg cannot be written: No space left on device; make room" in said


def test_a_fault_of_the_library_keeps_its_traceback(capsys):
    with pytest.raises(ZeroDivisionError):
        ended(raising(ZeroDivisionError()), capsys)
    with pytest.raises(OSError, match="odd"):
        ended(raising(OSError(errno.EBADF, "odd")), capsys)
