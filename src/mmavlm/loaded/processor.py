"""Films and prompts as the inputs of an exported model, for transformers' AutoProcessor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor
from transformers import BatchFeature

from mmavlm.commands.replay import laid_over_checkpoint
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.data.collate import collate
from mmavlm.data.dataset import VideoDataset
from mmavlm.data.subtitles import check_choice
from mmavlm.hub import fetched
from mmavlm.loaded.answers import question
from mmavlm.loaded.settings import composed, plainly, spelt
from mmavlm.model.text import load_tokenizer
from mmavlm.weights.pretrained import PretrainedFolder

OF_AUTO = {"_from_auto", "trust_remote_code", "config"}


class MmavlmProcessor:
    """Decodes films as the model was trained to see them, and reads and writes its tokens.

    `data` are the settings of its films (`num_frames`, `sample_fps`, `subtitles`), and frames are
    `image_size` on a side.
    """

    def __init__(self, tokenizer: Any, data: DictConfig, image_size: int) -> None:
        self.tokenizer = tokenizer
        self.data = data
        self.image_size = image_size

    @classmethod
    @plainly
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        trust: Sequence[str] = (),
        image_size: int | None = None,
        **others: Any,
    ) -> MmavlmProcessor:
        """That of an exported folder or hub name.

        Raises:
            CheckpointError: if the folder is missing or damaged, or says more than it may.
            ConfigError: naming an argument that has no meaning here, or if the side of frames is
                unknown.
        """
        if unknown := sorted(name for name in others.keys() - OF_AUTO if others[name] is not None):
            raise ConfigError(
                f"a processor of mmavlm takes no {', '.join(unknown)}; give revision=…, trust=… or "
                "image_size=…"
            )
        folder = fetched(name_or_path, revision)
        lines = [f"checkpoint={spelt(folder)}", *([f"trust={spelt([*trust])}"] if trust else [])]
        config = composed("train", laid_over_checkpoint(lines))
        side = image_size or picture_side(config)
        return cls(load_tokenizer(str(folder)), config.data, side)

    def __call__(
        self, videos: str | Path | Sequence[str | Path], text: str | Sequence[str]
    ) -> BatchFeature:
        """Inputs of the model: one prompt a film, or one for all.

        Frames are uint8 (B,T,3,S,S), their mask bool (B,T), their times float32 (B,T) in seconds.

        Raises:
            ConfigError: if there are more or fewer prompts than films.
            VideoError: naming a film that cannot be read.
        """
        films = [videos] if isinstance(videos, str | Path) else list(videos)
        prompts = [text] * len(films) if isinstance(text, str) else list(text)
        if len(prompts) != len(films) or not films:
            raise ConfigError(f"{len(films)} films and {len(prompts)} prompts; give one for each")
        items = [
            question(film, prompt, str(film)) for film, prompt in zip(films, prompts, strict=True)
        ]
        dataset = VideoDataset(
            items,
            num_frames=self.data.num_frames,
            sample_fps=self.data.get("sample_fps"),
            image_size=self.image_size,
            subtitles=check_choice(self.data.get("subtitles")),
        )
        batch = collate([dataset[row] for row in range(len(items))])
        if batch.broken:
            raise VideoError(f"a film cannot be used: {batch.broken[0]}")
        return BatchFeature(
            {
                "pixel_values_videos": batch.frames,
                "frame_mask": batch.frame_mask,
                "timestamps_s": batch.timestamps_s,
                "conversations": batch.conversations,
            }
        )

    def batch_decode(self, ids: Tensor, **how: Any) -> list[str]:
        """Token ids (B,L) as texts, as the tokenizer has them."""
        return list(self.tokenizer.batch_decode(ids, **{"skip_special_tokens": True, **how}))

    def decode(self, ids: Tensor, **how: Any) -> str:
        """Token ids (L,) as a text."""
        return str(self.tokenizer.decode(ids, **{"skip_special_tokens": True, **how}))


def picture_side(config: DictConfig) -> int:
    """The side in pixels of the frames that an encoder takes, without building it.

    Raises:
        ConfigError: if nothing says it.
    """
    encoder = config.encoder
    if (side := encoder.get("image_size")) is not None:
        return int(side)
    if str(encoder._target_).endswith("TimmEncoder"):
        from timm.models import get_pretrained_cfg

        told = get_pretrained_cfg(encoder.name)
        if told is not None:
            return int(told.input_size[-1])
    elif isinstance(pretrained := encoder.get("pretrained"), str):
        vision = getattr(PretrainedFolder(pretrained).config, "vision_config", None)
        if vision is not None:
            return int(vision.image_size)
    raise ConfigError(
        f"nothing says how large the frames of {encoder._target_} are; give image_size=…"
    )
