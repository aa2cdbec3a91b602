"""Ask about one film: `python -m mmavlm.predict checkpoint=… video=film.mp4 prompt="…"`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from mmavlm.batch import VideoTextBatch
from mmavlm.cli import exit_on_mistake, overrides_of_checkpoint, run_command
from mmavlm.data.collate import collate
from mmavlm.data.dataset import VideoDataset
from mmavlm.errors import ConfigError, VideoError
from mmavlm.interfaces import Answer, VideoItem
from mmavlm.run import build_backbone
from mmavlm.stages.checkpoint import RUN_KEY, load_trainable, read_checkpoint


@torch.inference_mode()
def predict(cfg: DictConfig) -> None:
    """Print the answers to one prompt about one video, with their probabilities."""
    backbone = build_backbone(cfg).eval()
    if backbone.llm is None:
        raise ConfigError(
            f"checkpoint {cfg.checkpoint} is of stage 1, which has no LLM; give one of stage 2"
        )
    checkpoint = read_checkpoint(cfg.checkpoint)
    weights = checkpoint["state_dict"].items()
    state = {name.removeprefix("backbone."): value for name, value in weights}
    load_trainable(backbone, state, f"checkpoint {cfg.checkpoint}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = read_video(cfg, backbone.encoder.image_size).to(device)
    backbone.to(device)
    tokens = backbone.video_tokens(backbone.remember(backbone.watch(batch)))
    if cfg.candidates:
        candidates = [str(candidate) for candidate in cfg.candidates]
        scores = backbone.llm.rank(tokens, batch.prompt, candidates)[0]
        shares = scores.softmax(dim=0).tolist()
        answers = [Answer(c, s) for c, s in zip(candidates, scores.tolist(), strict=True)]
    else:
        answers = backbone.llm.generate(
            tokens,
            batch.prompt,
            num_beams=max(cfg.stage.num_beams, cfg.num_answers),
            num_answers=cfg.num_answers,
            max_new_tokens=max_new_tokens(cfg, checkpoint[RUN_KEY]),
        )[0]
        shares = torch.tensor([answer.log_prob for answer in answers]).exp().tolist()
    ranked = sorted(zip(answers, shares, strict=True), key=lambda pair: -pair[1])
    show([{"answer": a.text, "probability": p, "log_prob": a.log_prob} for a, p in ranked], cfg)


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
    path = Path(cfg.video)
    if not path.exists():
        raise VideoError(f"video {path} does not exist; give the path of a video file")
    item = VideoItem(
        item_id=path.stem, video_id=path.stem, source=path, prompt=cfg.prompt, target="", task="ask"
    )
    dataset = VideoDataset([item], num_frames=cfg.data.num_frames, image_size=image_size)
    batch = collate([dataset[0]])
    if batch.broken:
        raise VideoError(f"the video cannot be used: {batch.broken[0]}")
    return batch


def show(rows: list[dict[str, object]], cfg: DictConfig) -> None:
    """Print the answers as a table, or as one line of JSON."""
    if cfg.format == "json":
        print(json.dumps({"video": cfg.video, "prompt": cfg.prompt, "answers": rows}))
        return
    kind = "probability among the candidates" if cfg.candidates else "probability"
    table = Table("answer", kind, title=f"{cfg.prompt}", title_justify="left")
    for row in rows:
        table.add_row(str(row["answer"]), f"{row['probability']:.3f}")
    Console().print(table)


def main() -> None:
    """Entry point of `mmavlm-predict`."""
    with exit_on_mistake():
        sys.argv[1:1] = overrides_of_checkpoint(sys.argv[1:])
    run_command(predict, "predict")


if __name__ == "__main__":
    main()
