import json

import pytest

from mmavlm.movies.__main__ import main

SMALL = ["clips=3", "duration_s=2", "fps=5", "size=32", "workers=0"]


def test_command_makes_the_set_it_is_asked_for(tmp_path, capsys):
    main([f"out={tmp_path / 'set'}", "--seed", "4", *SMALL])
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert (manifest["clips"], manifest["seed"], manifest["size"]) == (3, 4, 32)
    assert str(tmp_path / "set") in capsys.readouterr().out.replace("\n", "")


def test_command_tells_a_mistake_without_a_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([f"out={tmp_path}", "clips=1"])
    assert stop.value.code == 1
    assert "error: movie set: clips=1 cannot be made" in capsys.readouterr().err


def test_command_needs_a_folder(capsys):
    with pytest.raises(SystemExit):
        main(["clips=3"])
    assert "--out" in capsys.readouterr().err
