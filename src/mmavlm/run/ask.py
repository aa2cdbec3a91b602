"""Ask a model about one film: build it, watch the film, answer, explain."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from mmavlm.core.batch import Batch
from mmavlm.core.contrast import Against
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.files import write_whole
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import Answer, LanguageModel, MediaTokens
from mmavlm.core.items import Item
from mmavlm.data.collate import collate
from mmavlm.data.dataset import VideoDataset
from mmavlm.data.sources import FrameSource
from mmavlm.data.subtitles import check_choice
from mmavlm.data.transforms import ClipTransform
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.explain import Explanation, explain, stretches_of
from mmavlm.report import save_explanation
from mmavlm.run.build import build_backbone, build_contrast
from mmavlm.weights.checkpoint import RUN_KEY, load_trainable, read_checkpoint
from mmavlm.weights.untrained import allow_untrained


class Ready(NamedTuple):
    """A model that can be asked, and how many tokens an answer has at most."""

    backbone: VideoLanguageModel
    llm: LanguageModel
    device: torch.device
    max_new_tokens: int


@torch.inference_mode()
def ask_about_film(config: DictConfig) -> None:
    """Print the answers to one prompt about one video, with their probabilities.

    See `mmavlm.predict`, which has checked the request.

    Raises:
        ConfigError: if the model answers nothing, or the answer cannot be explained as asked.
        CheckpointError: if the weights do not fit.
        VideoError: if the film cannot be decoded.
    """
    ready = load_model(config)
    backbone, llm, device, longest = ready
    if config.stream_fps is not None:
        for at_s, tokens in moments(config, backbone):
            show(ask(config, llm, MediaTokens(tokens, [1]), longest), config, at_s)
        return
    batch = read_video(config, backbone.vision.encoder.image_size).to(device)
    media, against = backbone.seen(batch, build_contrast(config))
    answers = ask(config, llm, media, longest, batch.conversations, against)
    files = explain_answer(config, ready, batch, answers) if config.explain else None
    show(answers, config, files=files)


def load_model(config: DictConfig) -> Ready:
    """The model of a checkpoint, or what is pretrained of an experiment, on its device.

    Raises:
        ConfigError: if the model has no LLM, parts of it at random values, or watches films and
            answers no questions.
        CheckpointError: if the weights do not fit.
    """
    return ready_to_answer(config, *load_backbone(config))


def ready_to_answer(
    config: DictConfig, backbone: VideoLanguageModel, run: Mapping[str, Any] | None
) -> Ready:
    """A model that was loaded, and of a checkpoint the run that it is of, if it can be asked.

    Raises:
        ConfigError: if the model has no LLM, or watches films and answers no questions.
    """
    if backbone.llm is None:
        raise ConfigError(f"{_named(config)} is of stage 1, which has no LLM; give one of stage 2")
    if config.stage.get("max_new_tokens") is None:
        raise ConfigError(
            f"{_named(config)} is of the duet, which watches a film as it runs; use python -m "
            "mmavlm.watch, or in Python model.watch(…)"
        )
    longest = int(config.stage.max_new_tokens) if run is None else max_new_tokens(config, run)
    return Ready(backbone, backbone.llm, backbone.vision.device, longest)


def load_backbone(
    config: DictConfig, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> tuple[VideoLanguageModel, Mapping[str, Any] | None]:
    """A model on its device, in eval mode, and of a checkpoint the run that it is of.

    Without `device` it goes to a GPU if there is one; without `dtype` weights keep their own.

    Raises:
        ConfigError: if parts of the model are at random values.
        CheckpointError: if the weights do not fit.
    """
    backbone, run = build_backbone(config).eval(), None
    if config.checkpoint is not None:
        checkpoint = read_checkpoint(config.checkpoint)
        weights = checkpoint["state_dict"].items()
        state = {name.removeprefix("backbone."): value for name, value in weights}
        load_trainable(backbone, state, f"checkpoint {config.checkpoint}")
        run = checkpoint[RUN_KEY]
    elif backbone.llm is not None:
        allow_untrained(config, backbone)
    where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return backbone.to(where, dtype), run


def _named(config: DictConfig) -> str:
    return f"checkpoint {config.checkpoint}" if config.checkpoint else "this experiment"


def moments(config: DictConfig, backbone: VideoLanguageModel) -> Iterator[tuple[float, Tensor]]:
    """When the stream is to be asked about, in seconds, with its video tokens so far.

    Raises:
        VideoError: if the video is missing or cannot be decoded.
    """
    source = FrameSource(Path(config.video))
    times_s = [
        k / config.stream_fps for k in range(max(1, ceil(source.duration_s * config.stream_fps)))
    ]
    transform = ClipTransform(backbone.vision.encoder.image_size, None)
    frames = (transform(picture)[None] for picture in source.pictures(times_s))
    last = len(times_s) - 1
    for t, state in enumerate(backbone.vision.stream(frames, [config.prompt])):
        asked = config.every_s is not None and (
            times_s[t] // config.every_s < (t + 1) / config.stream_fps // config.every_s
        )
        if asked or t == last:
            yield times_s[t], backbone.video_tokens(state)


def ask(
    config: DictConfig,
    llm: LanguageModel,
    media: MediaTokens,
    longest: int,
    asked: Sequence[Conversation] | None = None,
    against: Against | None = None,
) -> list[dict[str, object]]:
    """The answers to the prompt about the film behind `media`, most probable first.

    `asked` is the conversation that asks it, where that is more than the prompt, and `against`
    another view of it.
    """
    asked = asked or [asked_about(config).conversation]
    if config.candidates:
        candidates = [str(candidate) for candidate in config.candidates]
        with_eos = config.stage.rank_with_eos
        scores = llm.rank(asked, media, candidates, with_eos=with_eos, against=against)[0]
        answers = [Answer(c, s) for c, s in zip(candidates, scores.tolist(), strict=True)]
    else:
        answers = llm.generate(asked, media, several_answers(config, longest), against=against)[0]
    return with_probabilities(answers, among=bool(config.candidates))


def several_answers(config: DictConfig, longest: int) -> Generation:
    """How the best `num_answers` answers are generated, or one drawn."""
    beams = max(config.stage.num_beams, config.num_answers)
    drawn = {name: config.stage.get(name) for name in ("temperature", "top_p")}
    sampling = drawn if drawn["temperature"] else {}
    return generation_of(
        config, longest, num_beams=beams, num_answers=config.num_answers, **sampling
    )


def generation_of(
    config: DictConfig, longest: int, *, num_beams: int, num_answers: int = 1, **sampling: float
) -> Generation:
    """How answers are generated, by the stage's settings, these numbers and those of sampling.

    Raises:
        ConfigError: if they exclude each other.
    """
    return Generation(
        num_beams=num_beams,
        num_answers=num_answers,
        min_new_tokens=config.stage.min_new_tokens,
        max_new_tokens=longest,
        repetition_penalty=config.stage.repetition_penalty,
        penalize_bos=config.stage.penalize_bos,
        length_penalty=config.stage.length_penalty,
        seed=config.seed if sampling else 0,
        **sampling,
    )


def with_probabilities(answers: Sequence[Answer], *, among: bool) -> list[dict[str, object]]:
    """Answers as plain values, most probable first: `among` themselves, or all there could be."""
    log_probs = torch.tensor([answer.log_prob for answer in answers])
    shares = (log_probs.softmax(dim=0) if among else log_probs.exp()).tolist()
    ranked = sorted(zip(answers, shares, strict=True), key=lambda pair: -pair[1])
    return [{"answer": a.text, "probability": p, "log_prob": a.log_prob} for a, p in ranked]


def explain_answer(
    config: DictConfig,
    ready: Ready,
    batch: Batch,
    answers: list[dict[str, object]],
) -> tuple[Path, Path]:
    """Write what `explain_answer`, or else the best answer, rests on: a picture, and its numbers.

    Raises:
        ConfigError: if the answer is empty, the film cannot be cut into so many stretches, or a
            picture cannot be written to a file of that name.
    """
    answer = str(answers[0]["answer"] if config.explain_answer is None else config.explain_answer)
    explained = explanation_of(config, ready, batch, answer)
    return write_explanation(explained, Path(config.explain_to or explained_name(config.video)))


def explanation_of(config: DictConfig, ready: Ready, batch: Batch, answer: str) -> Explanation:
    """What an answer to the question of a batch rests on.

    Raises:
        ConfigError: if the answer is empty, or the film cannot be cut into so many stretches.
    """
    backbone, llm, _, longest = ready
    stretches = config.explain_stretches
    if stretches is None:
        stretches = stretches_of(int(batch.frame_mask.sum()))

    def say(view: Batch) -> list[str]:
        rows = ask(config, llm, backbone.media_tokens(view), longest, view.conversations)
        return [str(rows[0]["answer"])]

    (explained,) = explain(backbone, batch, [answer], stretches=stretches, say=say)
    return explained


def explained_name(video: str | Path) -> str:
    """The name of the picture that explains an answer about a film."""
    return f"{Path(video).stem}_explained.png"


def write_explanation(explained: Explanation, image: Path) -> tuple[Path, Path]:
    """Write the picture of an explanation, and its numbers as JSON beside it.

    Raises:
        ConfigError: if a picture cannot be written to a file of that name.
    """
    numbers = image.with_suffix(".json")
    save_explanation(explained, image)
    write_whole(numbers, (json.dumps(explained.as_dict()) + "\n").encode())
    return image, numbers


def max_new_tokens(config: DictConfig, run: Mapping[str, Any]) -> int:
    """The longest answer of the checkpoint's run, which its classes may have raised.

    What the command line sets anew holds instead.
    """
    asked = int(config.stage.max_new_tokens)
    set_anew = asked != run["config"]["stage"]["max_new_tokens"]
    return asked if set_anew else run.get("max_new_tokens", asked)


def asked_about(config: DictConfig) -> Item:
    """The prompt about the film of `config.video`."""
    path = Path(config.video)
    return Item.question(
        item_id=path.stem,
        video_id=path.stem,
        source=path,
        prompt=config.prompt,
        target="",
        task="ask",
    )


def read_video(config: DictConfig, image_size: int) -> Batch:
    """The video of `config.video` as a batch of one, frames S×S.

    Raises:
        VideoError: if it is missing or cannot be decoded.
    """
    item = asked_about(config)
    data = config.data
    dataset = VideoDataset(
        [item],
        num_frames=data.num_frames,
        sample_fps=data.get("sample_fps"),
        image_size=image_size,
        subtitles=check_choice(data.get("subtitles")),
    )
    batch = collate([dataset[0]])
    if batch.broken:
        raise VideoError(f"the video cannot be used: {batch.broken[0]}")
    return batch


def show(
    rows: list[dict[str, object]],
    config: DictConfig,
    at_s: float | None = None,
    files: tuple[Path, ...] | None = None,
) -> None:
    """Print the answers, given at `at_s` of a stream, as a table or as one line of JSON.

    `files` are those with an explanation.
    """
    if config.format == "json":
        moment = {} if at_s is None else {"at_s": at_s}
        told = {} if files is None else {"explanation": [str(path) for path in files]}
        line = {"video": config.video, "prompt": config.prompt, **moment, "answers": rows, **told}
        print(json.dumps(line), flush=True)
        return
    kind = "probability among the candidates" if config.candidates else "probability"
    title = config.prompt if at_s is None else f"{config.prompt} (at {at_s:g} s)"
    table = Table("answer", kind, title=escape(title), title_justify="left")
    for row in rows:
        table.add_row(escape(str(row["answer"])), f"{row['probability']:.3f}")
    Console().print(table)
    for path in files or ():
        Console().print(f"explained in {path}", soft_wrap=True, markup=False)
