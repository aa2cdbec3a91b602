"""Talk to a film in the browser: `python -m mmavlm.serve checkpoint=…`.

The server is for this machine alone, and speaks OpenAI's `/v1/chat/completions`, too.
"""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mmavlm.commands.checks import check_sources
from mmavlm.commands.cli import announce, run_on_checkpoint
from mmavlm.core.errors import ConfigError
from mmavlm.core.extras import needs_extra
from mmavlm.loaded.places import checkpoint_of
from mmavlm.serve.limits import Limits

TEXTS = ("other",)  # settings that are taken as they stand
MOST_PORT = 65535


def serve(config: DictConfig) -> None:
    """Serve a model, or two side by side, until Ctrl-C."""
    check_request(config)
    announce(config, "loading the model")
    # Imported here, so that mistakes are told before torch is there.
    from mmavlm.serve.running import run

    run(config, HydraConfig.get().overrides.task)


def check_request(config: DictConfig) -> None:
    """Refuse what cannot be done, before the model is built.

    Raises:
        ConfigError: if a number is out of range, or the extra `serve` is not installed.
        CheckpointError: if the other model is missing.
    """
    check_sources(config)
    Limits.of(config)
    if type(config.port) is not int or not 0 <= config.port <= MOST_PORT:
        raise ConfigError(f"port must be a number from 0 to {MOST_PORT}, got {config.port}")
    if config.other is not None:
        checkpoint_of(config.other)
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(needs_extra("serve", str(error.name), "serve")) from error


def main() -> None:
    """Entry point of `mmavlm-serve`."""
    run_on_checkpoint(serve, "serve", TEXTS)


if __name__ == "__main__":
    main()
