"""Damage of stored weights is found before they are used, and sizes before memory is taken."""

import json
import logging
import pickle
import resource
import shutil
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from damage import flip
from mmavlm import evaluate, export, predict, train
from mmavlm.core.checksums import damage_of_zip, damaged_tensors, noted, tell_unverified
from mmavlm.core.errors import CheckpointError
from mmavlm.hub import from_pretrained
from mmavlm.weights.checkpoint import RUN_KEY, read_checkpoint
from mmavlm.weights.convert import read_lavis
from mmavlm.weights.weight_files import WeightFile, write_weights
from support import SMALL, tiny_backbone

NUMBERS = 100_000
STATE = {
    "vision.projector.weight": torch.arange(NUMBERS, dtype=torch.float32).reshape(100, -1),
    "vision.projector.bias": torch.ones(3, dtype=torch.bfloat16),
    "vision.norm.weight": torch.tensor(1.5),
}


def checkpoint(path):
    torch.save({RUN_KEY: {}, "state_dict": STATE}, path)
    return path


def weights(path):
    write_weights(STATE, path)
    return path


def test_what_is_written_is_read_without_complaint(tmp_path):
    assert damage_of_zip(checkpoint(tmp_path / "a.ckpt")) is None
    found = WeightFile(weights(tmp_path / "a.safetensors")).state()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("where", [0.02, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("count", [1, 4096])
def test_bytes_flipped_anywhere_in_a_checkpoint_are_found(tmp_path, where, count):
    path = checkpoint(tmp_path / "a.ckpt")
    flip(path, where, count)
    with pytest.raises(CheckpointError, match=rf"checkpoint {path} cannot be read .*damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize("count", [1, 4096])
def test_bytes_flipped_in_weights_are_found_in_their_part_alone(tmp_path, count):
    path = weights(tmp_path / "a.safetensors")
    flip(path, count=count)
    with pytest.raises(
        CheckpointError, match=r"the checksum of vision\.projector\.weight is another"
    ):
        WeightFile(path).state()
    assert WeightFile(path).state(["vision.norm"]).keys() == {"vision.norm.weight"}


@pytest.mark.parametrize(
    "changed",
    [torch.zeros(2, 3), torch.ones(3, 2), torch.ones(2, 3).int(), torch.ones(6), None],
)
def test_other_values_shapes_and_kinds_have_other_checksums(changed):
    told = noted({"a": torch.ones(2, 3), "b": torch.ones(1)})
    assert damaged_tensors({"a": torch.ones(2, 3)}, told) == []
    assert damaged_tensors({"a" if changed is not None else "c": torch.ones(1)}, told)
    if changed is not None:
        assert damaged_tensors({"a": changed}, told) == ["a"]


@pytest.mark.parametrize("told", ["", "{", "[]", "7"])
def test_checksums_that_cannot_be_read_verify_nothing(told):
    assert damaged_tensors({"a": torch.ones(1)}, told) == ["a"]


def test_older_files_are_taken_and_that_is_said_once(tmp_path, caplog):
    tell_unverified.cache_clear()
    path = tmp_path / "old.safetensors"
    save_file(STATE, path, metadata={"format": "pt"})
    with caplog.at_level(logging.INFO):
        WeightFile(path).state()
        WeightFile(path).state()
    assert caplog.text.count(f"{path} has no checksums") == 1


def packed(path, *, numbers=NUMBERS, kind=zipfile.ZIP_STORED, held=4 * NUMBERS):
    """A checkpoint with one tensor, whose header claims so many numbers, of zeros."""
    state = {RUN_KEY: {}, "state_dict": {"a": torch.zeros(NUMBERS)}}
    torch.save(state, path)
    with zipfile.ZipFile(path) as old:
        records = {name: old.read(name) for name in old.namelist()}
    was, claim = b"J" + struct.pack("<i", NUMBERS), pickle.encode_long(numbers)
    with zipfile.ZipFile(path, "w") as new:
        for name, content in records.items():
            if name.endswith("data.pkl"):
                assert was in content
                content = content.replace(was, b"\x8a" + bytes([len(claim)]) + claim)
            if name.endswith("data/0"):
                content = bytes(held)
            new.writestr(name, content, kind)
    return path


@pytest.mark.parametrize("read", [read_checkpoint, read_lavis])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"numbers": 10**8, "kind": zipfile.ZIP_DEFLATED, "held": 4 * 10**8}, "is compressed"),
        ({"numbers": 10**13}, "does not match expected size|damaged"),
    ],
    ids=["unpacks to more", "claims terabytes"],
)
def test_a_small_file_does_not_take_much_memory(tmp_path, read, settings, message):
    path = packed(tmp_path / "bomb.pth", **settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=message):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.mark.parametrize("claimed", [10**12, 2**62], ids=["terabytes", "more than numbers hold"])
def test_a_header_that_claims_more_than_the_file_is_refused(tmp_path, claimed):
    path = tmp_path / "a.safetensors"
    told = {
        "vision.projector.bias": {
            "dtype": "F32",
            "shape": [claimed],
            "data_offsets": [0, 4 * claimed],
        }
    }
    header = json.dumps(told).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be read"):
        WeightFile(path)
    path.write_bytes(struct.pack("<Q", claimed) + header)
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be read"):
        WeightFile(path)


@pytest.fixture
def damaged(trained, tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_bytes((trained / "checkpoints/best.ckpt").read_bytes())
    flip(path)
    return path


TAKING = [
    (evaluate, ["checkpoint={path}"]),
    (predict, ["checkpoint={path}", "video=a.mp4", "prompt=what"]),
    (export, ["checkpoint={path}", "to=model"]),
    (train, ["experiment=lvu_genre", *SMALL, "data.root={films}", "init.alignment={path}"]),
    (train, ["experiment=lvu_genre", *SMALL, "data.root={films}", "resume={path}"]),
]


@pytest.mark.parametrize(("command", "arguments"), TAKING)
def test_every_command_refuses_a_damaged_checkpoint(
    run, damaged, films, capsys, command, arguments
):
    assert run(command, *(a.format(path=damaged, films=films) for a in arguments)) == 1
    said = capsys.readouterr().err
    assert f"error: checkpoint {damaged} cannot be read (the checksum of its record" in said


def test_an_export_is_refused_whichever_of_its_files_was_damaged(run, trained, tmp_path, capsys):
    assert run(export, f"checkpoint={trained}/checkpoints/best.ckpt", "to=whole") == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        copy = tmp_path / f"of_{name}"
        shutil.copytree("whole", copy)
        if name == "config.json":
            told = json.loads((copy / name).read_text())
            told["run"]["config"]["stage"]["max_new_tokens"] = 1
            (copy / name).write_text(json.dumps(told))
        else:
            flip(copy / name, count=1)
        with pytest.raises(CheckpointError, match=r"the checksum of .* is another"):
            from_pretrained(copy)
        with pytest.raises(CheckpointError, match=r"the checksum of .* is another"):
            read_checkpoint(copy)
    told = json.loads((tmp_path / "whole/config.json").read_text())
    del told["crc32"]
    (tmp_path / "whole/config.json").write_text(json.dumps(told))
    from_pretrained(tmp_path / "whole")
    assert "config.json has no checksums" in capsys.readouterr().err


def test_init_weights_refuses_damage(run, films, tmp_path, capsys):
    write_weights(tiny_backbone().state_dict(), tmp_path / "a.safetensors")
    flip(tmp_path / "a.safetensors")
    arguments = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "test=false"]
    assert run(train, *arguments, f"init.weights={tmp_path}/a.safetensors") == 1
    assert "a.safetensors cannot be read (the checksum of" in capsys.readouterr().err
