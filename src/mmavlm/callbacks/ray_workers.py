"""Lightning's part of a training in workers of a Ray cluster (`run/on_ray.py` starts them)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mmavlm.core.errors import ConfigError
from mmavlm.core.extras import needs_extra

if TYPE_CHECKING:
    from lightning.fabric.plugins import ClusterEnvironment
    from lightning.pytorch.strategies import Strategy

# Settings of the workers, which stand beside those of DDPStrategy.
OF_WORKERS = ("workers", "gpu", "cpus", "address", "max_failures")


def ray_strategy(**settings: Any) -> Strategy:
    """Ray Train's DDP, for one of its workers; what says how many there are is left out.

    Raises:
        ConfigError: if Ray is not installed, or this process is none of its workers.
    """
    require_worker()
    from ray.train.lightning import RayDDPStrategy

    return RayDDPStrategy(**{k: v for k, v in settings.items() if k not in OF_WORKERS})


def ray_environment() -> ClusterEnvironment:
    """Which of Ray's workers this process is.

    Raises:
        ConfigError: if Ray is not installed, or this process is none of its workers.
    """
    require_worker()
    from ray.train.lightning import RayLightningEnvironment

    return RayLightningEnvironment()


def require_ray() -> None:
    """Refuse to go on without Ray.

    Raises:
        ConfigError: naming the extra that brings it.
    """
    if find_spec("ray") is None:
        raise ConfigError(needs_extra("trainer=ray", "ray", "ray"))


def is_worker() -> bool:
    """Whether this process is a worker of Ray Train."""
    require_ray()
    import ray.train

    try:
        ray.train.get_context().get_world_rank()
    except RuntimeError:
        return False
    return True


def require_worker() -> None:
    """Refuse commands that Ray's workers do not run.

    Raises:
        ConfigError: naming the trainers to choose from.
    """
    if not is_worker():
        raise ConfigError(
            "trainer=ray is for mmavlm.train, which starts workers of a Ray cluster; choose "
            "trainer=auto, gpu, ddp or cpu for another command"
        )
