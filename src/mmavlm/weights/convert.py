"""Weight files: published ones read and written without pickled code, ours as safetensors."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mmavlm.core.checksums import damage_of_zip
from mmavlm.core.errors import CheckpointError, first_line
from mmavlm.core.files import written_whole
from mmavlm.weights.checkpoint import read_checkpoint
from mmavlm.weights.exported import OF_STAGES
from mmavlm.weights.lavis import KeyReport, to_lavis, to_ours
from mmavlm.weights.pretrained import PretrainedFolder
from mmavlm.weights.weight_files import WeightFile, unshared, write_weights

OURS, LAVIS, ALONE = ".safetensors", ".pth", ".bin"


def convert(
    source: Path,
    target: Path,
    *,
    partial: bool = False,
    language_model: str = "llm",
    report_to: Path | None = None,
) -> KeyReport:
    """Convert a file of weights; what `target` ends in says which way, and is written whole.

    `.safetensors` is ours, made from LAVIS's `.pth`, or a folder as transformers writes it, in
    shards or not; `.pth` is LAVIS's, made from a `.safetensors`, a checkpoint or an exported
    folder, and `.bin` the same as LLaMA-VID and transformers read it, the state alone.
    `report_to` takes every key as JSON.

    Raises:
        CheckpointError: if the source cannot be read safely or does not fit, or the target's
            ending is neither, or it cannot be written.
    """
    if target.suffix == OURS:
        state, report = to_ours(read_theirs(source), str(source), partial=partial)
        with _written(target) as path:
            write_weights(state, path)
    elif target.suffix in (LAVIS, ALONE):
        state, report = to_lavis(
            read_ours(source), str(source), partial=partial, language_model=language_model
        )
        with _written(target) as path:
            stored = unshared(state)
            torch.save(stored if target.suffix == ALONE else {"model": stored}, path)
    else:
        raise CheckpointError(
            f"{target} ends in neither {OURS} (ours) nor {LAVIS} (LAVIS's) or {ALONE} "
            "(LLaMA-VID's); name the file that is to be written accordingly"
        )
    if report_to is not None:
        with _written(report_to) as path:
            path.write_text(json.dumps(asdict(report), indent=2), encoding="utf-8")
    return report


@contextmanager
def _written(target: Path) -> Iterator[Path]:
    """As `written_whole`, with an error that a user can mend."""
    try:
        with written_whole(target) as path:
            yield path
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{target} cannot be written ({first_line(error)}); make room, or name another place"
        ) from error


def read_theirs(path: Path) -> dict[str, Tensor]:
    """The state dict of a file by LAVIS, or of a folder of transformers, whole or in shards.

    Raises:
        CheckpointError: if it is missing, damaged, holds pickled code, or no state dict.
    """
    return PretrainedFolder(path).state_dict() if path.is_dir() else read_lavis(path)


def read_lavis(path: Path) -> dict[str, Tensor]:
    """The state dict of a file by LAVIS: `{"model": state}`, or the state alone.

    Raises:
        CheckpointError: if the file is missing, damaged, holds pickled code, or no state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give a .pth file written by LAVIS")
    is_zip = zipfile.is_zipfile(path)  # older files of torch are none, and have no checksums
    if is_zip and (damage := damage_of_zip(path)):
        raise CheckpointError(f"{path} cannot be read ({damage}); it is damaged: fetch it anew")
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({first_line(error)}); it is damaged: fetch it anew"
        ) from error
    state = stored.get("model", stored) if isinstance(stored, dict) else stored
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise CheckpointError(
            f"{path} holds no state dict; expected {{'model': {{name: tensor}}}}, as LAVIS saves"
        )
    return state


def read_ours(path: Path) -> dict[str, Tensor]:
    """A state by the names of `VideoLanguageModel`, of a safetensors file, checkpoint or export.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    if path.suffix == OURS:
        return WeightFile(path).state()
    weights = read_checkpoint(path)["state_dict"].items()
    return {name.removeprefix(OF_STAGES): tensor for name, tensor in weights}


def _refused(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    """What to say of a file that torch does not take for plain weights."""
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line]
    if not lines:
        return CheckpointError(
            f"{path} cannot be read as weights; it is damaged, or no file that torch wrote: "
            "fetch it anew"
        )
    return CheckpointError(
        f"{path} holds pickled code beside weights, which is refused and was not run "
        f"({lines[0]}); if you trust where it comes from, load it there, keep its 'model' alone "
        "and save that anew"
    )
