import pytest
import torch

from mmavlm import train
from mmavlm.callbacks import is_out_of_memory
from support import SMALL

TOO_MANY = 10**15  # numbers


def test_a_real_allocation_that_fails_is_known():
    with pytest.raises(RuntimeError) as failed:
        torch.empty(TOO_MANY)
    assert is_out_of_memory(failed.value)
    with pytest.raises(MemoryError) as failed:
        bytearray(TOO_MANY * 4)
    assert is_out_of_memory(failed.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_a_step_that_takes_too_much_is_told_with_the_estimate_and_what_to_lower(
    run, films, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("mmavlm.stages.FineTune.losses", lambda *_: torch.empty(TOO_MANY))
    assert run(train, "experiment=lvu_genre", *SMALL, f"data.root={films}") == 1
    told = capsys.readouterr().err
    assert "error: out of memory on cpu" in told
    assert "a training step was estimated to take weights" in told
    assert "lower data.batch_size (4)" in told
    assert "qformer.gradient_checkpointing=true" in told
    assert "Traceback" not in told
