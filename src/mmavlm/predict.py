"""Ask about one film: `python -m mmavlm.predict checkpoint=… video=film.mp4 prompt="…"`.

Or answer a file of questions: `python -m mmavlm.predict checkpoint=… questions=q.jsonl`.
Without a checkpoint, `experiment=zero_shot_own_videos` asks what is pretrained, and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmavlm.commands.checks import check_rate, check_sources
from mmavlm.commands.cli import announce, check_format, run_on_checkpoint
from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.items import Item
from mmavlm.core.settings import above_zero

TEXTS = (
    "video",
    "prompt",
    "explain_answer",
    "explain_to",
    "questions",
    "answers_to",
)  # settings that are taken as they stand


def predict(config: DictConfig) -> None:
    """Print the answers to one prompt about one video, with their probabilities.

    With `stream_fps` the film is watched frame by frame in constant memory, however long it is,
    and asked every `every_s` seconds and at its end. With `questions` the answers to a file of them
    are appended to another file, those alone that it lacks.
    """
    items = None
    if config.questions is None:
        check_request(config)
    else:
        items = questions_of(config)
    announce(config, "loading the model")
    # Imported here, so that mistakes are told before torch is there.
    if items is not None:
        from mmavlm.run.questions import answer_questions

        return answer_questions(config, items)
    from mmavlm.run.ask import ask_about_film

    ask_about_film(config)


def questions_of(config: DictConfig) -> list[Item]:
    """The questions of a file, before the model is built.

    Raises:
        ConfigError: if what is of one film is set too, candidates are no list, or the format is
            unknown.
        DataError: if the file is missing, or naming the rows that cannot be used.
    """
    check_format(config.format)
    check_sources(config)
    of_one = ("video", "prompt", "stream_fps", "every_s", "explain")
    if given := [k for k in of_one if not OmegaConf.is_missing(config, k) and config[k]]:
        raise ConfigError(f"questions= asks a file of questions; leave out {', '.join(given)}")
    _check_candidates(config)
    path = Path(config.questions)
    if not path.is_file():
        raise DataError(f"questions {path} do not exist; give a jsonl or csv with a row for each")
    # Imported here, since help waits for no library that reads films.
    from mmavlm.data.readers.questions import QuestionReader

    return list(QuestionReader(path.name, config.question_options)(path.parent, "test", None))


def _check_candidates(config: DictConfig) -> None:
    """Refuse candidates that are no list, or of which one cannot be told from another."""
    if config.candidates is None:
        return
    if not OmegaConf.is_list(config.candidates):
        raise ConfigError(f"candidates takes a list: candidates=[{config.candidates},…]")
    texts = [str(text).strip() for text in config.candidates]
    if not texts or not all(texts):
        raise ConfigError(
            f"candidates={texts} has no text, or an empty one; give the answers to choose from, or "
            "leave candidates out"
        )
    if twice := [text for text in dict.fromkeys(texts) if texts.count(text) > 1]:
        raise ConfigError(f"candidates has {twice[0]!r} more than once; give each answer once")


def check_request(config: DictConfig) -> None:
    """Refuse what cannot be done, before the model is built.

    Raises:
        ConfigError: if `stream_fps` or `every_s` is not above 0 or `every_s` stands alone, a stream
            is to be explained, decoded by contrast or read with subtitles, prompt or video are
            missing, candidates are no list, or the format is unknown.
        VideoError: if the video is missing.
    """
    check_format(config.format)
    check_sources(config)
    _check_stream(config)
    _check_candidates(config)
    if config.prompt is None or not str(config.prompt).strip():
        raise ConfigError('prompt is empty; ask something: prompt="what happens?"')
    if config.video is None:
        raise ConfigError("video is null; give the path of a video file: video=film.mp4")
    if not Path(config.video).exists():
        raise VideoError(f"video {config.video} does not exist; give the path of a video file")


def _check_stream(config: DictConfig) -> None:
    """Refuse a stream that cannot be watched as asked."""
    check_rate("stream_fps", config.stream_fps)
    above_zero("", every_s=config.every_s)
    if config.stream_fps is None and config.every_s is not None:
        raise ConfigError("every_s asks along a stream; give stream_fps too, such as 1")
    if config.explain and config.stream_fps is not None:
        raise ConfigError("explain=true looks at a film as a whole; leave out stream_fps")
    if config.get("contrast") is not None and config.stream_fps is not None:
        raise ConfigError(
            "a stream is not decoded against another view; set contrast=none, or leave out "
            "stream_fps"
        )
    if OmegaConf.select(config, "data.subtitles") and config.stream_fps is not None:
        raise ConfigError(
            "a stream is watched without its subtitles; set data.subtitles=false, or leave out "
            "stream_fps"
        )


def main() -> None:
    """Entry point of `mmavlm-predict`."""
    run_on_checkpoint(predict, "predict", TEXTS)


if __name__ == "__main__":
    main()
