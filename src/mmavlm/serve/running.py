"""A server that runs until it is told to stop."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import uvicorn
from omegaconf import DictConfig

from mmavlm.core.config_files import config_dir, settings
from mmavlm.core.errors import ConfigError
from mmavlm.loaded.model import LoadedModel, load
from mmavlm.run.ask import load_backbone
from mmavlm.serve.app import served_app
from mmavlm.serve.limits import Limits
from mmavlm.serve.line import Line
from mmavlm.serve.served import Served
from mmavlm.serve.visits import Visits

LOOPBACK = "127.0.0.1"
GRACE_S = 5  # that answers have to end in when the server is told to


def run(config: DictConfig, lines: Sequence[str]) -> None:
    """Load the models and serve them; prints the address of the page once it can be opened.

    `lines` is the command line that the config was composed from.

    Raises:
        CheckpointError: if a model cannot be loaded.
        ConfigError: if the port is taken.
    """
    limits = Limits.of(config)
    with _socket(config.port) as listening:  # which is told to be taken before a model is loaded
        models = [_model_of(config, lines)]
        if config.other is not None:
            models.append(load(config.other))
        visits = Visits(limits)
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}"
        served = Served(models, limits)
        app = served_app(served, visits)
        settings_of = uvicorn.Config(
            app, log_level="warning", lifespan="on", timeout_graceful_shutdown=GRACE_S
        )
        server = _Server(settings_of, served.line)
        print(f"open {address} (for OpenAI's clients: {address}/v1); Ctrl-C ends", flush=True)
        if config.open:
            webbrowser.open(address)
        try:
            with suppress(KeyboardInterrupt):  # raised again once all is closed
                server.run(sockets=[listening])
        finally:
            visits.close()


class _Server(uvicorn.Server):
    """A server that ends the answers that are being given when it is told to end itself."""

    def __init__(self, config: uvicorn.Config, line: Line) -> None:
        super().__init__(config)
        self._line = line

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._line.close()
        super().handle_exit(sig, frame)


def _model_of(config: DictConfig, given: Sequence[str]) -> LoadedModel:
    """The model of this command line, which its other commands are laid over."""
    ours = {setting.key for setting in settings(config_dir() / "serve.yaml")}
    lines = [line for line in given if line.lstrip("+").partition("=")[0] not in ours]
    backbone, run_of = load_backbone(config, None, None)
    chosen = (line.partition("=")[2] for line in lines if line.startswith("experiment="))
    name = config.checkpoint or next(chosen, "a model")
    return LoadedModel(str(name), lines, config, backbone, run_of)


def _socket(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port={port} cannot be had ({error.strerror}); port=0 takes any that is free"
        ) from error
    return listening
