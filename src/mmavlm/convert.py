"""Convert weights, or pickles of features: `python -m mmavlm.convert <source> <target>`.

Weights are LAVIS's .pth (InstructBLIP, MA-LMM, Video-LLaMA) or LLaMA-VID's folder ↔ ours. Pickles
are LLaMA-VID's and MovieLLM's features of films, converted to files that runs read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmavlm.commands.plain import run_plain
from mmavlm.core.errors import ConfigError

PICKLES = (".pkl", ".pickle")
OF_WEIGHTS, OF_PICKLES = ("partial", "report", "language_model"), ("fps", "placeholder")


def convert(source: Sequence[Path], target: Path, **settings: Any) -> int:
    """Convert what the sources hold, and say what became of it; 0.

    Raises:
        ConfigError: if weights and pickles are mixed, or a setting is of the other kind.
        CheckpointError: naming weights that cannot be read, do not fit, or cannot be written.
        DataError: naming a pickle that cannot be used.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    pickles = [path for path in source if path.suffix in PICKLES]
    if pickles and len(pickles) < len(source):
        other = next(path for path in source if path not in pickles)
        raise ConfigError(f"{other} is no .pkl file as the others are; convert them apart")
    _refuse_others(given, pickles=bool(pickles))
    if pickles:
        from mmavlm.data.converted_features import convert_features

        for said in convert_features(pickles, target, **given):
            print(said, flush=True)
        return 0
    if len(source) > 1:
        names = ", ".join(map(str, source))
        raise ConfigError(f"{names} are several sources of weights; convert one at a time")
    # Imported here, so that mistakes are told before torch is there.
    from mmavlm.weights.convert import convert as convert_weights

    report_to = given.pop("report", None)
    print(convert_weights(source[0], target, report_to=report_to, **given))
    print(f"written: {target}")
    return 0


def _refuse_others(given: dict[str, Any], *, pickles: bool) -> None:
    others = OF_WEIGHTS if pickles else OF_PICKLES
    if wrong := [key for key in given if key in others]:
        what, instead = ("weights", "pickles") if pickles else ("pickles", "weights")
        raise ConfigError(f"{', '.join(wrong)} is of {what}, and {instead} are given; leave it out")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mmavlm-convert`."""
    run_plain("convert", convert, arguments)


if __name__ == "__main__":
    main()
