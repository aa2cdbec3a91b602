"""Export a model: `python -m mmavlm.export checkpoint=… to=folder`, for `mmavlm.load`.

In place of a checkpoint there may be settings with `init.weights`, such as a converted MA-LMM.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mmavlm.commands.checks import check_sources
from mmavlm.commands.cli import announce, run_command
from mmavlm.core.errors import ConfigError


def export(config: DictConfig) -> None:
    """Write weights, config, tokenizers and a model card to a folder, all of it or nothing."""
    check_request(config)
    check_sources(config)
    announce(config, "loading the model")
    # Imported here, so that mistakes are told before torch is there.
    from mmavlm.run.export import export_model

    export_model(config, list(HydraConfig.get().overrides.task))


def check_request(config: DictConfig) -> None:
    """Refuse what cannot be exported, before the model is built.

    Raises:
        ConfigError: if the folder is there already, or nothing is given to be exported.
    """
    if Path(config.to).exists():
        raise ConfigError(f"to={config.to} exists already; name a folder that is to be made")
    if config.checkpoint is None and config.init.weights is None:
        raise ConfigError(
            "there is nothing to export; give checkpoint=outputs/<run>/checkpoints/best.ckpt, or "
            "init.weights=… with the settings of its model"
        )


def main() -> None:
    """Entry point of `mmavlm-export`."""
    run_command(export, "export")


if __name__ == "__main__":
    main()
