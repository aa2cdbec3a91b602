"""Secrets of the environment, which must not go into what a run leaves behind."""

from __future__ import annotations

from typing import Any

from mmavlm.core.errors import ConfigError
from mmavlm.core.redaction import secrets_of_environment


def refuse_secrets(settings: Any, key: str = "") -> None:
    """Refuse settings that hold a secret: they are kept in config.yaml, checkpoints and reports.

    Secrets are the values of environment variables with names such as `WANDB_API_KEY`, HF_TOKEN.

    Raises:
        ConfigError: naming the setting and the variable, not the value.
    """
    if isinstance(settings, dict):
        for name, value in settings.items():
            refuse_secrets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(settings, list):
        for number, value in enumerate(settings):
            refuse_secrets(value, f"{key}[{number}]")
    elif isinstance(settings, str):
        for name, secret in secrets_of_environment().items():
            if secret in settings:
                raise ConfigError(
                    f"{key} holds the value of the environment variable {name}, which would be "
                    "kept in config.yaml, checkpoints and the report; leave it out: loggers and "
                    "hubs read the environment themselves"
                )
