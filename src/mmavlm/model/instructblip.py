"""InstructBLIP's weights, taken by name into a model built for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.model.temporal import ContextContent, GuidedQueries
from mmavlm.model.token_tables import check_rows
from mmavlm.weights.pretrained import InstructBlipParts, laid_over, load_strict

if TYPE_CHECKING:
    from mmavlm.model.backbone import VideoLanguageModel

WORDS = "embeddings.word_embeddings.weight"  # of a Q-Former


def take_instructblip(model: VideoLanguageModel, parts: InstructBlipParts) -> None:
    """Take Q-Former, query tokens, projection and LayerNorm of an InstructBLIP model by name.

    Without an LLM there is no projector, and the projection is left where it is, as it is where
    what is projected are no query outputs.

    Raises:
        CheckpointError: naming the keys that do not fit.
        ConfigError: if the model has no Q-Former of this kind.
    """
    vision, temporal = model.vision, model.vision.temporal
    if not isinstance(temporal, GuidedQueries):
        raise ConfigError(
            "pretrained names an InstructBLIP, whose Q-Former reads the prompt, and "
            f"{type(temporal).__name__} has no such Q-Former; choose temporal=memory_qformer"
        )
    if (words := parts.qformer.get(WORDS)) is not None:
        check_rows(
            vision.guide_tokenizer.vocab_size,
            len(words),
            "the Q-Former (prompt_tokenizer)",
            "give the one beside these weights: prompt_tokenizer.pretrained=${pretrained}, "
            "prompt_tokenizer.subfolder=qformer_tokenizer",
        )
        temporal.qformer.embeddings.take_vocabulary(len(words))
    load_strict(temporal.qformer, parts.qformer, "InstructBLIP's Q-Former")
    norm = temporal.norm if isinstance(temporal, ContextContent) else vision.norm
    load_strict(norm, parts.norm, "InstructBLIP's LayerNorm behind the ViT")
    query_tokens = temporal.query_tokens
    if parts.query_tokens.shape != query_tokens.shape:
        raise CheckpointError(
            f"InstructBLIP's query_tokens have shape {tuple(parts.query_tokens.shape)}, here "
            f"{tuple(query_tokens.shape)}; set qformer_queries={parts.query_tokens.shape[1]}"
        )
    with torch.no_grad():
        query_tokens.copy_(parts.query_tokens)
    if isinstance(vision.projector, nn.Linear):
        projection = laid_over(vision.projector, parts.projection)
        load_strict(vision.projector, projection, "InstructBLIP's language projection")
