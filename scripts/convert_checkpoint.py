"""Convert weights: LAVIS's .pth (InstructBLIP, MA-LMM, Video-LLaMA) or LLaMA-VID's folder ↔ ours.

python scripts/convert_checkpoint.py checkpoint_best.pth malmm.safetensors --partial
python scripts/convert_checkpoint.py outputs/<run>/checkpoints/best.ckpt back.pth --partial
python scripts/convert_checkpoint.py llama-vid-7b-full-224-video-fps-1 llama_vid.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmavlm.commands.cli import exit_on_mistake
from mmavlm.weights.convert import convert


def main() -> None:
    """Parse the command line, convert, say what became of the keys."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help=".pth, .safetensors, .ckpt or folder")
    parser.add_argument("target", type=Path, help=".safetensors (ours), .pth, .bin")
    parser.add_argument("--partial", action="store_true", help="let whole parts be absent")
    parser.add_argument("--report", type=Path, help="a file that takes every key, as JSON")
    parser.add_argument(
        "--language-model", choices=("llm", "t5"), default="llm",
        help="what LAVIS's class calls it, on the way back: llm (Vicuna), t5 (Flan-T5)",
    )  # fmt: skip
    options = parser.parse_args()
    with exit_on_mistake():
        report = convert(
            options.source,
            options.target,
            partial=options.partial,
            language_model=options.language_model,
            report_to=options.report,
        )
        print(report)
        print(f"written: {options.target}")


if __name__ == "__main__":
    main()
