"""The commands by name: what each does, its config files, and the lines it is used by most."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from mmavlm.commands.command import Command, Plain
from mmavlm.commands.plain_verbs import PLAIN

MOVIE_KINDS = ("lvu", "stories", "bias", "bias_order", "bias_sound", "duet")
CHECKPOINT = "checkpoint=outputs/<run>/checkpoints/best.ckpt"
OWN_VIDEOS = """Your own videos: a line a question in /data/train.jsonl, val.jsonl and test.jsonl,
  {"video": "clips/dog.mp4", "prompt": "what does the dog do?", "answer": "it barks"}
  then: mmavlm check data=own_videos data.root=/data      (tells what cannot be used, and why)
        mmavlm train experiment=own_videos data.root=/data"""
OUTPUTS = """What a run leaves in outputs/<date>/<time>/ of this folder, or in hydra.run.dir=…:
  report.html (open it first), metrics.json, predictions.jsonl, checkpoints/, config.yaml
  then: mmavlm chat checkpoint=outputs/<date>/<time>/checkpoints/best.ckpt video=film.mp4
  A run that was stopped goes on: the same line with its hydra.run.dir=… and resume=auto."""

COMMANDS: Mapping[str, Command] = {
    "train": Command(
        "Train a model, one stage or both as the experiment says; test it; write a report.",
        (
            "experiment=demo                            # to try it: no data, no GPU, minutes",
            "experiment=own_videos data.root=/data      # your own videos (below)",
            "experiment=lvu_genre data.root=/data trainer.max_epochs=5 optimizer.lr=5e-5",
            "experiment=lvu_genre data.root=/data hydra.run.dir=outputs/lvu resume=auto",
            "-m experiment=demo fusion=none,bidirectional seed=1,2    # a sweep of four runs",
        ),
        ("train",),
        notes=(OWN_VIDEOS, OUTPUTS),
    ),
    "evaluate": Command(
        "Test a checkpoint or pretrained weights; or score predictions again, or compare two runs.",
        (
            f"{CHECKPOINT} data.root=/data",
            f"{CHECKPOINT} experiment=eval_videohallucer data.root=/data",
            "experiment=zero_shot_msvd_qa data.root=/data",
            "predictions=outputs/<run>",
            "'compare=[outputs/<run>,outputs/<other>]' judge=overlap",
        ),
        ("score", "evaluate"),
    ),
    "predict": Command(
        "Ask a model about one film, or a file of questions; on request what an answer rests on.",
        (
            f'{CHECKPOINT} video=film.mp4 prompt="what happens?"',
            f'{CHECKPOINT} video=film.mp4 prompt="which?" candidates=[comedy,action] explain=true',
            f'{CHECKPOINT} video=long.mp4 prompt="what happens?" stream_fps=1 every_s=60',
            f"{CHECKPOINT} questions=q.jsonl answers_to=answers.jsonl",
            'experiment=zero_shot_own_videos video=film.mp4 prompt="what happens?" format=json',
        ),
        ("predict",),
    ),
    "chat": Command(
        "Talk with a model about films, question by question.",
        (
            f"{CHECKPOINT} video=film.mp4",
            f"{CHECKPOINT} image=photo.jpg stage.max_new_tokens=200",
            f"{CHECKPOINT} video=film.mp4 num_beams=5",
            f"{CHECKPOINT} video=film.mp4 format=json",
            "experiment=zero_shot_own_videos video=film.mp4",
        ),
        ("chat",),
    ),
    "watch": Command(
        "Watch a film or a camera as it runs: score each frame, and speak when there is reason to.",
        (
            f'{CHECKPOINT} video=film.mp4 query="tell me when it rains"',
            f'{CHECKPOINT} video=film.mp4 query="when?" speak.threshold=0.75 speak.pause_s=2',
            f'{CHECKPOINT} video=film.mp4 query="when?" speak_as=outputs/<scores>/duet.json',
            f'{CHECKPOINT} video=film.mp4 query="when?" realtime=true format=json',
            f'{CHECKPOINT} camera=/dev/video0 query="when?"',
        ),
        ("watch",),
    ),
    "serve": Command(
        "Talk to films on a page in the browser, which shows what answers rest on.",
        (
            f"{CHECKPOINT}",
            f"{CHECKPOINT} other=outputs/<another>/checkpoints/best.ckpt",
            f"{CHECKPOINT} port=8000 open=true",
            f"{CHECKPOINT} max_mb=2000 max_minutes=120",
            "experiment=zero_shot_own_videos",
        ),
        ("serve",),
        module="serve.__main__",
    ),
    "check": Command(
        "Look at a data set before training on it: items, classes, missing and broken films.",
        (
            "data=own_videos data.root=/data",
            "data=lvu data.task=[genre,scene] data.root=/data decode=true",
            "data=msvd_qa data.root=/data format=json",
            "data=llava data.root=/data/llava tokenizer=/models/vicuna",
            "experiment=mix data.root=/data",
        ),
        ("check",),
    ),
    "cache": Command(
        "Encode a data set once, so that later runs neither decode films nor build the encoder.",
        (
            "experiment=lvu_genre data.root=/data data.cache=/data/features",
            "experiment=lvu_genre data.root=/data data.cache=/data/features write=false",
            "experiment=lvu_genre data.root=/data data.cache=/data/features splits=[test]",
            "experiment=own_videos data.root=/data data.cache=/data/features",
            "experiment=mix data.root=/data data.cache=/data/features",
        ),
        ("cache",),
    ),
    "pack": Command(
        "Make shards of a data set, to train from a bucket or to read whole from a disk.",
        (
            "data=captions data.root=/data out=s3://bucket/set",
            "data=own_videos data.root=/data out=/shards shard_mb=512 processes=8",
            "data=webvid data.root=/data out=/shards splits=[train]",
            "data=lvu data.root=/data out=/shards frames_fps=10",
            "data=msvd_qa data.root=/data out=/shards format=parquet",
        ),
        ("pack",),
    ),
    "export": Command(
        "Write a model to a folder without pickle, for the Hub and `mmavlm.load`.",
        (
            f"{CHECKPOINT} to=my_model",
            f"{CHECKPOINT} to=my_model license=cc-by-nc-4.0",
            "init.weights=parts.safetensors to=my_model",
            "init.weights=parts.safetensors model=instructblip_flan_t5 to=my_model",
            "init.weights=parts.safetensors model=tiny to=my_model",
        ),
        ("export",),
    ),
    "pope": Command(
        "Make yes/no questions about objects or sounds (POPE for video) from captions.",
        (
            "data=msvd_caption data.root=/data",
            "data=msvd_caption data.root=/data split=val to=questions",
            "data=msrvtt_caption data.root=/data per_film=5 agree=3",
            "data=captions data.root=/data about=sounds vocabulary=sounds.txt",
            "data=youcook2_caption data.root=/data agree=1 leave_out=[person]",
        ),
        ("pope",),
    ),
    "movies": Command(
        "Make synthetic films with annotations: LVU's tasks, stories, planted bias, live events.",
        (
            "out=films",
            "out=stories kind=stories films=10 fan_out=2,2,6",
            "out=biased kind=bias films=400 bias=0.9",
            "out=biased_sound kind=bias_sound films=400 bias=0.9",
            "out=watched kind=duet films=400 size=32",
        ),
        module="movies.__main__",
        # those of all kinds; the others are told by its own help
        settings=(
            Plain("out", "the folder to make the set in", needed=True),
            Plain("kind", "what is made", default="lvu", choices=MOVIE_KINDS),
            Plain("seed", "what all chance follows from", int, 0),
            Plain("size", "side of the picture in pixels", int, 96),
        ),
    ),
    **PLAIN,
}


def versions() -> str:
    """The versions of mmavlm, torch and Python in a line; nothing is imported for it."""
    return f"mmavlm {_version('mmavlm')} (torch {_version('torch')}, python {python_version()})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
