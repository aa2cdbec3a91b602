"""Files that a user names: whether they are there, said before anything that takes time."""

from __future__ import annotations

from pathlib import Path

from mmavlm.core.errors import CheckpointError

AUTO = "auto"  # resume=auto: whatever checkpoint a run has left
KEPT = "checkpoints"  # the folder of a run's
OF_A_RUN = ("best.ckpt", "last.ckpt")  # in order of preference


def checkpoint_of_run(path: Path) -> Path:
    """The best checkpoint of the folder of a run, or else the last; anything else as it is.

    Raises:
        CheckpointError: if the run has neither.
    """
    kept = path / KEPT
    if not kept.is_dir():
        return path
    for name in OF_A_RUN:
        if (kept / name).is_file():
            return kept / name
    there = ", ".join(sorted(path.name for path in kept.iterdir())) or "nothing"
    raise CheckpointError(
        f"{path} is the folder of a run, and {kept} holds {there}; expected {OF_A_RUN[0]} or "
        f"{OF_A_RUN[1]}: let the run go on (resume=auto), or name another checkpoint"
    )


def require_checkpoint(path: Path) -> None:
    """Refuse what is neither the file of a checkpoint nor a folder, such as an export.

    Raises:
        CheckpointError: if nothing is there, or it is the folder of a run.
    """
    if (path / KEPT).is_dir():
        raise CheckpointError(
            f"{path} is the folder of a run; name one of its checkpoints, such as "
            f"{path / KEPT / OF_A_RUN[0]}"
        )
    if not path.is_dir() and not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} does not exist; give the path of a .ckpt file, "
            "such as outputs/<run>/checkpoints/last.ckpt, or of an exported folder"
        )


def require_weights(path: Path) -> None:
    """Refuse a file of weights that is not there.

    Raises:
        CheckpointError: naming it.
    """
    if not path.is_file():
        raise CheckpointError(
            f"the weights {path} do not exist; give a .safetensors file, such as "
            "mmavlm convert writes"
        )
