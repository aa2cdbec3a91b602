import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import chaos


@pytest.mark.slow
def test_killed_runs_end_like_the_undisturbed_one(tmp_path, monkeypatch, capsys):
    arguments = ["--kills", 3, "--clips", 60, "--epochs", 2, "--folder", tmp_path, "--json"]
    monkeypatch.setattr(sys, "argv", ["chaos", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        chaos.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["faults"] == []
    assert end.value.code == 0
    assert (told["kills"], told["equal"]) == (3, 3)


def test_values_are_equal_bit_for_bit():
    one = {"weights": torch.ones(3), "groups": [{"lr": 0.1}, (1, 2)]}
    assert chaos.equal(one, {"weights": torch.ones(3), "groups": [{"lr": 0.1}, (1, 2)]})
    nearly = torch.ones(3)
    nearly[1] += 2**-23
    assert not chaos.equal(one, one | {"weights": nearly})
    assert not chaos.equal(one, one | {"groups": [{"lr": 0.1}, (1, 3)]})
    assert not chaos.equal(one, {"weights": torch.ones(3)})


def test_what_differs_between_runs_is_named(tmp_path):
    for name, value in (("one", 1.0), ("two", 1.0), ("three", 2.0)):
        for inside in chaos.STAGES.values():
            folder = tmp_path / name / inside
            (folder / "checkpoints").mkdir(parents=True)
            held = {key: torch.tensor(value) for key in chaos.COMPARED}
            for file in ("last.ckpt", "best.ckpt"):
                torch.save(held, folder / "checkpoints" / file)
            (folder / "metrics.json").write_text(str(value))
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    assert chaos.differences(one, two) == []
    found = chaos.differences(one, three)
    assert "state_dict of last.ckpt of FineTune" in found
    assert "metrics.json of SemanticAlignment" in found
    (two / "checkpoints/best.ckpt").unlink()
    assert chaos.differences(one, two) == ["FineTune has no best.ckpt"]


def test_a_stage_that_had_ended_when_it_was_killed_has_lost_nothing():
    killed = chaos.Kill(0, "SIGKILL", chaos.FIRST_STAGE, "test", 6, -9)
    anew = "resume=auto: no checkpoint in runs/0/checkpoints, the run starts anew"
    assert chaos.with_resumption(killed, anew).lost is None
    first_anew = anew.replace("0/", f"0/{chaos.FIRST}/")
    assert chaos.with_resumption(killed, first_anew).lost == 6
    on = "resume=auto: the run goes on from runs/0/demo_alignment/checkpoints/step.ckpt (step 4)"
    assert chaos.with_resumption(killed, on).lost == 2
