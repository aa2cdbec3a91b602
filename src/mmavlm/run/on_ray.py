"""A training in workers of a Ray cluster, through Ray Train."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, setup_globals
from omegaconf import DictConfig

from mmavlm.callbacks.ray_workers import require_ray
from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import MmavlmError
from mmavlm.core.settings import whole_at_least

Task = Callable[[DictConfig], float | None]


def train_on_ray(task: Task, config: DictConfig) -> float | None:
    """Run `task` on a config in each worker of `trainer.strategy`; what the first one returns.

    All workers must see the run's folder and the data under the same paths, and have mmavlm.

    Raises:
        ConfigError: if Ray is not installed, or a setting of the workers is out of range.
        MmavlmError: a user's mistake that workers came upon.
    """
    require_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
    import ray
    from ray.train.torch import TorchTrainer

    workers = config.trainer.strategy
    whole_at_least("trainer.strategy", 1, workers=workers.workers, cpus=workers.cpus)
    whole_at_least("trainer.strategy", 0, max_failures=workers.max_failures)
    if not ray.is_initialized():
        ray.init(address=workers.address)
    shared = {"task": task, "config": config, "hydra": HydraConfig.instance().cfg}
    trainer = TorchTrainer(work, train_loop_config=shared | {"folder": os.getcwd()}, **_how(config))
    try:
        result = trainer.fit()
    except Exception as error:  # Ray wraps what a worker raised
        if (mistake := _mistake(error)) is not None:
            raise mistake from None
        raise
    return None if result.metrics is None else result.metrics["monitored"]


def _how(config: DictConfig) -> dict[str, Any]:
    """How many workers there are, and where Ray keeps what it writes of them."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    workers = config.trainer.strategy
    return {
        "scaling_config": ScalingConfig(
            num_workers=workers.workers,
            use_gpu=workers.gpu,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": 1} if workers.gpu else {}),
        ),
        "run_config": RunConfig(
            storage_path=str(Path(config.paths.run).absolute() / "ray"),
            failure_config=FailureConfig(max_failures=workers.max_failures),
        ),
    }


def work(shared: Mapping[str, Any]) -> None:
    """What a worker does: the task, in the state of Hydra that the command had."""
    import ray.train

    hydra: DictConfig = shared["hydra"]
    os.chdir(shared["folder"])
    setup_globals()
    HydraConfig.instance().set_config(hydra)
    configure_log(hydra.hydra.job_logging, hydra.hydra.verbose)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        found = shared["task"](shared["config"])
    ray.train.report({"monitored": found})


def _mistake(error: BaseException) -> MmavlmError | None:
    """A user's mistake among what workers raised, behind what Ray has put around it."""
    for raised in (error, *(getattr(error, "worker_failures", None) or {}).values()):
        inner: BaseException | None = raised
        while inner is not None:
            if isinstance(inner, MmavlmError):
                return inner
            wrapped = (getattr(inner, name, None) for name in ("_base_exc", "cause", "__cause__"))
            inner = next((one for one in wrapped if isinstance(one, BaseException)), None)
    return None
