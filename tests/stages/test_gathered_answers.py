"""Answers of several processes become one file, wherever their own files lie."""

import pytest

from mmavlm.core.interfaces import Answer
from mmavlm.core.keys import string_key
from mmavlm.metrics import Prediction, read_predictions
from mmavlm.stages.answer_file import AnswerFile
from mmavlm.stages.predictions import PredictionLog
from ranks import be_rank, spawn_ranks
from support import random_batch

NAMES = [f"item {number}" for number in range(7)]


def row(item):
    return Prediction(item, "v", "qa", "what?", "a", [Answer("x", -0.1)], [], ["a"])


def worker(rank, port, folder, named):
    import numpy as np
    import torch

    be_rank(rank, port)
    torch.distributed.init_process_group("gloo")
    file = AnswerFile.begun(folder / f"{rank}_of_2.jsonl", {}) if named else None
    order = np.array([string_key(name) for name in NAMES], np.int64)
    log = PredictionLog(file, order)
    # as a sampler shares them out: the last process begins with the first items again
    for number, name in enumerate([*NAMES, NAMES[0]][rank::2]):
        log.begin(number)
        log.extend([row(name)], random_batch((2,)))
    log.gather()
    if rank == 0:
        log.write(folder / "predictions.jsonl")
        log.remove()
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
@pytest.mark.parametrize("named", [True, False], ids=["on one disk", "each on its own"])
def test_rows_of_all_processes_stand_in_the_order_of_the_split(tmp_path, named):
    spawn_ranks(worker, tmp_path, named)
    assert read_predictions(tmp_path / "predictions.jsonl") == [row(name) for name in NAMES]
    assert list(tmp_path.glob("*_of_2.jsonl")) == []
