"""Test a model: `python -m mmavlm.evaluate checkpoint=… data.root=…`.

The checkpoint brings its own settings; whatever the command line says is laid over them. Without
one, `experiment=zero_shot_… data.root=…` tests what is pretrained, and nothing else. Without a
model, `predictions=…` scores a run's predictions again and `compare=[runA,runB]` compares two runs;
`judge=…` has their answers judged, too. With `task=… truth=…` predictions are films that were
watched as they ran.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mmavlm.commands.arguments import asks_hydra, given_keys, read_arguments
from mmavlm.commands.checks import check_config
from mmavlm.commands.cli import (
    announce,
    answered,
    check_format,
    exit_on_mistake,
    run_command,
    run_on_checkpoint,
)
from mmavlm.commands.rescore import score
from mmavlm.core.errors import ConfigError
from mmavlm.core.metrics_file import finite

WITHOUT_MODEL = {"predictions", "compare", "truth"}


def evaluate(config: DictConfig) -> None:
    """Test the checkpoint, write what training writes after its test, and print the scores.

    With `format=json` their one line is all that goes to stdout.
    """
    check_config(config)
    announce(config, "loading the model")
    # Imported here, since scores of what was answered before need no model.
    from mmavlm.run import Run, tested_splits

    check_format(config.format)
    as_json = config.format == "json"
    # what else is printed would stand between a reader and the one line
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        run = Run(config, list(HydraConfig.get().overrides.task), splits=tested_splits(config))
        if config.checkpoint is None:
            run.take_untrained()
        else:
            run.load(config.checkpoint)
        with run.claim():
            run.test()
            run.write()
        run.tell()
    if as_json and run.trainer.is_global_zero:
        print(json.dumps(finite(run.metrics)))


def score_predictions(config: DictConfig) -> None:
    """Score predictions again, or compare two runs, and have them judged if a judge is given."""
    check_format(config.format)
    judge = None
    if config.get("judge") is not None:
        # Imported here, since scores alone need no builder of objects.
        from hydra.utils import instantiate

        judge = instantiate(config.judge)
    score(config, Path(HydraConfig.get().runtime.output_dir), judge)


def main() -> None:
    """Entry point of `mmavlm-evaluate`."""
    if answered("evaluate"):
        return
    with exit_on_mistake():
        read_arguments()
        given = set() if asks_hydra(sys.argv[1:]) else given_keys(sys.argv[1:])
        without_model = bool(WITHOUT_MODEL & given)
        if without_model and "checkpoint" in given:
            raise ConfigError("checkpoint=… runs a model, predictions=… and compare=… do without")
        if "val_predictions" in given and not without_model:
            raise ConfigError(
                "val_predictions=… says when answers that are there are held back; give them with "
                "predictions=…, a run's folder or its file"
            )
    if without_model:
        run_command(score_predictions, "score")
    else:
        run_on_checkpoint(evaluate, "evaluate")


if __name__ == "__main__":
    main()
