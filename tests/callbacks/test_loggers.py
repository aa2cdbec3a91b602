import importlib.util
import os
import subprocess
import sys

import pytest

from mmavlm.callbacks import check_loggers
from mmavlm.core.errors import ConfigError

WANDB = {"wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger"}}
TENSORBOARD = {"tensorboard": {"_target_": "lightning.pytorch.loggers.TensorBoardLogger"}}


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.delenv("WANDB_MODE")


@pytest.mark.parametrize(("loggers", "package"), [(WANDB, "wandb"), (TENSORBOARD, "tensorboard")])
def test_a_logger_without_its_package_names_the_command_that_installs_it(
    monkeypatch, loggers, package
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    expected = rf"logger={package} needs .* pip install 'mmavlm\[{package}\]'"
    with pytest.raises(ConfigError, match=expected):
        check_loggers(loggers)


@pytest.mark.usefixtures("no_key")
def test_wandb_without_a_key_stays_offline():
    check_loggers({**WANDB, "switched_off": None})
    assert os.environ["WANDB_MODE"] == "offline"


@pytest.mark.usefixtures("no_key")
def test_wandb_with_a_key_in_the_environment_is_left_alone(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    check_loggers(WANDB)
    assert "WANDB_MODE" not in os.environ


@pytest.mark.usefixtures("no_key")
def test_wandb_with_a_key_in_netrc_is_left_alone(tmp_path):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine api.wandb.ai login user password x\n")
    netrc.chmod(0o600)
    check_loggers(WANDB)
    assert "WANDB_MODE" not in os.environ


@pytest.mark.usefixtures("no_key")
def test_a_mode_set_by_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    check_loggers(WANDB)
    assert os.environ["WANDB_MODE"] == "disabled"


@pytest.mark.slow
@pytest.mark.usefixtures("no_key")
def test_an_offline_run_works_without_a_network(tmp_path):
    pytest.importorskip("wandb")
    script = f"""
from mmavlm.callbacks import check_loggers
from lightning.pytorch.loggers import WandbLogger
check_loggers({WANDB!r})
logger = WandbLogger(project="mmavlm", save_dir=".")
logger.log_metrics({{"train/loss": 1.0}}, step=1)
logger.experiment.finish()
"""
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env={**os.environ, **nowhere}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
