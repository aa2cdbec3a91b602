import pytest
import torch

from mmavlm.callbacks import check_trainer
from mmavlm.core.errors import ConfigError


@pytest.fixture
def gpus(monkeypatch):
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize("devices", ["auto", -1, "1", 1, 4, [0]])
def test_a_gpu_where_there_is_none_is_refused_with_the_remedy(gpus, devices):
    gpus(0)
    with pytest.raises(ConfigError, match=r"accelerator=gpu.* sees 0 GPUs; use trainer=cpu"):
        check_trainer({"accelerator": "gpu", "devices": devices})


@pytest.mark.parametrize("devices", [3, "3", [0, 2], "0,2"])
def test_more_gpus_than_there_are_is_refused(gpus, devices):
    gpus(2)
    with pytest.raises(ConfigError, match=r"was asked for, but torch .* sees 2 GPUs"):
        check_trainer({"accelerator": "cuda", "devices": devices})


@pytest.mark.parametrize("devices", ["auto", -1, "-1", 2, "2", [0, 1], "1,"])
def test_as_many_gpus_as_there_are_is_accepted(gpus, devices):
    gpus(2)
    check_trainer({"accelerator": "gpu", "devices": devices})


@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_what_every_machine_has_is_accepted(gpus, accelerator):
    gpus(0)
    check_trainer({"accelerator": accelerator, "devices": 1})


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("max_epochs", "ten", "a whole number, got 'ten'"),
        ("max_epochs", -2, "at least -1, got -2"),
        ("accumulate_grad_batches", 0, "at least 1, got 0"),
        ("log_every_n_steps", 2.5, "a whole number, got 2.5"),
        ("gradient_clip_val", "a", "a number, got 'a'"),
    ],
)
def test_what_counts_nothing_is_refused(setting, value, wanted):
    with pytest.raises(ConfigError, match=f"trainer.{setting} must be {wanted}"):
        check_trainer({"accelerator": "cpu", setting: value})
