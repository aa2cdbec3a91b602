"""Pretrained language models of transformers, by folder or hub name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    PreTrainedConfig,
)
from typing_extensions import Unpack

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.model.llm.adapt import LoraSettings, Quantization, add_lora, quantization_config
from mmavlm.model.llm.layout import Model
from mmavlm.model.llm.long import attention_setting, rescaled
from mmavlm.model.llm.new_rows import add_rows
from mmavlm.model.llm.prompted import PromptedLanguageModel, PromptSettings
from mmavlm.model.plain_text import num_rows
from mmavlm.model.text import load_tokenizer
from mmavlm.weights.pretrained import (
    PretrainedFolder,
    as_dtype,
    load_transformer,
    raise_if_different,
)

LANGUAGE_MODEL = "language_model"


class HFLanguageModel(PromptedLanguageModel):
    """A causal or sequence-to-sequence model, frozen unless told otherwise.

    `pretrained` is its folder or hub name, or with `part="language_model"` that of an InstructBLIP
    or a LLaVA-OneVision whose language model is read alone. The tokenizer lies there too, unless
    `tokenizer` names another place. `trainable` trains everything, `lora` adapters alone;
    `quantization` holds the weights in 8 or 4 bit. `resize_embeddings` gives tokens beyond the
    embedding rows of their own, which learn. `rope_scaling` stretches rotary positions over longer
    rows, and `attention` says how it is computed (see `llm.long`). What remains of the settings is
    described at `PromptSettings`.

    Raises:
        ConfigError: on settings that exclude each other or need a package that is missing, or a
            tokenizer with more tokens than the embedding has rows.
        CheckpointError: if weights or tokenizer are missing, damaged, or do not fit.
    """

    def __init__(
        self,
        pretrained: str,
        *,
        part: Literal["language_model"] | None = None,
        tokenizer: str | None = None,
        dtype: str = "bfloat16",
        trainable: bool = False,
        lora: LoraSettings | Mapping[str, Any] | None = None,
        quantization: Quantization | None = None,
        resize_embeddings: bool = False,
        rope_scaling: Mapping[str, Any] | None = None,
        attention: str | None = None,
        **settings: Unpack[PromptSettings],
    ) -> None:
        if trainable and (lora is not None or quantization is not None):
            raise ConfigError(
                "llm.trainable=true trains every weight; it goes with neither llm.lora nor "
                "llm.quantization"
            )
        folder = PretrainedFolder(pretrained)
        weights_dtype = as_dtype(dtype, "llm.dtype")
        how = {
            "dtype": weights_dtype,
            "quantization_config": quantization_config(quantization, weights_dtype),
            **attention_setting(attention),
        }
        config = _config(folder, part)
        how["config"] = rescaled(config, rope_scaling, folder.name)
        model = _load_part(folder, part, how) if part else _load(folder, how)
        model.requires_grad_(trainable)
        if lora is not None:
            add_lora(model, lora if isinstance(lora, LoraSettings) else LoraSettings(**dict(lora)))
        words = load_tokenizer(tokenizer or str(folder.path))
        if resize_embeddings:
            add_rows(model, num_rows(words))  # behind peft, which freezes what is not its own
        super().__init__(model, words, **settings)


def _config(folder: PretrainedFolder, part: str | None) -> Any:
    """The configuration of the language model."""
    if part is None:
        return folder.config
    config = getattr(folder.config, "text_config", None)
    if part != LANGUAGE_MODEL or config is None:
        raise ConfigError(
            f"llm.part is {part!r} of {folder.name}, a model of type "
            f"{folder.config.model_type!r}; the one part known is {LANGUAGE_MODEL!r}, of an "
            "InstructBLIP or a LLaVA-OneVision"
        )
    return config


def _load(folder: PretrainedFolder, how: Mapping[str, Any]) -> Model:
    model_class = _class_for(folder.config, folder.name)
    model, unused = load_transformer(model_class, folder.name, folder.with_weights(), **how)
    raise_if_different(model_class.__name__, folder.name, unexpected=unused)
    return model


def _load_part(folder: PretrainedFolder, part: str, how: Mapping[str, Any]) -> Model:
    where = f"{folder.name}, {part}"
    model_class = _class_for(how["config"], where)
    state = folder.state_dict(f"{part}.", dtype=how["dtype"])
    model, unused = load_transformer(model_class, where, None, state_dict=state, **how)
    raise_if_different(model_class.__name__, where, unexpected=unused)
    return model


def _class_for(config: PreTrainedConfig, where: str) -> Any:
    seq2seq = bool(getattr(config, "is_encoder_decoder", False))
    mapping = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if seq2seq else MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in mapping:
        raise CheckpointError(
            f"{where} holds a model of type {config.model_type!r}, which is no language model that "
            "transformers can generate with; for the language model of an InstructBLIP set "
            f"llm.part={LANGUAGE_MODEL}"
        )
    return mapping[type(config)]
