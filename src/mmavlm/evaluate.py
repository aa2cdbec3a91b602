"""Test a model: `python -m mmavlm.evaluate checkpoint=… data.root=…`.

The checkpoint brings its own settings; whatever the command line says is laid over them. Without
one, `experiment=zero_shot_… data.root=…` tests what is pretrained, and nothing else.
"""

from __future__ import annotations

import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mmavlm.cli import exit_on_mistake, laid_over_checkpoint, run_command
from mmavlm.run import Run


def evaluate(config: DictConfig) -> None:
    """Test the checkpoint on the test split and write what training writes after its test."""
    run = Run(config, list(HydraConfig.get().overrides.task), splits=["test"])
    if config.checkpoint is None:
        run.take_untrained()
    else:
        run.load(config.checkpoint)
    run.test()
    run.write()


def main() -> None:
    """Entry point of `mmavlm-evaluate`."""
    with exit_on_mistake():
        sys.argv[1:] = laid_over_checkpoint(sys.argv[1:])
    run_command(evaluate, "train")


if __name__ == "__main__":
    main()
