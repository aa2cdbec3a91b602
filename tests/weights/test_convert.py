"""Weight files: what is read, refused and written, and the command over it."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import lavis_model
from mmavlm import convert as convert_command
from mmavlm.core import files
from mmavlm.core.errors import CheckpointError
from mmavlm.weights.convert import convert


@pytest.fixture(scope="module")
def tuned():
    """What MA-LMM saves: trained parameters and buffers."""
    state = lavis_model.state_dict()
    return {name: t for name, t in state.items() if not lavis_model.frozen(name)}


@pytest.fixture
def checkpoint(tuned, tmp_path):
    stored = {"model": tuned, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
              "config": {"run": {"seed": 42}}, "scaler": None, "epoch": 3}  # fmt: skip
    torch.save(stored, tmp_path / "checkpoint_best.pth")
    return tmp_path / "checkpoint_best.pth"


def test_the_command_converts_a_checkpoint_there_and_back_and_tells_of_every_key(
    checkpoint, tuned, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments), "partial=true"])
        convert_command.main()
        return capsys.readouterr().out

    told = command(checkpoint, "ours.safetensors", "report=keys.json")
    assert "not there: ViT (visual_encoder.…)\nnot there: language model (llm_model.…)" in told
    assert f"{len(load_file(tmp_path / 'ours.safetensors'))} mapped" in told
    report = json.loads((tmp_path / "keys.json").read_text())
    assert {*report["mapped"], *report["left_out"]} == set(tuned)
    command("ours.safetensors", "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert set(back) == {name for name in tuned if not name.endswith("inv_freq")}
    assert all(torch.equal(tensor, tuned[name]) for name, tensor in back.items())


class Trap:
    def __reduce__(self):
        return print, ("code in a checkpoint ran",)


def test_pickled_code_is_refused_by_name_and_never_runs(tuned, tmp_path, capsys):
    torch.save({"model": {**tuned, "x": Trap()}}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil.pth holds pickled code .* refused .*print"):
        convert(tmp_path / "evil.pth", tmp_path / "ours.safetensors", partial=True)
    assert "ran" not in capsys.readouterr().out
    assert not (tmp_path / "ours.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00" * 64, "cannot be read"),
        (b"PK\x03\x04 and then nothing", "cannot be read"),
        (None, r"does not exist; give a .pth file"),
    ],
)
def test_a_damaged_or_missing_file_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"a.pth .*{message}|a.pth {message}"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors")


@pytest.mark.parametrize("stored", [[1, 2], {"model": {"a": 1}}, {1: torch.zeros(2)}])
def test_what_is_no_state_dict_is_told(tmp_path, stored):
    torch.save(stored, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a.pth holds no state dict; expected"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors")


def test_a_file_of_another_model_says_what_is_expected(tmp_path):
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a.pth do not fit LAVIS's names.*\n.*conv1.weight"):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", partial=True)
    torch.save({"model": {}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"holds no weights that are known; .*Qformer.bert."):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors", partial=True)


def test_a_target_must_say_whose_names_it_takes(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"b.npz ends in neither .safetensors \(ours\) nor"):
        convert(checkpoint, tmp_path / "b.npz")


def test_the_file_before_stays_whole_if_writing_fails(checkpoint, tmp_path, monkeypatch):
    target = tmp_path / "ours.safetensors"
    target.write_bytes(b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"ours.safetensors cannot be .*No space left"):
        convert(checkpoint, target, partial=True)
    assert target.read_bytes() == b"before"
    assert not list(tmp_path.glob(".*"))


def test_what_is_left_out_takes_no_room(checkpoint, tuned, tmp_path):
    convert(checkpoint, tmp_path / "a.safetensors", partial=True)
    state = load_file(tmp_path / "a.safetensors")
    state["alignment.weight"] = torch.zeros(10**6)
    save_file(state, tmp_path / "b.safetensors")
    convert(tmp_path / "b.safetensors", tmp_path / "back.pth", partial=True)
    size = sum(tensor.nbytes for tensor in tuned.values())
    assert (tmp_path / "back.pth").stat().st_size < 2 * size < 4 * 10**6
