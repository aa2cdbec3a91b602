"""Answers of a test on disk: whatever is cut off, whole batches are left."""

import numpy as np
import pytest

from mmavlm.core.interfaces import Answer
from mmavlm.core.keys import string_key
from mmavlm.metrics import Prediction, read_predictions
from mmavlm.stages.answer_file import AnswerFile, Told
from mmavlm.stages.predictions import PredictionLog
from support import random_batch

HEADER = {"weights": "w", "seed": 1}


def row(item):
    return Prediction(item, "v", "qa", "what?", "a\u2028b", [Answer("ü\n", -0.1)], [], ["a", "ü"])


def batch_of(number, *items):
    return Told(
        [row(item) for item in items], [("", 0.1 * number, len(items))], {"habit": [number]}
    )


@pytest.fixture
def path(tmp_path):
    """A file of three batches, the second of which is to be asked again."""
    path = tmp_path / "answers/0_of_1.jsonl"
    file = AnswerFile.begun(path, HEADER)
    file.append(0, batch_of(0, "a", "b"))
    file.append(1, batch_of(1, "c"), again=True)
    file.append(2, batch_of(2, "d", "e"))
    return path


def test_what_was_written_is_read_as_it_was_but_for_what_is_asked_again(path):
    file = AnswerFile.begun(path, HEADER)
    assert [place.batch for place in file.places] == [0, 2]
    assert [file.told(place) for place in file.places] == [
        batch_of(0, "a", "b"), batch_of(2, "d", "e"),
    ]  # fmt: skip
    assert list(file.keys) == [string_key(item) for item in "abde"]


def test_a_file_cut_anywhere_holds_the_batches_before_and_goes_on_behind_them(path):
    content = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == 10]
    header, first, _, last = ends[0], ends[3], ends[5], ends[8]
    for cut in range(header, last):
        path.write_bytes(content[:cut])
        file = AnswerFile.begun(path, HEADER)
        assert [place.batch for place in file.places] == ([0] if cut >= first else [])
        file.append(7, batch_of(7, "z"))
        assert AnswerFile.begun(path, HEADER).places[-1].batch == 7


def test_rows_that_a_disk_has_damaged_are_left_out(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"item_id": "b"', b'"item_id": "x"'))
    assert AnswerFile.begun(path, HEADER).places == []


def test_a_header_that_is_torn_begins_anew_and_another_one_is_told(path, caplog):
    path.write_bytes(path.read_bytes()[:5])
    assert AnswerFile.begun(path, HEADER).places == []
    assert not caplog.messages
    AnswerFile.begun(path, HEADER).append(0, batch_of(0, "a"))
    assert AnswerFile.begun(path, {**HEADER, "seed": 2}).places == []
    assert caplog.messages[-1].endswith("which are not taken, since these differ: seed")


def test_a_log_writes_each_item_once_in_the_order_of_the_split(tmp_path):
    names = [f"item {number}" for number in range(200)]
    order = np.array([string_key(name) for name in names], np.int64)
    log = PredictionLog(AnswerFile.begun(tmp_path / "answers.jsonl", HEADER), order)
    shuffled = np.random.default_rng(0).permutation(np.repeat(np.arange(200), 2))
    for number, part in enumerate(np.split(shuffled, 200)):
        log.begin(number)
        log.extend([row(names[i]) for i in part], random_batch((2, 2)))
    log.gather()
    log.write(tmp_path / "predictions.jsonl")
    written = read_predictions(tmp_path / "predictions.jsonl")
    assert written == [row(name) for name in names]
    assert list(log.read()) == written
    log.remove()
    assert not (tmp_path / "answers.jsonl").exists()
    assert list(log.read()) == written


def test_a_log_without_an_answer_writes_no_file(tmp_path):
    log = PredictionLog()
    log.gather()
    log.write(tmp_path / "predictions.jsonl")
    assert not (tmp_path / "predictions.jsonl").exists()
    assert list(log.read()) == []
