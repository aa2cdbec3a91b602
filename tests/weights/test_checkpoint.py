import logging
import os
import zipfile

import pytest
import torch
from torch import nn

from damage import flip
from mmavlm.callbacks import WholeCheckpoints
from mmavlm.core.errors import CheckpointError
from mmavlm.weights.checkpoint import (
    GATHERING_KEY,
    RUN_KEY,
    load_trainable,
    newest_checkpoint,
    read_checkpoint,
    trainable_state,
)


def model():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    module[0].requires_grad_(False)
    return module


def test_trainable_weights_go_there_and_back():
    one, other = model(), model()
    with torch.no_grad():
        one[1].weight.add_(1)
    assert load_trainable(other, trainable_state(one), "x") == []
    assert torch.equal(one[1].weight, other[1].weight)
    assert set(trainable_state(one)) == {"1.weight", "1.bias"}


class Fitted(nn.Module):
    fitted = ("scale",)

    def __init__(self, scale):
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.register_buffer("scale", torch.tensor([scale]))
        self.register_buffer("other", torch.tensor([scale]))


@pytest.mark.parametrize("wrapped", [False, True], ids=["itself", "a part"])
def test_buffers_that_are_fitted_go_with_the_weights(wrapped):
    one, other = Fitted(2.0), Fitted(1.0)
    modules = (nn.Sequential(one), nn.Sequential(other)) if wrapped else (one, other)
    state = trainable_state(modules[0])
    assert {name.removeprefix("0.") for name in state} == {"layer.weight", "layer.bias", "scale"}
    load_trainable(modules[1], state, "x")
    assert (other.scale.item(), other.other.item()) == (2, 1)


def test_a_checkpoint_of_before_a_buffer_was_fitted_leaves_it_and_one_of_another_size_is_refused():
    module = Fitted(1.0)
    state = trainable_state(Fitted(2.0))
    with pytest.raises(CheckpointError, match="shape of scale"):
        load_trainable(module, state | {"scale": torch.ones(2)}, "x")
    del state["scale"]
    assert load_trainable(module, state, "x") == []
    assert module.scale.item() == 1
    assert torch.equal(module.layer.bias, state["layer.bias"])


def test_every_key_that_differs_is_named_and_nothing_is_copied():
    module = model()
    before = module[1].bias.clone()
    state = {"1.weight": torch.zeros(9, 3), "1.bias": torch.ones(4), "2.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError) as error:
        load_trainable(module, state, "checkpoint a.ckpt")
    text = str(error.value)
    assert "a.ckpt is of another architecture (2 keys differ)" in text
    assert "unexpected: 2.weight" in text
    assert "shape of 1.weight: (9, 3) in the checkpoint, (4, 3) here" in text
    assert torch.equal(module[1].bias, before)
    with pytest.raises(CheckpointError, match=r"missing: 1\.bias"):
        load_trainable(module, {"1.weight": torch.zeros(4, 3)}, "x")


def test_a_part_that_may_differ_keeps_its_weights_and_is_told():
    module = model()
    before = module[1].bias.clone()
    absent = load_trainable(module, {"1.weight": torch.zeros(4, 3)}, "x", may_differ=("1.bias",))
    assert absent == ["1.bias"]
    assert torch.equal(module[1].bias, before)
    assert not module[1].weight.any()


def test_a_missing_checkpoint_says_what_to_give(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone.ckpt does not exist; give the path"):
        read_checkpoint(tmp_path / "gone.ckpt")


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "bad.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"bad.ckpt cannot be read"):
        read_checkpoint(tmp_path / "bad.ckpt")


def test_a_checkpoint_of_a_gpu_is_read_on_a_cpu(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({RUN_KEY: {}, "state_dict": {"a": torch.arange(5.0)}}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            # where torch notes the device that a storage was on
            archive.writestr(name, content.replace(b"\3\0\0\0cpu", b"\6\0\0\0cuda:7"))
    for read in (read_checkpoint, WholeCheckpoints().load_checkpoint):
        assert torch.equal(read(path)["state_dict"]["a"], torch.arange(5.0))
    if torch.cuda.device_count() < 8:
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)


class Malicious:
    def __reduce__(self):
        return (print, ("pickled code ran",))


def test_pickled_code_is_refused_and_does_not_run(tmp_path, capsys):
    torch.save({RUN_KEY: Malicious()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="holds pickled code, which is refused"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert "pickled code ran" not in capsys.readouterr().out


def test_a_foreign_checkpoint_is_told_from_ours(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="was not written by mmavlm"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_the_newest_checkpoint_is_one_to_go_on_with(tmp_path, caplog):
    def write(name, at_s, **held):
        torch.save({RUN_KEY: {}, "name": name, **held}, tmp_path / name)
        os.utime(tmp_path / name, (at_s, at_s))

    assert newest_checkpoint([tmp_path]) is None
    write("last.ckpt", 1)
    write("step.ckpt", 2)
    write("best.ckpt", 3, **{GATHERING_KEY: True})
    write("before_damage.ckpt", 4)
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:100])
    write("flipped.ckpt", 5, weights=torch.ones(5000))
    flip(tmp_path / "flipped.ckpt")
    with caplog.at_level(logging.INFO):
        path, held = newest_checkpoint([tmp_path, tmp_path / "gone"])
    assert (path, held["name"]) == (tmp_path / "step.ckpt", "step.ckpt")
    assert f"passed over: checkpoint {tmp_path / 'cut.ckpt'} cannot be read" in caplog.text
    assert f"passed over: checkpoint {tmp_path / 'flipped.ckpt'} cannot be read" in caplog.text
    assert f"passed over: {tmp_path / 'best.ckpt'} was written between two batches" in caplog.text
