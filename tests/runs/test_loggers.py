import os

import pytest
import torch

from mmavlm.errors import ConfigError
from mmavlm.runs import check_accelerator, check_loggers


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("devices", ["auto", 1, 4])
def test_a_gpu_where_there_is_none_is_refused_with_the_remedy(devices):
    with pytest.raises(ConfigError, match=r"accelerator=gpu.* sees 0 GPUs; use trainer=cpu"):
        check_accelerator({"accelerator": "gpu", "devices": devices})


@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_what_every_machine_has_is_accepted(accelerator):
    check_accelerator({"accelerator": accelerator, "devices": 1})


def test_a_logger_without_its_package_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    loggers = {"wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger"}}
    with pytest.raises(ConfigError, match=r"pip install 'mmavlm\[wandb\]'"):
        check_loggers(loggers)


def test_wandb_without_a_key_stays_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    check_loggers({"wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger"}, "off": None})
    assert os.environ["WANDB_MODE"] == "offline"


def test_wandb_with_a_key_is_left_alone(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    check_loggers({"wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger"}})
    assert "WANDB_MODE" not in os.environ
