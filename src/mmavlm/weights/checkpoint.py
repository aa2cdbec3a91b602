"""What a checkpoint holds: trainable weights and the whole config, never a frozen part."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.core.checksums import damage_of_zip
from mmavlm.core.errors import CheckpointError
from mmavlm.core.files import BEFORE_DAMAGE
from mmavlm.core.given_files import require_checkpoint
from mmavlm.weights import moved
from mmavlm.weights.exported import MODEL_TYPE, ExportedFolder

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

RUN_KEY = MODEL_TYPE  # where a checkpoint keeps stage, config and overrides of its run
STATE_KEY = "state_dict"  # Lightning's, of weights by name
RNG_KEY = "rng"  # the state of torch's generator
PLACE_KEY = "place"  # how far the training loader is
METRICS_KEY = "metrics"  # what was logged last under each name
GATHERING_KEY = "gathering"  # and whether gradients were being gathered, which it does not hold


def trainable_state(module: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters of a module by name, and the buffers that are fitted to data."""
    learned = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    return learned | _fitted(module)


def _fitted(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that parts of a module name as `fitted`, by name."""
    return {
        f"{part_name}.{name}".lstrip("."): getattr(part, name)
        for part_name, part in module.named_modules()
        for name in getattr(part, "fitted", ())
    }


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of one of the stages, or its export, read without running code from it.

    Checksums are verified first, and sizes before anything is allocated.

    Raises:
        CheckpointError: if the file is missing, damaged, holds pickled code, or is not ours.
    """
    path = Path(path)
    require_checkpoint(path)
    if path.is_dir():
        return ExportedFolder.read(path).as_checkpoint()
    if damage := damage_of_zip(path):
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({damage}); it is damaged, or torch did not write "
            "it: take another one, or fetch it again"
        )
    import torch  # here, so that a path which leads nowhere is refused at once

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        _require_held(checkpoint, path.stat().st_size)
    except Exception as error:  # torch raises many kinds; all mean the file cannot be trusted
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); it is damaged, or holds pickled code, which is refused"
        ) from error
    if not isinstance(checkpoint, dict) or RUN_KEY not in checkpoint:
        raise CheckpointError(
            f"checkpoint {path} was not written by mmavlm (no {RUN_KEY!r} entry); "
            "give a checkpoint of one of the two stages"
        )
    today = {RUN_KEY: moved.run_settings(checkpoint[RUN_KEY])}
    if isinstance(state := checkpoint.get(STATE_KEY), dict):
        today[STATE_KEY] = moved.weights(state)
    return {**checkpoint, **today}


def _require_held(value: Any, held: int) -> None:
    """Refuse tensors that claim more bytes than the file holds, as torch 2.6 does not."""
    import torch  # here, as above

    if isinstance(value, torch.Tensor):
        if (claimed := value.untyped_storage().nbytes()) > held:
            raise ValueError(f"a tensor of {claimed} bytes does not match expected size {held}")
    elif isinstance(value, Mapping):
        for inner in value.values():
            _require_held(inner, held)
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_held(inner, held)


def newest_checkpoint(folders: Iterable[Path]) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint written last in any of the folders that can be read, and what it holds.

    Broken ones are named in the log and passed over, and so are those in the middle of gathered
    gradients; those a run left before it gave up are none to go on with.
    """
    found = [p for folder in folders for p in folder.glob("*.ckpt") if p.name != BEFORE_DAMAGE]
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            log.warning("passed over: %s", error)
        else:
            if not checkpoint.get(GATHERING_KEY):
                return path, checkpoint
            log.info("passed over: %s was written between two batches of one step", path)
    return None


def load_trainable(
    module: nn.Module, state: Mapping[str, Tensor], where: str, *, may_differ: tuple[str, ...] = ()
) -> list[str]:
    """Copy `state` into the trainable parameters and fitted buffers of `module`, strictly.

    Names that start with one of `may_differ` may be on one side alone; those absent from
    `state` are returned. Buffers that a state lacks, of before they were fitted, stay as they are.
    Nothing is copied unless everything fits.

    Raises:
        CheckpointError: listing the keys that are missing, unexpected or of another shape.
    """
    wanted, fitted = trainable_state(module), _fitted(module)
    missing = [name for name in wanted if name not in state and name not in fitted]
    absent = [name for name in missing if name.startswith(may_differ)]
    problems = [f"missing: {name}" for name in missing if not name.startswith(may_differ)]
    problems += [
        f"unexpected: {name}"
        for name in state
        if name not in wanted and not name.startswith(may_differ)
    ]
    problems += [
        f"shape of {name}: {tuple(state[name].shape)} in the checkpoint, {tuple(p.shape)} here"
        for name, p in wanted.items()
        if name in state and state[name].shape != p.shape
    ]
    if problems:
        shown = "\n  ".join(problems[:10])
        more = f"\n  … and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CheckpointError(
            f"{where} is of another architecture ({len(problems)} keys differ):\n  {shown}{more}\n"
            "use the model settings the checkpoint was trained with"
        )
    import torch

    with torch.no_grad():
        for name, tensor in wanted.items():
            if name in state:
                tensor.copy_(state[name])
    return absent
