import shlex
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from mmavlm.commands.help import command_help, overview, plain_help
from mmavlm.commands.mistakes import refuse_mistakes
from mmavlm.commands.plain import read_plain
from mmavlm.commands.plain_verbs import PLAIN
from mmavlm.commands.verbs import COMMANDS
from mmavlm.core.config_files import (
    choices,
    config_dir,
    groups,
    headline,
    settings,
    settings_of_choice,
)
from mmavlm.core.errors import ConfigError
from mmavlm.movies import __main__ as movies

CONFIGS = sorted({config for command in COMMANDS.values() for config in command.configs})
WITH_CONFIG = [verb for verb, command in COMMANDS.items() if command.configs]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_and_group_of_a_command_has_a_sentence(config):
    path = config_dir() / f"{config}.yaml"
    silent = [found.key for found in (*settings(path), *groups(path)) if not found.says]
    assert silent == []
    assert headline(path)


@pytest.mark.parametrize("group", [path.name for path in config_dir().iterdir() if path.is_dir()])
def test_every_choice_says_what_it_is(group):
    silent = [c for c in choices(group) if not headline(config_dir() / group / f"{c}.yaml")]
    assert silent == []


@pytest.mark.parametrize("config", CONFIGS)
def test_what_help_lists_is_what_there_is_to_set(config):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        composed = compose(config)
        main = {one.key for one in settings(config_dir() / "train.yaml") if config != "score"}
    listed = {one.key.partition(".")[0] for one in settings(config_dir() / f"{config}.yaml")} | main
    of_groups = {"encoder", "text_encoder", "prompt_tokenizer", "qformer", "llm", "pretrained",
                 "qformer_queries", "cross_layers"}  # fmt: skip
    named = {group.key for group in groups(config_dir() / "train.yaml")}
    assert set(composed) - named - of_groups == {key for key in listed if "." not in key}


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_shows_lines_of_settings_that_exist_five_if_there_is_a_config(verb):
    command = COMMANDS[verb]
    assert len(command.lines) == 5 or verb in PLAIN
    shown = plain_help(verb) if verb in PLAIN else command_help(verb) if verb != "movies" else ""
    for line in command.lines:
        arguments = shlex.split(line, comments=True)
        if verb in PLAIN:
            assert f"mmavlm {verb} {line}".strip() in shown
            read_plain(verb, arguments)
            continue
        if verb == "movies":
            kind = next((a[5:] for a in arguments if a.startswith("kind=")), "lvu")
            movies._options(kind, [f"--{a}" for a in arguments if not a.startswith("kind=")])
            continue
        assert f"mmavlm {verb} {line}\n" in shown
        quoted = [f"prompt='{a[7:]}'" if a.startswith("prompt=") else a for a in arguments]
        without_model = {"predictions", "compare"} & {a.partition("=")[0] for a in arguments}
        refuse_mistakes("score" if without_model else command.configs[-1], quoted)


@pytest.mark.parametrize("verb", WITH_CONFIG)
def test_help_on_all_says_what_a_command_does_sets_and_chooses(verb):
    shown = command_help(verb, ["all"])
    assert COMMANDS[verb].does in shown
    joined = " ".join(shown.split())
    for config in COMMANDS[verb].configs:
        for found in settings(config_dir() / f"{config}.yaml"):
            assert found.says in joined
    for group in groups(config_dir() / "train.yaml"):
        assert f"{group.says}: {', '.join(choices(group.key))}" in joined


@pytest.mark.parametrize("verb", WITH_CONFIG)
def test_help_tells_how_settings_are_written_and_what_is_its_own(verb):
    shown = command_help(verb)
    joined = " ".join(shown.split())
    assert "How settings are written: key=value" in joined
    assert f"mmavlm {verb} --help all" in shown
    for config in COMMANDS[verb].configs:
        for found in settings(config_dir() / f"{config}.yaml") if config != "train" else ():
            assert found.says in joined
    assert all(group.key in joined for group in groups(config_dir() / "train.yaml"))


def test_help_on_training_is_a_screen_for_who_has_never_seen_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = command_help("train").splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    shown = "\n".join(lines)
    for wanted in ("experiment=demo", '"video": "clips/dog.mp4"', "report.html", "resume=auto",
                   "outputs/<date>/<time>", "--help experiment"):  # fmt: skip
        assert wanted in shown


@pytest.mark.parametrize("verb", PLAIN)
def test_help_of_a_command_without_a_config_tells_all_that_it_takes(verb):
    shown = plain_help(verb)
    joined = " ".join(shown.split())
    assert PLAIN[verb].does in joined
    for word in PLAIN[verb].words:
        assert f"<{word.key}>" in shown
        assert word.says in joined
    for setting in PLAIN[verb].settings:
        assert f"  {setting.key}=" in shown
        assert setting.says in joined
        assert all(choice in joined for choice in setting.choices)


def test_help_on_a_group_lists_choices_and_the_settings_of_one():
    shown = " ".join(command_help("train", ["data=own_videos"]).split())
    assert "data=lvu LVU in MA-LMM's layout" in shown
    assert "data.num_frames=20 frames a clip" in shown
    assert "data.reader.closed=[] tasks whose answers are classes, to be ranked" in shown
    assert "data.max_broken=0.01 share of videos that may be broken" in shown, "of what it extends"
    assert "_target_" not in shown
    experiment = command_help("train", ["experiment=demo"])
    assert "  data.num_frames=8" in experiment, "it sets settings of all groups"


def test_a_group_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match=r"--help dta: there is no such group; nearest are data"):
        command_help("train", ["dta"])
    with pytest.raises(ConfigError, match=r"data=lvuu: there is no such choice; nearest are lvu"):
        command_help("train", ["data=lvuu"])


def test_the_overview_names_every_command():
    shown = overview()
    assert all(f"\n{verb} " in shown for verb in COMMANDS)


def test_comments_behind_above_and_below_a_setting_are_what_it_says(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/base.yaml").write_text("# The base.\na: 1  # one\nb: 2  # two\n")
    (tmp_path / "data/mine.yaml").write_text(
        "# @package _global_\n# Mine, of\n# two lines.\ndefaults:\n  - base\n  - _self_\n"
        "a: '#3'\n# above\nc: {x: 1}\nd:  # holds\n  e: [1, 2]  # a list,\n"
        "                # and more\n  f: null\nhydra:\n  g: 1  # not told\n"
    )
    monkeypatch.setattr("mmavlm.core.config_files.config_dir", lambda: tmp_path)
    assert headline(tmp_path / "data/mine.yaml") == "Mine, of two lines."
    found = {one.key: (one.value, one.says) for one in settings_of_choice("data", "mine")}
    assert found == {
        "a": ("'#3'", "one"),
        "b": ("2", "two"),
        "c": ("{x: 1}", "above"),
        "d": ("", "holds"),
        "d.e": ("[1, 2]", "a list, and more"),
        "d.f": ("null", ""),
    }


def test_who_reads_no_further_than_the_first_line_ends_the_overview_in_silence():
    line = f"{sys.executable} -m mmavlm | head -1"
    for _ in range(3):
        done = subprocess.run(line, shell=True, capture_output=True, text=True)
        assert (done.stdout.count("\n"), done.stderr) == (1, "")
