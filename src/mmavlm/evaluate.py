"""Test a model: `python -m mmavlm.evaluate checkpoint=… data.root=…`.

The checkpoint brings its own settings; whatever the command line says is laid over them. Without
one, `experiment=zero_shot_… data.root=…` tests what is pretrained, and nothing else. Without a
model, `predictions=…` scores a run's predictions again and `compare=[runA,runB]` compares two runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mmavlm.cli import (
    check_format,
    exit_on_mistake,
    given_keys,
    laid_over_checkpoint,
    read_arguments,
    run_command,
)
from mmavlm.errors import ConfigError
from mmavlm.rescore import score

WITHOUT_MODEL = {"predictions", "compare"}


def evaluate(config: DictConfig) -> None:
    """Test the checkpoint on the test split and write what training writes after its test."""
    # Imported here, since scores of what was answered before need no model.
    from mmavlm.run import Run

    run = Run(config, list(HydraConfig.get().overrides.task), splits=["test"])
    if config.checkpoint is None:
        run.take_untrained()
    else:
        run.load(config.checkpoint)
    with run.claim():
        run.test()
        run.write()


def score_predictions(config: DictConfig) -> None:
    """Score predictions again, or compare two runs, without a model."""
    check_format(config.format)
    score(config, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """Entry point of `mmavlm-evaluate`."""
    with exit_on_mistake():
        read_arguments()
        given = given_keys(sys.argv[1:])
        without_model = bool(WITHOUT_MODEL & given)
        if without_model and "checkpoint" in given:
            raise ConfigError("checkpoint=… runs a model, predictions=… and compare=… do without")
        if not without_model:
            sys.argv[1:] = laid_over_checkpoint(sys.argv[1:])
    if without_model:
        run_command(score_predictions, "score")
    else:
        run_command(evaluate, "train")


if __name__ == "__main__":
    main()
