"""Ask about one film: `python -m mmavlm.predict checkpoint=… video=film.mp4 prompt="…"`.

Without a checkpoint, `experiment=zero_shot_own_videos` asks what is pretrained, and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from mmavlm.commands.checks import check_sources
from mmavlm.commands.cli import announce, check_format, run_on_checkpoint
from mmavlm.core.errors import ConfigError, VideoError

TEXTS = ("video", "prompt", "explain_answer", "explain_to")  # settings that are taken as they stand


def predict(config: DictConfig) -> None:
    """Print the answers to one prompt about one video, with their probabilities.

    With `stream_fps` the film is watched frame by frame in constant memory, however long it is,
    and asked every `every_s` seconds and at its end.
    """
    check_request(config)
    announce(config, "loading the model")
    # Imported here, so that mistakes are told before torch is there.
    from mmavlm.run.ask import ask_about_film

    ask_about_film(config)


def check_request(config: DictConfig) -> None:
    """Refuse what cannot be done, before the model is built.

    Raises:
        ConfigError: if `stream_fps` or `every_s` is not above 0 or `every_s` stands alone, a stream
            is to be explained, prompt or video are missing, candidates are no list, or the format
            is unknown.
        VideoError: if the video is missing.
    """
    check_format(config.format)
    check_sources(config)
    for key in ("stream_fps", "every_s"):
        if config[key] is not None and config[key] <= 0:
            raise ConfigError(f"{key} must be above 0, got {config[key]}")
    if config.stream_fps is None and config.every_s is not None:
        raise ConfigError("every_s asks along a stream; give stream_fps too, such as 1")
    if config.explain and config.stream_fps is not None:
        raise ConfigError("explain=true looks at a film as a whole; leave out stream_fps")
    if isinstance(config.candidates, str):
        raise ConfigError(f"candidates takes a list: candidates=[{config.candidates},…]")
    if config.prompt is None or not str(config.prompt).strip():
        raise ConfigError('prompt is empty; ask something: prompt="what happens?"')
    if config.video is None:
        raise ConfigError("video is null; give the path of a video file: video=film.mp4")
    if not Path(config.video).exists():
        raise VideoError(f"video {config.video} does not exist; give the path of a video file")


def main() -> None:
    """Entry point of `mmavlm-predict`."""
    run_on_checkpoint(predict, "predict", TEXTS)


if __name__ == "__main__":
    main()
