"""Models that answer without having been trained: what was loaded into them, and what was not."""

from __future__ import annotations

import logging

from omegaconf import DictConfig
from torch import nn

from mmavlm.core.errors import ConfigError
from mmavlm.weights.weight_files import ENCODER, PARTS, WeightFile, part_of

log = logging.getLogger(__name__)

OF_INSTRUCTBLIP = (
    "vision.norm", "vision.temporal.query_tokens", "vision.temporal.qformer", "vision.projector",
)  # fmt: skip
# Where what is projected are no query outputs.
OF_READER = (
    "vision.temporal.norm", "vision.temporal.query_tokens", "vision.temporal.qformer",
)  # fmt: skip
OF_BLIP2 = ("vision.norm", "vision.temporal.image_queries", "vision.temporal.image_qformer")
# Its initial values say nothing, or sines and cosines: they are never random.
CONSTANT = "vision.frame_positions"
NEW_ROWS = "the new rows of llm.resize_embeddings"
ALIGNMENT = "alignment"  # takes no part in answers


def random_parts(config: DictConfig, model: nn.Module) -> list[str]:
    """The parts of a model that nothing was loaded into, in the order of `PARTS`.

    An encoder or LLM has weights if its settings say where from: `pretrained`, `checkpoint_path`.
    Rows added to an embedding come last; none but training fills them.
    """
    loaded, held = {CONSTANT}, {part_of(name) for name in model.state_dict()}
    if config.pretrained is not None:
        loaded |= {*_of_pretrained(held)}
    for part, group in ((ENCODER, "encoder"), ("llm", "llm")):
        if any((config[group] or {}).get(key) for key in ("pretrained", "checkpoint_path")):
            loaded.add(part)
    if config.init.weights is not None:
        loaded |= {*WeightFile(config.init.weights).parts}
    new = [NEW_ROWS] if any(".new_rows." in name for name in model.state_dict()) else []
    return [part for part in PARTS if part in held - loaded] + new


def _of_pretrained(held: set[str | None]) -> tuple[str, ...]:
    """What `pretrained` fills of a model with these parts."""
    if held & {*OF_BLIP2[1:]}:
        return OF_BLIP2
    return OF_READER if OF_READER[0] in held else OF_INSTRUCTBLIP


def allow_untrained(config: DictConfig, model: nn.Module, *, answers: bool = True) -> None:
    """Say that nothing was trained, and let a model pass into which everything was loaded.

    The alignment may be random if the model `answers`, since it then has no part in it.

    Raises:
        ConfigError: naming the parts left at random values, unless `init.allow_random` is set.
    """
    random = [p for p in random_parts(config, model) if not (answers and p == ALIGNMENT)]
    sources = [str(s) for s in (config.pretrained, config.init.weights) if s is not None]
    if random and not config.init.allow_random:
        raise ConfigError(
            f"no checkpoint is given, and nothing was loaded into {', '.join(random)}: the answers "
            "would be chance. Give checkpoint=…, or weights with pretrained=… or init.weights=…; "
            "to see what chance gives, init.allow_random=true"
        )
    log.info(
        "no checkpoint: nothing was trained, and nothing is loaded beyond the weights of %s",
        " and ".join(sources) or "the encoder and the language model",
    )
    if random:
        log.warning("at random values, as init.allow_random says: %s", ", ".join(random))


def require_trained(config: DictConfig, model: nn.Module) -> None:
    """Refuse to go on from a model into which not everything that answers was loaded.

    Raises:
        ConfigError: naming the parts at random values, unless `init.allow_random` is set.
    """
    random = [part for part in random_parts(config, model) if part != ALIGNMENT]
    if random and not config.init.allow_random:
        raise ConfigError(
            f"this training goes on from a trained model (init.required=true), and nothing was "
            f"loaded into {', '.join(random)}; give init.checkpoint=outputs/…/checkpoints/last.ckpt"
        )
