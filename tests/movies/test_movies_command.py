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
    with pytest.raises(SystemExit) as stop:
        main(["clips=3"])
    assert stop.value.code == 1
    assert "error: the following arguments are required: out; see" in capsys.readouterr().err


def test_command_tells_stories(tmp_path, capsys):
    main([f"out={tmp_path}", "kind=stories", "films=3", "fan_out=1,2,3", "size=32"])
    assert json.loads((tmp_path / "set.json").read_text())["settings"]["fan_out"] == [1, 2, 3]
    assert (tmp_path / "train.jsonl").is_file()


def test_command_makes_a_biased_set_and_prints_its_statistics(tmp_path, capsys):
    main([f"out={tmp_path}", "kind=bias", "films=40", "frames=1", "size=32", "bias=1.0"])
    printed = capsys.readouterr().out
    assert "plant → bin" in printed
    assert "1.000" in printed
    assert (tmp_path / "pope" / "pope_adversarial.jsonl").is_file()


@pytest.mark.parametrize(
    ("kind", "pair"), [("bias_order", "plant → bin"), ("bias_sound", "cat → meow")]
)
def test_command_makes_other_kinds_of_planted_bias(tmp_path, capsys, kind, pair):
    main([f"out={tmp_path}", f"kind={kind}", "films=40", "size=32", "bias=1.0"])
    printed = capsys.readouterr().out
    assert pair in printed
    assert "1.000" in printed
    assert json.loads((tmp_path / "set.json").read_text())["settings"]["bias"] == 1.0


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["kind=stories", "text=endpoint", "model=m"], "text=endpoint needs base_url="),
        (["kind=stories", "text=transformers"], "text=transformers needs model="),
        (["kind=bias_order", "films=4"], "films=4 is below 40"),
        (["kind=bias_sound", "scenes=2"], "there is no setting scenes of kind=bias_sound"),
        (["kind=bias", "image=diffusers"], "image=diffusers needs image_model="),
        (["kind=stories", "fan_out=1,1,1"], "fan_out=1,1,1 cannot be told"),
    ],
)
def test_command_says_what_a_generator_lacks(tmp_path, capsys, settings, complaint):
    with pytest.raises(SystemExit):
        main([f"out={tmp_path}", *settings])
    assert complaint in capsys.readouterr().err


def test_command_refuses_settings_of_another_kind(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([f"out={tmp_path}", "kind=stories", "clips=3"])
    assert "there is no setting clips of kind=stories; did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_command_refuses_a_file_as_its_folder(tmp_path, capsys, out):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main([f"out={tmp_path / out}", *SMALL])
    assert stop.value.code == 1
    assert f"{tmp_path / 'file'} is a file; give a folder" in capsys.readouterr().err


KINDS = {
    "lvu": ["clips=3", "duration_s=4", "fps=2", "size=32"],
    "stories": ["films=3", "fan_out=1,1,2", "fps=2", "size=32"],
    "bias": ["films=40", "frames=1", "size=32"],
    "bias_order": ["films=40", "size=32"],
    "bias_sound": ["films=40", "size=32"],
    "duet": ["films=3", "size=32"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["train.jsonl", "captions/test.json"])
def test_tables_of_a_user_are_never_written_over(tmp_path, capsys, kind, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main([f"out={tmp_path}", f"kind={kind}", *KINDS[kind]])
    assert stop.value.code == 1
    assert f"holds {name}, which the movie generator did not make" in capsys.readouterr().err
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert path.read_text() == "mine"


def test_a_set_that_was_broken_off_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    def broken_off(*_, **__):
        raise KeyboardInterrupt

    line = [f"out={tmp_path}", "kind=stories", *KINDS["stories"]]
    with monkeypatch.context() as patched:
        patched.setattr("mmavlm.movies.stories.make.llamavid_row", broken_off)
        with pytest.raises(SystemExit, match="130"):
            main(line)
    assert (tmp_path / "train.jsonl").is_file()
    main(line)
    assert (tmp_path / "set.json").is_file()
    assert not (tmp_path / ".making").exists()
    main(line)
