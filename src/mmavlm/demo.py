"""The demo without a clone: `python -m mmavlm.demo` trains both stages on synthetic films."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Collection, Sequence

from mmavlm.commands.plain import run_plain
from mmavlm.core.config_files import config_dir, groups, settings
from mmavlm.core.errors import ConfigError
from mmavlm.core.nearest import nearest

FOLDER = "hydra.run.dir"
OWN = ("quick", "threads")
OUT, QUICK_OUT = "outputs/demo", "outputs/demo_quick"
# All of the demo's parts, and too little of each to learn anything.
QUICK = (
    "prepare.clips=40",
    "prepare.workers=0",
    "data.root=data/demo_quick",
    "data.batch_size=8",
    "data.num_frames=4",
    "trainer.max_epochs=1",
    "trainer.check_val_every_n_epoch=1",
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def demo(quick: bool, threads: int, others: Sequence[str]) -> int:
    """Train `experiment=demo` in this folder, with `others` laid over it; 0.

    Raises:
        ConfigError: if `threads` is not positive, another experiment is named, or a setting is
            nearly one of the demo's.
    """
    if threads < 1:
        raise ConfigError(f"threads={threads} must be at least 1")
    given = {argument.partition("=")[0] for argument in others}
    _refuse_slips(given)
    if "experiment" in given:
        raise ConfigError(
            "the demo is an experiment itself; for another: mmavlm train experiment=…"
        )
    # Read when torch is imported, which it is not yet. Two threads take so small a model 0.7 of the
    # time of one; with more it is slower again.
    for name in THREADS:
        os.environ.setdefault(name, str(threads))
    line = ["experiment=demo", *(QUICK if quick else ())]
    if FOLDER not in given:
        line.append(f"{FOLDER}={QUICK_OUT if quick else OUT}")
    sys.argv = ["train", *line, *others]
    # As `python -m` starts it, so that Lightning and multiprocessing start it again likewise.
    runpy.run_module("mmavlm.train", run_name="__main__", alter_sys=True)
    return 0


def _refuse_slips(given: Collection[str]) -> None:
    """Refuse what a training has no setting of, and is nearly one of the demo's own."""
    path = config_dir() / "train.yaml"
    known = {setting.key.partition(".")[0] for setting in (*groups(path), *settings(path))}
    for key in sorted(given):
        if key not in known and (near := nearest(key, OWN)):
            raise ConfigError(f"there is no setting {key}; did you mean {near[0]}?")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mmavlm-demo`."""
    run_plain("demo", demo, arguments)


if __name__ == "__main__":
    main()
