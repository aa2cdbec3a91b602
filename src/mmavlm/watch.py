"""Watch a film or a camera: `python -m mmavlm.watch checkpoint=… video=film.mp4 query="…"`.

Each frame is scored as it comes, and the model speaks when it has something to say.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from mmavlm.commands.checks import check_rate, check_sources
from mmavlm.commands.cli import announce, check_format, run_on_checkpoint
from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.redaction import redacted_address
from mmavlm.core.settings import above_zero, at_least, true_or_false, whole_at_least
from mmavlm.core.speaking import SpeakingRule

TEXTS = ("video", "camera", "query", "system")  # settings that are taken as they stand


def watch(config: DictConfig) -> None:
    """Watch until the film ends or Ctrl-C, and leave what was scored and said in a folder."""
    check_request(config)
    announce(config, "loading the model")
    # Imported here, so that mistakes are told before torch is there.
    from mmavlm.run.watching import watch_live

    watch_live(config)


def check_request(config: DictConfig) -> None:
    """Refuse what cannot be done, before the model is built.

    Raises:
        ConfigError: if there is not one of video and camera, or a setting is no such number.
        DataError: if a file that is named is missing.
        VideoError: if the video is missing.
    """
    check_format(config.format)
    check_sources(config)
    if bool(config.video) == bool(config.camera):
        raise ConfigError("give one of video=film.mp4 and camera=/dev/video0")
    if config.video and not Path(config.video).exists():
        raise VideoError(
            f"video {redacted_address(config.video)} does not exist; give the path of a film, or "
            "camera=… for a device or an address"
        )
    if config.camera is not None and (config.start_s or config.end_s is not None):
        raise ConfigError("a camera is watched from now on; leave out start_s and end_s")
    above_zero("", timeout_s=config.timeout_s)
    check_rate("fps", config.fps)
    at_least("", 0, start_s=config.start_s, end_s=config.end_s)
    whole_at_least("", 1, window=config.window, max_new_tokens=config.max_new_tokens)
    true_or_false(
        "", realtime=config.realtime, keep_replies=config.keep_replies, repeat=config.repeat
    )
    if not config.to:
        raise ConfigError("to is not set; give the folder of what is left of the film")
    SpeakingRule.of(config.speak)
    for name in ("truth", "speak_as"):
        if config[name] is not None and not Path(config[name]).exists():
            raise DataError(f"{name} {config[name]} does not exist; give the path of a file")


def main() -> None:
    """Entry point of `mmavlm-watch`."""
    run_on_checkpoint(watch, "watch", TEXTS)


if __name__ == "__main__":
    main()
