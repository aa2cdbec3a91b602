"""What is heard of a batch, as tokens."""

from __future__ import annotations

from torch import Tensor

from mmavlm.core.batch import Batch
from mmavlm.core.errors import ConfigError
from mmavlm.model.branches import Branch


def sound_tokens(sound: Branch | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """The tokens (V,K,Dl) of the sounds of a batch, and which are real, by the branch for them.

    Raises:
        ConfigError: if there is none.
    """
    if sound is None:
        raise ConfigError(
            "a conversation lets a sound be heard, and this model has no branch for it; choose "
            "sound=clip_qformer, or leave sounds out"
        )
    assert batch.clip_mask is not None  # there is something heard
    encoded = batch.clip_features
    if encoded is None:
        assert batch.clips is not None
        encoded = sound.encode(batch.clips)
    heard = batch.heard
    state = sound.remember(sound.watch(encoded, batch.clip_mask, heard.guides, heard.films))
    return sound.tokens(state), sound.mask(state)
