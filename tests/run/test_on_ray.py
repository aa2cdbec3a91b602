"""A training in two workers of Ray Train, on this machine's CPU."""

import json
from importlib.util import find_spec

import pytest

from mmavlm import evaluate, train
from mmavlm.callbacks import ray_environment, ray_strategy
from mmavlm.callbacks import ray_workers as parts
from mmavlm.core.errors import ConfigError
from support import SMALL, composed

ON_CPU = [
    *(word for word in SMALL if word != "trainer=cpu"), "trainer=ray", "trainer.accelerator=cpu",
    "trainer.strategy.gpu=false", "trainer.strategy.cpus=1", "data.batch_size=2",
]  # fmt: skip
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")


@pytest.fixture
def without_ray(monkeypatch):
    monkeypatch.setattr(parts, "find_spec", lambda name: None)


@pytest.mark.usefixtures("without_ray")
def test_without_ray_the_extra_is_named_that_brings_it(run, films, capsys):
    assert run(train, "experiment=lvu_genre", *ON_CPU, f"data.root={films}") == 1
    said = capsys.readouterr().err
    assert "trainer=ray needs ray, not installed here" in said
    assert "mmavlm[ray]" in said


@pytest.mark.parametrize("build", [ray_strategy, ray_environment])
def test_what_runs_outside_of_rays_workers_is_refused(build, monkeypatch):
    monkeypatch.setattr(parts, "is_worker", lambda: False)
    with pytest.raises(ConfigError, match="choose trainer=auto, gpu, ddp or cpu"):
        build()


def test_the_settings_of_workers_are_all_known():
    settings = composed("trainer=ray").trainer.strategy
    known = {*parts.OF_WORKERS, "_target_", "find_unused_parameters"}
    assert set(settings) == known


@needs_ray
@pytest.mark.slow
@pytest.mark.distributed
def test_two_workers_train_and_test_together_and_mistakes_of_theirs_are_told(
    run, films, tmp_path, capsys
):
    line = ["experiment=lvu_genre", *ON_CPU, f"data.root={films}", "hydra.run.dir=run"]
    assert run(train, *line) == 0
    assert "genre/top1" in json.dumps(json.loads((tmp_path / "run/metrics.json").read_text()))
    checkpoint = "checkpoint=run/checkpoints/last.ckpt"
    assert run(evaluate, checkpoint, "callbacks.progress=null") == 1
    assert "choose trainer=auto" in capsys.readouterr().err
    assert run(evaluate, checkpoint, "trainer=cpu", "callbacks.progress=null") == 0
    assert run(train, *line, "data.num_frames=3", "resume=auto") == 1
    assert "was trained with other settings" in capsys.readouterr().err


@needs_ray
@pytest.mark.parametrize(("setting", "least"), [("workers", 1), ("cpus", 1), ("max_failures", 0)])
def test_workers_that_are_none_are_refused(run, films, capsys, setting, least):
    wrong = f"trainer.strategy.{setting}={least - 1}"
    assert run(train, "experiment=lvu_genre", *ON_CPU, f"data.root={films}", wrong) == 1
    assert f"trainer.strategy.{setting} must be at least {least}" in capsys.readouterr().err
