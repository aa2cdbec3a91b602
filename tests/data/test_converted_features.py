"""LLaMA-VID's pickles become files that runs read, and hostile ones nothing."""

import io
import os
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from mmavlm.convert import main
from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Line, Shown
from mmavlm.data.collate import collate
from mmavlm.data.dataset import VideoDataset
from mmavlm.data.feature_pickles import read_film_pickle

FRAMES, TOKENS, WIDTH = 6, 17, 8
TEXT = "<image>Who is there? <image><image>It is\n me. <image><image><image> Oh."
SAID = {0: "Who is there?", 2: "It is me.", 5: "Oh."}


def features(dtype=np.float16):
    return np.random.default_rng(0).normal(size=(FRAMES, TOKENS, WIDTH)).astype(dtype)


def pickled(path, value, protocol=4, numpy=b"numpy._core"):
    """A pickle of a value, with the names that one of numpy's versions gives its parts."""
    content = pickle.dumps(value, protocol=protocol)
    written = b"numpy._core" if b"numpy._core" in content else b"numpy.core"
    if numpy != written:
        for suffix in (b".multiarray", b".numeric"):  # each behind its length, or on a line
            was, becomes = written + suffix, numpy + suffix
            content = content.replace(bytes([len(was)]) + was, bytes([len(becomes)]) + becomes)
            content = content.replace(b"c" + was + b"\n", b"c" + becomes + b"\n")
        content = unframed(content)
    path.write_bytes(content)
    return path


def unframed(content):
    """A pickle without frames, whose lengths others may have changed."""
    while (at := content.find(b"\x95")) >= 0 and content[at + 6 : at + 9] == b"\0\0\0":
        content = content[:at] + content[at + 9 :]
    return content


def film(folder, name, **settings):
    source = folder / f"{name}.safetensors"
    return Item.question(
        item_id=name, video_id=name, source=source, prompt="why?", target="so", task="open",
        **settings,
    )  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("numpy", [b"numpy.core", b"numpy._core"])
def test_what_a_run_reads_is_what_the_pickle_held(tmp_path, protocol, numpy, capsys):
    held = features()
    path = pickled(tmp_path / "a.pkl", {"feats": held, "inputs": TEXT}, protocol, numpy)
    assert numpy + b"." in path.read_bytes()
    main([str(path), str(tmp_path / "out")])
    assert f"6 frames of {TOKENS}×{WIDTH}, 3 subtitles" in capsys.readouterr().out
    (sample,) = VideoDataset(
        [film(tmp_path / "out", "a")], num_frames=8, image_size=32, subtitles=True
    )
    (seen,) = sample.films
    assert torch.equal(seen.frames, torch.from_numpy(held))
    assert seen.timestamps_s.tolist() == [0, 1, 2, 3, 4, 5]
    batch = collate([sample])
    assert batch.frames is None
    assert torch.equal(batch.features[0], torch.from_numpy(held))


@pytest.mark.parametrize("fps", [1, 3, 10, 23.976, 240])
def test_what_is_said_stands_behind_its_frame_at_any_rate(tmp_path, fps):
    path = pickled(tmp_path / "a.pkl", {"feats": features(), "inputs": "Oh, " + TEXT})
    main([str(path), str(tmp_path), f"fps={fps}"])
    (sample,) = VideoDataset([film(tmp_path, "a")], num_frames=8, image_size=32, subtitles=True)
    shown, said = 0, {}
    for part in sample.item.conversation.turns[0].parts:
        if isinstance(part, Shown):
            shown = part.frames[1]
        elif isinstance(part, Line):
            said[shown - 1] = part.text
    assert said == {**SAID, 0: "Oh, Who is there?"}


def test_fewer_frames_are_those_nearest_to_their_times_and_a_part_is_its_own(tmp_path):
    held = features()
    path = pickled(tmp_path / "a.pkl", {"feats": held, "inputs": TEXT})
    main([str(path), str(tmp_path)])
    items = [film(tmp_path, "a"), film(tmp_path, "a", start_s=2.0, end_s=4.0)]
    few, part = VideoDataset(items, num_frames=3, image_size=32)
    for sample, rows in ((few, [0, 2, 5]), (part, [2, 3])):
        assert torch.equal(sample.films[0].frames, torch.from_numpy(held[rows]))


def test_what_torch_saved_is_read_as_weights_are(tmp_path):
    held = torch.from_numpy(features())
    torch.save({"feats": held, "inputs": TEXT}, tmp_path / "a.pkl")
    found = read_film_pickle(tmp_path / "a.pkl")
    assert torch.equal(found.features, held)
    assert found.text == TEXT
    torch.save({"feats": held[:1, :1, :1].expand(10**6, 257, 1408), "inputs": TEXT}, tmp_path / "b")
    with pytest.raises(DataError, match="claim to be"):
        read_film_pickle(tmp_path / "b")
    torch.save({"feats": held, "inputs": Hostile(os.system, "touch ran")}, tmp_path / "c")
    with pytest.raises(DataError, match=r"(posix|nt)\.system"):
        read_film_pickle(tmp_path / "c")


class Hostile:
    """What calls something when it is loaded."""

    def __init__(self, called, *arguments):
        self.called = called, arguments

    def __reduce__(self):
        return self.called


def touches(path):
    return f"open({str(path)!r}, 'w').close()"


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        (lambda ran: Hostile(os.system, f"touch {ran}"), r"(posix|nt)\.system"),
        (lambda ran: Hostile(eval, touches(ran)), r"(__builtin__|builtins)\.eval"),
        (lambda ran: Hostile(exec, touches(ran)), r"(__builtin__|builtins)\.exec"),
        (lambda ran: Hostile(list, Hostile(eval, touches(ran))), r"\.(eval|list)"),
        (lambda ran: Hostile(np.load, str(ran)), r"numpy.*load"),
        (lambda ran: Medium(medium_id="a", source=ran), r"(mmavlm|copy_?reg|copyreg|pathlib)"),
    ],
    ids=["system", "eval", "exec", "nested", "numpy", "ours"],
)
def test_a_hostile_pickle_is_refused_by_name_and_nothing_of_it_runs(
    tmp_path, hostile, named, protocol
):
    ran = tmp_path / "ran"
    value = {"feats": features(), "inputs": TEXT, "more": [hostile(ran)]}
    path = pickled(tmp_path / "a.pkl", value, protocol)
    with pytest.raises(DataError, match=named) as refused:
        read_film_pickle(path)
    assert "refused" in str(refused.value)
    assert str(path) in str(refused.value)
    assert not ran.exists()


def reconstructed(shape, raw, kind=b"f2"):
    """A pickle of protocol 4 whose array has this shape and these bytes."""
    array = np.zeros(1, np.float16)
    content = io.BytesIO()
    writer = pickle.Pickler(content, protocol=4)
    writer.dump({"feats": Claimed(array, shape, raw), "inputs": TEXT})
    return content.getvalue().replace(b"f2", kind)


class Claimed:
    def __init__(self, array, shape, raw):
        self.parts = array, shape, raw

    def __reduce__(self):
        array, shape, raw = self.parts
        build, arguments, (version, _, dtype, fortran, _) = array.__reduce__()
        return build, arguments, (version, shape, dtype, fortran, raw)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (reconstructed((10**9, 257, 1408), b"12"), "claims .* and has 2 bytes"),
        (reconstructed((-1, 1, -1), b"12"), "has the shape"),
        (reconstructed((1, 1, 1), [object]), r"\.object"),
        (reconstructed((1, 1, 1), b"12345678", b"O8"), "'O8', which is refused"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "claims 1099511627776 bytes"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "claims 1099511627776 bytes"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.", "claims 1099511627776 bytes"),
        (b"\x80\x04Nr" + struct.pack("<I", 2**32 - 1) + b".", "as number 4294967295"),
        (b"\x80\x04" + b"}" * 200_000 + b".", "opcode 100001, EMPTY_DICT, is refused"),
        (b"\x80\x04cnumpy\ndtype\n}\x8c\x05_callNsb.", "no attribute '__dict__'"),
        (b"\x80\x04cnumpy\ndtype\nN}\x8c\x05_callNs\x86b.", "sets _call"),
        (b"\x80\x02P1\n.", "PERSID, is refused"),
        (pickle.dumps([1, 2]), "is no"),
        (pickle.dumps({"feats": "x", "inputs": "y"}), "expected an array and a text"),
        (b"", "claims 1 bytes where 0 are left"),
        (b"PK\x03\x04", "zip"),
    ],
)
def test_a_pickle_that_claims_more_than_it_has_is_refused_before_memory_is_taken(
    tmp_path, content, reason
):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as refused:
        read_film_pickle(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("feats", "text", "more", "reason"),
    [
        (features(), "<image>" * 5, [], "6 frames and 5 placeholders '<image>'"),
        (features(), TEXT, ["placeholder=<v>"], "6 frames and 0 placeholders '<v>'"),
        (features()[0], TEXT, [], r"expected \(T,P,Dv\)"),
        (features(np.float32) * np.float32(1e6), TEXT, [], "beyond float16"),
        (features(), TEXT, ["fps=0"], "fps=0 is no rate"),
    ],
)
def test_a_mistake_ends_with_its_message_and_leaves_no_film(
    tmp_path, feats, text, more, reason, capsys
):
    path = pickled(tmp_path / "a.pkl", {"feats": feats, "inputs": text})
    with pytest.raises(SystemExit):
        main([str(path), str(tmp_path / "out"), *more])
    assert re.search(reason, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.glob("out/*.safetensors"))


def test_nothing_but_the_command_that_converts_reads_a_pickle_of_features():
    sources = (Path(__file__).parents[2] / "src").rglob("*.py")
    reading = {"feature_pickles", "converted_features"}
    naming = {p.stem for p in sources if any(name in p.read_text() for name in reading)}
    assert naming == {"converted_features", "convert"}
