from pathlib import Path

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar

from mmavlm.callbacks import FrozenShardsStrategy, ModelOverview
from mmavlm.core.config_files import config_dir
from support import composed

# But for trainer=ray, whose parts are built within Ray's workers (tests/run/test_on_ray.py).
TRAINERS = sorted(
    path.stem for path in (Path(config_dir()) / "trainer").glob("*.yaml") if path.stem != "ray"
)
LOGGERS = sorted(path.stem for path in (Path(config_dir()) / "logger").glob("*.yaml"))


@pytest.fixture
def determinism_restored():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("determinism_restored")
@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_builds_and_takes_the_common_settings(name, tmp_path):
    settings = ["precision=bf16-mixed", "max_epochs=3", "accumulate_grad_batches=2",
                "gradient_clip_val=1.0", "deterministic=warn", "log_every_n_steps=5"]  # fmt: skip
    config = composed(f"trainer={name}", *(f"trainer.{s}" for s in settings))
    here = {"accelerator": "cpu", "devices": 1, "default_root_dir": str(tmp_path)}
    trainer = instantiate(config.trainer, **here, logger=False)
    assert isinstance(trainer, L.Trainer)
    assert (trainer.max_epochs, trainer.precision) == (3, "bf16-mixed")
    assert (trainer.accumulate_grad_batches, trainer.gradient_clip_val) == (2, 1.0)
    assert isinstance(trainer.strategy, FrozenShardsStrategy) == (name in ("fsdp", "hsdp"))


@pytest.mark.parametrize("name", [*(n for n in TRAINERS if n not in ("auto", "cpu")), "ray"])
def test_trainers_for_gpus_ask_for_gpus(name):
    assert composed(f"trainer={name}").trainer.accelerator == "gpu"


@pytest.mark.parametrize("name", LOGGERS)
def test_the_csv_log_is_written_whatever_the_logger(name):
    config = composed(f"logger={name}")
    assert config.logger.csv._target_.endswith("CSVLogger")
    assert name in config.logger


def test_the_callbacks_show_progress_keep_the_best_and_tell_of_the_model():
    callbacks = [instantiate(c) for c in composed().callbacks.values()]
    kinds = {type(callback) for callback in callbacks}
    assert {RichProgressBar, ModelOverview} <= kinds
    best = next(c for c in callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
    assert (best.monitor, best.mode, best.save_top_k) == ("val/accuracy", "max", 1)
    names = [c.filename for c in callbacks if isinstance(c, ModelCheckpoint)]
    assert not any("=" in name or "{" in name for name in names)
