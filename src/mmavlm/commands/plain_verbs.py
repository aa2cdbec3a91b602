"""The commands without a config: what each does, takes and is used by most."""

from __future__ import annotations

from collections.abc import Mapping

from mmavlm.commands.command import Command, Plain, home_path, truth

TABLE_OR_JSON = ("table", "json")
SHELLS = ("bash", "zsh", "fish")
KINDS = ("fusion", "memory", "reader")
_EXTRACTION = (
    Plain("fps", "pictures a second", float, 10.0),
    Plain("short_side", "of a picture, in pixels; smaller films stay as they are", int, 256),
    Plain("quality", "of JPEG, 1 to 100", int, 95),
    Plain("workers", "processes that decode; left out: one a core", int),
)

PLAIN: Mapping[str, Command] = {
    "demo": Command(
        "Train both stages on synthetic films in this folder, test, report: no data, no GPU.",
        (
            "",
            "quick=true",
            "seed=43 hydra.run.dir=outputs/demo_43",
            "fusion=prompt_to_visual hydra.run.dir=outputs/demo_fusion",
        ),
        settings=(
            Plain("quick", "true: a few films and steps, to see that all works", truth, False),
            Plain("threads", "of the processor; more than two are slower", int, 2),
        ),
        passes_on=True,
    ),
    "doctor": Command(
        "Say what is here, what is missing and what for: versions, GPU, FFmpeg, disk, Java, hub.",
        ("", "format=json", "timeout_s=10"),
        settings=(
            Plain("format", "table, or json for programs", str, "table", choices=TABLE_OR_JSON),
            Plain("timeout_s", "how long the hub may take to answer, in seconds", float, 3.0),
        ),
    ),
    "prepare": Command(
        "Make a public set ready: extract frames, and compare their number with the annotation.",
        (
            "lvu root=/data",
            "lvu root=/data write_counts=true",
            "msvd_qa root=/data videos=/films/msvd workers=8",
        ),
        words=(Plain("set", "a set of conf/data whose annotation counts frames, such as lvu"),),
        settings=(
            Plain("root", "as data.root: the folder that holds the set", home_path, needed=True),
            Plain("videos", "the folder of films, if it is not <root>/<set>/videos", home_path),
            Plain("write_counts", "true: write a copy with the numbers there are", truth, False),
            *_EXTRACTION,
        ),
    ),
    "extract-frames": Command(
        "Extract films to folders of JPEGs, 10 a second, as MA-LMM's annotations count them.",
        (
            "videos=data/lvu/videos frames=data/lvu/frames",
            "videos=films frames=pictures fps=5 short_side=224",
        ),
        module="extract_frames",
        settings=(
            Plain("videos", "the folder of films, searched deep", home_path, needed=True),
            Plain(
                "frames", "the folder to write a folder for each film to", home_path, needed=True
            ),
            *_EXTRACTION,
        ),
    ),
    "convert": Command(
        "Convert weights of LAVIS or LLaMA-VID to ours and back, or pickles of film features.",
        (
            "checkpoint_best.pth malmm.safetensors partial=true report=keys.json",
            "outputs/<run>/checkpoints/best.ckpt back.pth partial=true",
            "llama-vid-7b-full-224-video-fps-1 llama_vid.safetensors",
            "story_feat/*.pkl data/stories/story_feat",
        ),
        words=(
            Plain(
                "source", "a .pth, .safetensors or .ckpt file, a folder, or .pkl files", home_path
            ),
            Plain(
                "target",
                "a .safetensors (ours), .pth or .bin file; of pickles a folder",
                home_path,
            ),
        ),
        settings=(
            Plain("partial", "true: whole parts may be absent", truth),
            Plain("report", "a file that takes every key, as JSON", home_path),
            Plain(
                "language_model",
                "what LAVIS's class calls it, on the way back: llm (Vicuna), t5 (Flan-T5)",
                choices=("llm", "t5"),
            ),
            Plain("fps", "of pickles: frames a second; left out: 1, as LLaMA-VID has", float),
            Plain("placeholder", "of pickles: what stands for a frame; left out: <image>"),
        ),
        many=True,
    ),
    "new": Command(
        "Make a package with a part of your own: a fusion, memory or reader, its yaml, its test.",
        ("fusion my_fusion", "memory my_memory folder=~/parts", "reader my_reader"),
        words=(
            Plain("kind", "fusion, memory or reader", choices=KINDS),
            Plain("package", "what it is called: small letters, digits and _"),
        ),
        settings=(Plain("folder", "where to make it", home_path, home_path(".")),),
    ),
    "completion": Command(
        "Print what makes a shell complete commands, settings and choices.",
        ("bash", "zsh", "fish"),
        words=(Plain("shell", "bash, zsh or fish", choices=SHELLS),),
    ),
}
