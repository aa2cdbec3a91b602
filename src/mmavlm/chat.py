"""Talk with a model about films: `python -m mmavlm.chat checkpoint=… video=film.mp4`.

Each line is a question, or a command such as /video; /help lists them.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from mmavlm.commands.checks import check_sources
from mmavlm.commands.cli import announce, check_format, run_on_checkpoint
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.generation import Generation
from mmavlm.core.settings import at_least, whole_at_least

MEDIA = ("video", "image", "audio")  # what may be shown first: paths, taken as they stand


def chat(config: DictConfig) -> None:
    """Answer questions line by line, in one conversation that remembers what was said and shown."""
    check_request(config)
    announce(config, "loading the model")
    # Imported here, so that mistakes are told before torch is there.
    from mmavlm.run.dialogue import chat_about_media

    chat_about_media(config)


def check_request(config: DictConfig) -> None:
    """Refuse what cannot be done, before the model is built.

    Raises:
        ConfigError: if the format is unknown, or `num_beams` is no number of beams.
        VideoError: if what is to be shown is missing.
    """
    check_format(config.format)
    check_sources(config)
    if config.num_beams is None:
        raise ConfigError("num_beams is null; give a whole number, such as 1")
    whole_at_least("", 1, num_beams=config.num_beams)
    at_least("", 0, temperature=config.temperature, top_p=config.top_p)
    Generation(num_beams=config.num_beams, temperature=config.temperature, top_p=config.top_p)
    for name in MEDIA:
        if config[name] is not None and not Path(config[name]).exists():
            raise VideoError(f"{name} {config[name]} does not exist; give the path of a file")


def main() -> None:
    """Entry point of `mmavlm-chat`."""
    run_on_checkpoint(chat, "chat", MEDIA)


if __name__ == "__main__":
    main()
