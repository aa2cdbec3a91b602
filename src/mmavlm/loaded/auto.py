"""Exported folders by transformers' auto classes: `AutoModel.from_pretrained("my_model")`.

`register_auto_classes` makes them known. Nothing is registered by an import: transformers takes
seconds to load, and has no hook that would call for a class only when it is asked for.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from mmavlm.core.batch import Batch
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.core.turns import Turn
from mmavlm.hub import fetched, from_pretrained
from mmavlm.loaded.places import device_of, dtype_of
from mmavlm.loaded.processor import MmavlmProcessor
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.weights.checkpoint import trainable_state
from mmavlm.weights.exported import MODEL_TYPE, TRAINED
from mmavlm.weights.weight_files import write_weights

# What the auto classes hand on, and what changes nothing: no code of a folder is ever run.
OF_AUTO = {"_from_auto", "adapter_kwargs", "trust_remote_code"}


class MmavlmConfig(PreTrainedConfig):
    """The config.json of an exported folder: data, of which nothing is built before the fence."""

    model_type = MODEL_TYPE


@dataclass
class FilmOutput(ModelOutput):
    """What the LLM sees of films, (B,K,D), and the mean loss of labels if there were any."""

    loss: Tensor | None = None
    media_tokens: Tensor | None = None


class MmavlmModel(PreTrainedModel):
    """An exported model between transformers' models; `backbone` is the model itself.

    Its inputs are those that `MmavlmProcessor` gives.
    """

    config_class = MmavlmConfig
    main_input_name = "pixel_values_videos"

    def __init__(self, config: Any, backbone: VideoLanguageModel | None = None) -> None:
        super().__init__(config)
        if backbone is None:
            raise ConfigError(
                "a model of mmavlm is loaded with its weights; call from_pretrained with the "
                "folder, or train a new one with python -m mmavlm.train"
            )
        self.backbone = backbone
        self.folder: Path | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        config: Any = None,
        revision: str | None = None,
        trust: Sequence[str] = (),
        dtype: str | torch.dtype | None = None,
        device_map: str | torch.device | None = None,
        **others: Any,
    ) -> MmavlmModel:
        """The model of an exported folder or hub name, in eval mode, by the fence of `hub`.

        Raises:
            CheckpointError: as `mmavlm.hub.from_pretrained`.
            ConfigError: naming an argument that has no meaning here.
        """
        refuse_others(others)
        if isinstance(device_map, dict):
            raise ConfigError("device_map is a dict; the model lies on one device: give its name")
        folder = fetched(name_or_path, revision)
        backbone = from_pretrained(folder, trust=trust)
        model = cls(config or MmavlmConfig.from_pretrained(folder), backbone)
        model.folder = folder
        device = torch.device("cpu") if device_map is None else device_of(device_map)
        where = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        backbone.to(where, dtype_of(dtype))
        return model.eval()

    def forward(
        self,
        pixel_values_videos: Tensor,
        frame_mask: Tensor,
        timestamps_s: Tensor,
        conversations: Sequence[Conversation],
        labels: Sequence[str] | None = None,
    ) -> FilmOutput:
        """What the LLM sees of films uint8 (B,T,3,S,S), and the loss of answers if given."""
        batch = _batch(pixel_values_videos, frame_mask, timestamps_s, conversations)
        if labels is None:
            return FilmOutput(media_tokens=self.backbone.media_tokens(batch).tokens)
        if len(labels) != len(batch):
            raise ValueError(f"labels: {len(batch)} films need as many answers, got {len(labels)}")
        pairs = zip(batch.conversations, labels, strict=True)
        batch = replace(batch, conversations=[_answered(talk, text) for talk, text in pairs])
        media = self.backbone.media_tokens(batch)
        return FilmOutput(self.backbone.answer_loss(batch, media), media.tokens)

    @torch.no_grad()
    def generate(
        self,
        *,
        pixel_values_videos: Tensor,
        frame_mask: Tensor,
        timestamps_s: Tensor,
        conversations: Sequence[Conversation],
        **settings: Any,
    ) -> Tensor:
        """The best answer to each film's prompt as token ids (B,L), padded at the end.

        `settings` are those of `Generation`, such as `max_new_tokens`; what is not set is as the
        model was trained.

        Raises:
            ConfigError: naming a setting that is none.
        """
        batch = _batch(pixel_values_videos, frame_mask, timestamps_s, conversations)
        found = self.backbone.generate(batch, self._generation(settings))
        llm: Any = self.backbone.llm
        texts = [best[0].text for best in found]
        ids = llm.answers.tokenizer(texts, add_special_tokens=False)["input_ids"]
        rows = [torch.tensor(row, dtype=torch.int64) for row in ids]
        padded = torch.nn.utils.rnn.pad_sequence(
            rows, batch_first=True, padding_value=llm.answers.pad_id
        )
        return padded.to(self.backbone.vision.device)

    def _generation(self, settings: Mapping[str, Any]) -> Generation:
        known = Generation.__dataclass_fields__.keys() - {"num_answers"}
        if unknown := sorted(settings.keys() - known):
            raise ConfigError(
                f"generate takes no {', '.join(unknown)}; choose of {', '.join(sorted(known))}"
            )
        run = self.config.run
        own = {**run["config"]["stage"], **{k: v for k, v in run.items() if k == "max_new_tokens"}}
        trained = {name: own[name] for name in known & own.keys() if own[name] is not None}
        return Generation(**{**trained, **settings})

    def save_pretrained(self, save_directory: str | Path, **others: Any) -> None:
        """Write the model to a folder that is not there yet, as it was exported, with its weights.

        Raises:
            ConfigError: if the folder is there, or naming an argument that has no meaning here.
            OSError: if it cannot be written.
        """
        refuse_others(others)
        to = Path(save_directory).expanduser()
        if self.folder is None:
            raise ConfigError("only a model that from_pretrained gave has a folder to be saved as")
        if to.exists():
            raise ConfigError(f"{to} exists already; name a folder that is to be made")
        partial = to.with_name(f".{to.name}.{uuid.uuid4().hex}.partial")
        try:
            shutil.copytree(self.folder, partial, ignore=shutil.ignore_patterns(TRAINED))
            state = trainable_state(self.backbone).items()
            write_weights({name: tensor.cpu() for name, tensor in state}, partial / TRAINED)
            partial.rename(to)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def refuse_others(others: dict[str, Any]) -> None:
    """Refuse arguments of transformers that have no meaning here.

    Raises:
        ConfigError: naming them.
    """
    if unknown := sorted(name for name in others.keys() - OF_AUTO if others[name] is not None):
        raise ConfigError(
            f"a model of mmavlm takes no {', '.join(unknown)}; its settings are those of its "
            "config.json, and trust=…, dtype=…, device_map=… and revision=… say the rest"
        )


def register_auto_classes() -> None:
    """Let transformers' AutoConfig, AutoModel and AutoProcessor load exported folders."""
    AutoConfig.register(MODEL_TYPE, MmavlmConfig, exist_ok=True)
    AutoModel.register(MmavlmConfig, MmavlmModel, exist_ok=True)
    AutoProcessor.register(MmavlmConfig, MmavlmProcessor, exist_ok=True)


def _batch(
    pixel_values_videos: Tensor,
    frame_mask: Tensor,
    timestamps_s: Tensor,
    conversations: Sequence[Conversation],
) -> Batch:
    """What a processor gives, as a batch."""
    rows = range(len(conversations))
    return Batch(
        conversations=list(conversations),
        media_rows=[(row,) for row in rows],
        frames=pixel_values_videos,
        frame_mask=frame_mask,
        timestamps_s=timestamps_s,
        item_id=[str(row) for row in rows],
        task=["ask"] * len(conversations),
    )


def _answered(talk: Conversation, answer: str) -> Conversation:
    return replace(talk, turns=(*talk.turns, Turn("assistant", (answer,), learned=True)))
