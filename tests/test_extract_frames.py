from mmavlm import extract_frames


def main(arguments):
    """The exit code of the command."""
    try:
        extract_frames.main(arguments)
    except SystemExit as stop:
        return stop.code
    return 0


def arguments(root, *more):
    return [f"videos={root / 'videos'}", f"frames={root / 'frames'}", *more]


def pictures(folder):
    return sorted(path.name for path in folder.glob("*.jpg"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_broken_films_are_named_and_counted_and_the_others_extracted(make_clip, tmp_path, capsys):
    make_clip("videos/a.mp4", 12)
    make_clip("videos/page/b.mkv", 5)
    (tmp_path / "videos" / "empty.mp4").touch()
    assert main(arguments(tmp_path, "workers=2", "short_side=24")) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "empty.mp4 is empty (0 bytes)" in shown
    assert "2 films extracted, 0 were complete, 1 failed" in shown
    assert len(pictures(tmp_path / "frames" / "a")) == 12
    assert len(pictures(tmp_path / "frames" / "page" / "b")) == 5
    assert names(tmp_path / "frames") == ["a", "page"]
    (tmp_path / "videos" / "empty.mp4").unlink()
    assert main(arguments(tmp_path, "workers=2", "short_side=24")) == 0
    assert "0 films extracted, 2 were complete, 0 failed" in capsys.readouterr().err


def test_folders_of_other_settings_are_refused_and_those_that_do_not_say_are_taken(
    make_clip, tmp_path, capsys
):
    for name in ("a", "b"):
        make_clip(f"videos/{name}.mp4", 2)
    (tmp_path / "frames" / "b").mkdir(parents=True)
    assert main(arguments(tmp_path, "workers=1", "fps=5")) == 0
    assert main(arguments(tmp_path, "fps=5")) == 0
    capsys.readouterr()
    assert main(arguments(tmp_path)) == 1
    error = capsys.readouterr().err
    assert "frames/a was extracted with fps=5 short_side=256 quality=95" in error
    assert "but fps=10 short_side=256 quality=95 is asked for (1 folders differ)" in error


def test_a_mistake_of_the_user_ends_with_its_message_and_1(tmp_path, capsys):
    assert main(arguments(tmp_path)) == 1
    assert "error: videos=" in capsys.readouterr().err
