"""What a report tells of the making of its run."""

import subprocess

import pytest

from mmavlm.run.facts import commit, shown_duration


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7620, "2 h 7 min")],
)
def test_a_duration_is_told_in_the_units_that_fit(seconds, shown):
    assert shown_duration(seconds) == shown


def test_the_commit_is_that_of_the_folders_repository_and_marked_where_files_changed(tmp_path):
    def git(*words):
        given = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(given, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path) == ""
    git("init")
    (tmp_path / "a.txt").write_text("a")
    git("add", "a.txt")
    git("commit", "-m", "a")
    assert commit(tmp_path) == git("rev-parse", "--short", "HEAD")
    (tmp_path / "a.txt").write_text("b")
    assert commit(tmp_path).endswith("+")
    assert commit(tmp_path / "nowhere") == ""


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(tmp_path) == ""
