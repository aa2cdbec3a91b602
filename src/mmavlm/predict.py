"""Ask about one film: `python -m mmavlm.predict checkpoint=… video=film.mp4 prompt="…"`.

Without a checkpoint, `experiment=zero_shot_own_videos` asks what is pretrained, and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mmavlm.backbone import VideoLanguageModel
from mmavlm.batch import VideoTextBatch
from mmavlm.cli import exit_on_mistake, laid_over_checkpoint, run_command
from mmavlm.data.collate import collate
from mmavlm.data.dataset import VideoDataset
from mmavlm.data.probe import probe
from mmavlm.data.transforms import ClipTransform
from mmavlm.data.video import shown_pictures
from mmavlm.errors import ConfigError, VideoError
from mmavlm.explain import explain, stretches_of
from mmavlm.files import write_whole
from mmavlm.interfaces import Answer, LanguageModel, VideoItem
from mmavlm.report import save_explanation
from mmavlm.run import build_backbone
from mmavlm.stages.checkpoint import RUN_KEY, load_trainable, read_checkpoint
from mmavlm.untrained import allow_untrained


@torch.inference_mode()
def predict(cfg: DictConfig) -> None:
    """Print the answers to one prompt about one video, with their probabilities.

    With `stream_fps` the film is watched frame by frame in constant memory, however long it is,
    and asked every `every_s` seconds and at its end.
    """
    if cfg.explain and cfg.stream_fps is not None:
        raise ConfigError("explain=true looks at a film as a whole; leave out stream_fps")
    backbone = build_backbone(cfg).eval()
    if backbone.llm is None:
        of_stage_1 = f"checkpoint {cfg.checkpoint}" if cfg.checkpoint else "this experiment"
        raise ConfigError(f"{of_stage_1} is of stage 1, which has no LLM; give one of stage 2")
    if cfg.checkpoint is None:
        allow_untrained(cfg, backbone)
        longest = int(cfg.stage.max_new_tokens)
    else:
        checkpoint = read_checkpoint(cfg.checkpoint)
        weights = checkpoint["state_dict"].items()
        state = {name.removeprefix("backbone."): value for name, value in weights}
        load_trainable(backbone, state, f"checkpoint {cfg.checkpoint}")
        longest = max_new_tokens(cfg, checkpoint[RUN_KEY])
    backbone.to("cuda" if torch.cuda.is_available() else "cpu")
    for at_s, tokens in moments(cfg, backbone):
        answers = ask(cfg, backbone.llm, tokens, longest)
        files = explain_answer(cfg, backbone, answers) if cfg.explain else None
        show(answers, cfg, at_s, files)


def moments(cfg: DictConfig, backbone: VideoLanguageModel) -> Iterator[tuple[float | None, Tensor]]:
    """When the film is to be asked about, in seconds (None: at its end), with its video tokens.

    Raises:
        ConfigError: if `stream_fps` or `every_s` is not above 0, or `every_s` stands alone.
        VideoError: if the video is missing or cannot be decoded.
    """
    for key in ("stream_fps", "every_s"):
        if cfg[key] is not None and cfg[key] <= 0:
            raise ConfigError(f"{key} must be above 0, got {cfg[key]}")
    if cfg.stream_fps is None:
        if cfg.every_s is not None:
            raise ConfigError("every_s asks along a stream; give stream_fps too, such as 1")
        batch = read_video(cfg, backbone.encoder.image_size)
        batch = batch.to(backbone.frame_positions.weight.device)
        yield None, backbone.video_tokens(backbone.remember(backbone.watch(batch)))
        return
    info = probe(existing(cfg.video))
    times_s = [k / cfg.stream_fps for k in range(max(1, ceil(info.duration_s * cfg.stream_fps)))]
    transform = ClipTransform(backbone.encoder.image_size, None)
    frames = (transform(picture)[None] for _, picture in shown_pictures(info, times_s))
    last = len(times_s) - 1
    for t, state in enumerate(backbone.stream(frames, [cfg.prompt])):
        asked = cfg.every_s is not None and (
            times_s[t] // cfg.every_s < (t + 1) / cfg.stream_fps // cfg.every_s
        )
        if asked or t == last:
            yield times_s[t], backbone.video_tokens(state)


def ask(
    cfg: DictConfig, llm: LanguageModel, tokens: Tensor, longest: int
) -> list[dict[str, object]]:
    """The answers to the prompt about the film behind `tokens` (1,K,Dl), most probable first."""
    if cfg.candidates:
        candidates = [str(candidate) for candidate in cfg.candidates]
        scores = llm.rank(tokens, [cfg.prompt], candidates)[0]
        shares = scores.softmax(dim=0).tolist()
        answers = [Answer(c, s) for c, s in zip(candidates, scores.tolist(), strict=True)]
    else:
        answers = llm.generate(
            tokens,
            [cfg.prompt],
            num_beams=max(cfg.stage.num_beams, cfg.num_answers),
            num_answers=cfg.num_answers,
            min_new_tokens=cfg.stage.min_new_tokens,
            max_new_tokens=longest,
            repetition_penalty=cfg.stage.repetition_penalty,
            length_penalty=cfg.stage.length_penalty,
        )[0]
        shares = torch.tensor([answer.log_prob for answer in answers]).exp().tolist()
    ranked = sorted(zip(answers, shares, strict=True), key=lambda pair: -pair[1])
    return [{"answer": a.text, "probability": p, "log_prob": a.log_prob} for a, p in ranked]


def explain_answer(
    cfg: DictConfig, backbone: VideoLanguageModel, answers: list[dict[str, object]]
) -> tuple[Path, Path]:
    """Write what `explain_answer`, or else the best answer, rests on: a picture, and its numbers.

    Raises:
        ConfigError: if the answer is empty, the film cannot be cut into so many stretches, or a
            picture cannot be written to a file of that name.
    """
    answer = str(answers[0]["answer"] if cfg.explain_answer is None else cfg.explain_answer)
    batch = read_video(cfg, backbone.encoder.image_size)
    batch = batch.to(backbone.frame_positions.weight.device)
    stretches = cfg.explain_stretches
    if stretches is None:
        stretches = stretches_of(int(batch.frame_mask.sum()))
    (explained,) = explain(backbone, batch, [answer], stretches=stretches)
    name = cfg.explain_to or f"{Path(cfg.video).stem}_explained.png"
    image, numbers = Path(name), Path(name).with_suffix(".json")
    save_explanation(explained, image)
    write_whole(numbers, (json.dumps(explained.as_dict()) + "\n").encode())
    return image, numbers


def max_new_tokens(cfg: DictConfig, run: Mapping[str, Any]) -> int:
    """The longest answer of the checkpoint's run, which its classes may have raised.

    What the command line sets anew holds instead.
    """
    asked = int(cfg.stage.max_new_tokens)
    set_anew = asked != run["config"]["stage"]["max_new_tokens"]
    return asked if set_anew else run.get("max_new_tokens", asked)


def read_video(cfg: DictConfig, image_size: int) -> VideoTextBatch:
    """The video of `cfg.video` as a batch of one, frames S×S.

    Raises:
        VideoError: if it is missing or cannot be decoded.
    """
    path = existing(cfg.video)
    item = VideoItem(
        item_id=path.stem, video_id=path.stem, source=path, prompt=cfg.prompt, target="", task="ask"
    )
    dataset = VideoDataset([item], num_frames=cfg.data.num_frames, image_size=image_size)
    batch = collate([dataset[0]])
    if batch.broken:
        raise VideoError(f"the video cannot be used: {batch.broken[0]}")
    return batch


def existing(video: str) -> Path:
    """The path of a video.

    Raises:
        VideoError: if there is nothing.
    """
    path = Path(video)
    if not path.exists():
        raise VideoError(f"video {path} does not exist; give the path of a video file")
    return path


def show(
    rows: list[dict[str, object]],
    cfg: DictConfig,
    at_s: float | None = None,
    files: tuple[Path, ...] | None = None,
) -> None:
    """Print the answers, given at `at_s` of a stream, as a table or as one line of JSON.

    `files` are those with an explanation.
    """
    if cfg.format == "json":
        moment = {} if at_s is None else {"at_s": at_s}
        told = {} if files is None else {"explanation": [str(path) for path in files]}
        line = {"video": cfg.video, "prompt": cfg.prompt, **moment, "answers": rows, **told}
        print(json.dumps(line), flush=True)
        return
    kind = "probability among the candidates" if cfg.candidates else "probability"
    title = cfg.prompt if at_s is None else f"{cfg.prompt} (at {at_s:g} s)"
    table = Table("answer", kind, title=title, title_justify="left")
    for row in rows:
        table.add_row(str(row["answer"]), f"{row['probability']:.3f}")
    Console().print(table)
    for path in files or ():
        Console().print(f"explained in {path}", soft_wrap=True, markup=False)


def main() -> None:
    """Entry point of `mmavlm-predict`."""
    with exit_on_mistake():
        sys.argv[1:] = laid_over_checkpoint(sys.argv[1:])
    run_command(predict, "predict")


if __name__ == "__main__":
    main()
