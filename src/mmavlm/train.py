"""Train: `python -m mmavlm.train experiment=lvu_genre data.root=…`; `-m` sweeps over settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mmavlm.commands.checks import check_config
from mmavlm.commands.cli import announce, run_command
from mmavlm.core.errors import ConfigError
from mmavlm.core.given_files import AUTO

if TYPE_CHECKING:
    from mmavlm.run import Run

# Settings of a run that the run it starts with takes over: what its model is built of, or its
# weights would not fit, and how it runs. Fusion, LLM and the form of the loss are of a stage.
CARRIED = {
    "model", "pretrained", "encoder", "text_encoder", "prompt_tokenizer", "qformer",
    "qformer_queries", "cross_layers", "memory", "temporal", "vision.max_num_frames",
    "vision.position_init", "vision.norm_eps", "alignment.embed_dim", "init.weights",
    "trainer", "logger", "callbacks", "seed", "prepare", "paths.data", "data.num_workers",
    "data.timeout_s", "data.limit_items", "resume_accept", "habit",
}  # fmt: skip


def train(config: DictConfig) -> float | None:
    """Run one stage, after the experiment it starts with, if any; return the monitored metric.

    Leaves in the run's folder: checkpoints, config.yaml, csv log, metrics.json, predictions.jsonl
    and report.html. With trainer=ray that happens in workers of a Ray cluster.
    """
    check_config(config)
    if HydraConfig.get().runtime.choices.get("trainer") == "ray":
        from mmavlm.callbacks.ray_workers import is_worker
        from mmavlm.run.on_ray import train_on_ray

        if not is_worker():
            from mmavlm.train import train as task  # not `__main__`'s, which workers lack

            return train_on_ray(task, config)
    announce(config, "loading the model")
    # Imported here, so that mistakes are told before torch is there.
    from mmavlm.metrics import check_monitor

    check_monitor(config.stage.monitor)
    from mmavlm.run import Run

    overrides = list(HydraConfig.get().overrides.task)
    earlier = []
    if config.init.experiment is not None:
        first = first_run(config, overrides)
        complete(first)
        earlier.append(first)
        config.init.alignment = str(first.best_checkpoint)
    run = Run(config, overrides)
    complete(run, earlier)
    return run.metrics.get(config.stage.monitor)


def complete(run: Run, earlier: Sequence[Run] = ()) -> None:
    """Train, test and write, or with `resume=auto` take what is there; print the scores."""
    from mmavlm.run.resume import is_finished, recall

    with run.claim():
        if is_finished(run.config):
            run.metrics = recall(run.config, run.trainer)
        else:
            run.fit()
            run.write(earlier)
    run.tell()


def first_run(config: DictConfig, overrides: list[str]) -> Run:
    """The run of `init.experiment`, with this run's model, data root and trainer.

    Raises:
        ConfigError: if that experiment would itself start with another.
    """
    from mmavlm.run import Run

    name = config.init.experiment
    carried = [o for o in overrides if CARRIED & {_key(o), _key(o).split(".")[0]}]
    own = [f"data.root={config.data.root}", f"paths.run={Path(config.paths.run) / name}"]
    if config.resume == AUTO:
        own.append(f"resume={AUTO}")
    first = [f"experiment={name}", *carried, *own]
    # where yamls of one's own lie: not of the run's settings, which a checkpoint keeps
    places = [o for o in HydraConfig.get().overrides.hydra if _key(o) == "hydra.searchpath"]
    composed = compose("train", [*first, *places])
    if composed.init.experiment is not None:
        raise ConfigError(
            f"init.experiment={name} starts with {composed.init.experiment} itself; "
            "run that first and give its checkpoint as init.alignment"
        )
    return Run(composed, first)


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


def main() -> None:
    """Entry point of `mmavlm-train`."""
    run_command(train, "train")


if __name__ == "__main__":
    main()
