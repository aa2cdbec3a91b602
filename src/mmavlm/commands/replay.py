"""The command line of a checkpoint's run, replayed with another one laid over it."""

from __future__ import annotations

from collections.abc import Sequence

from mmavlm.commands.arguments import parsed
from mmavlm.core.errors import ConfigError
from mmavlm.core.quoting import literal
from mmavlm.core.settings import names
from mmavlm.weights.trust import Fence

# Settings that say which data a run was of: an experiment given with a checkpoint brings its own.
OF_DATA_SET = {
    "data", "data.root", "data.task", "data.reader", "data.cache", "data.limit_items",
    "data.sets", "data.weights", "data.temperature", "data.epoch_items",
}  # fmt: skip


def laid_over_checkpoint(arguments: Sequence[str]) -> list[str]:
    """The command line a checkpoint was trained with, and `arguments` laid over it.

    What is set anew is dropped from the old one; a group given anew (such as data=lvu) also drops
    the old settings below it. An experiment joins the one of the checkpoint, from which it takes
    all but the data: the model is built as it was trained. Without a checkpoint `arguments` are
    all there is, and an experiment must say what is to be asked.

    Raises:
        ConfigError: if neither a checkpoint nor an experiment is given.
        CheckpointError: if the checkpoint cannot be read, or says more than a stored setting may
            (see `mmavlm.weights.trust`).
    """
    given = {str(override.key_or_group): override.value() for override in parsed(arguments)}
    if not given.get("checkpoint"):
        if given.get("experiment"):
            return list(arguments)
        raise ConfigError(
            "no checkpoint is given; say checkpoint=outputs/<run>/checkpoints/last.ckpt, or "
            "experiment=zero_shot_msvd_qa (or another) to ask pretrained weights as they are"
        )
    # Imported here, since without a checkpoint nothing waits for torch.
    from mmavlm.weights.checkpoint import RUN_KEY, read_checkpoint
    from mmavlm.weights.exported import INSIDE_KEY

    checkpoint = read_checkpoint(str(given["checkpoint"]))
    fence = Fence.around(
        checkpoint[RUN_KEY], f"checkpoint {given['checkpoint']}", names(given.get("trust"))
    )
    dropped = {*given, "resume", "resume_accept", "checkpoint", "prepare"}
    dropped |= {"init.experiment", "init.alignment", "init.checkpoint"}
    experiments = names(given.get("experiment"))
    kept = []
    for override in parsed(checkpoint[RUN_KEY]["overrides"]):
        key = str(override.key_or_group)
        if key == "experiment" and experiments:
            fence.check(key, override.value())
            experiments = [*names(override.value()), *experiments]
        elif experiments and (
            OF_DATA_SET & {key, ".".join(key.split(".")[:2])} or key.startswith("prepare.")
        ):
            continue
        elif key not in dropped and key.split(".")[0] not in given:
            for name in filter(None, (key, override.package)):
                fence.check(name, override.value())
            kept.append(str(override.input_line))
    if experiments:
        arguments = [a for a in arguments if not a.startswith("experiment=")]
        kept.append(f"experiment=[{','.join(dict.fromkeys(experiments))}]")
    inside = checkpoint.get(INSIDE_KEY, {}).items()
    kept += [f"++{k}={literal(v)}" for k, v in inside if not {k, k.split(".")[0]} & given.keys()]
    return [*kept, *arguments]
