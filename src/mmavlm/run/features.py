"""The feature cache of a run: what it lacks is encoded first, then no encoder is needed.

An encoder is named by the part of the model that it is: that of pictures, or that of sound.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.data.cache_uses import note_use
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.encoder_cards import EncoderCard, find_card, note_card
from mmavlm.data.feature_cache import FeatureCache
from mmavlm.data.fill_cache import OPENED, CacheFiller
from mmavlm.data.film_entries import Entry
from mmavlm.data.known_films import KnownFilms
from mmavlm.model.encoders import StandInEncoder
from mmavlm.weights.weight_files import ENCODER, SOUND_ENCODER, WeightFile

log = logging.getLogger(__name__)


def encoder_parts(config: DictConfig) -> list[str]:
    """The encoders of a config: that of pictures, and that of sound where something is heard."""
    return [ENCODER] if config.get("sound") is None else [ENCODER, SOUND_ENCODER]


def build_encoder(config: DictConfig, part: str = ENCODER) -> nn.Module:
    """An encoder of a config, on the CPU.

    It draws nothing from the run's generator, so that a run whose features are cached, and which
    never builds it, starts from the same random weights as one that does. If it is random itself,
    it is the same for every seed of a run: its weights are in no checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        encoder: nn.Module = instantiate(_described(config, part))
    if _brings(config, part):
        WeightFile(config.init.weights).load(_holding(encoder, part), [part])
    return encoder


def _described(config: DictConfig, part: str) -> DictConfig:
    """The settings of an encoder."""
    described: DictConfig = config.encoder if part == ENCODER else config.sound.encoder
    return described


def _holding(encoder: nn.Module, part: str) -> nn.Module:
    """A model of which nothing but the encoder is there."""
    branch, _, name = part.partition(".")
    return nn.ModuleDict({branch: nn.ModuleDict({name: encoder})})


def encoder_settings(config: DictConfig, part: str = ENCODER) -> Mapping[str, Any]:
    """What an encoder is told by, and its card in a cache found by."""
    described = _described(config, part)
    settings = cast(dict[str, Any], OmegaConf.to_container(described, resolve=True))
    if _brings(config, part):
        settings["weights"] = config.init.weights
    return settings


def _brings(config: DictConfig, part: str) -> bool:
    """Whether the encoder's weights come from `init.weights`."""
    path = config.init.weights
    return path is not None and part in WeightFile(path).parts


class CacheWork:
    """What the cache named by `data.cache` lacks of one encoder for some splits, and its filling.

    The encoder is built only to learn what it is, or when there is a film to be encoded. With
    `verify` all entries are opened. Without `look_at_films` those that the cache remembers are
    taken to be as they were (`KnownFilms`), unless an entry is missing.

    Raises:
        ConfigError: if `data.cache` names no folder.
    """

    def __init__(
        self,
        config: DictConfig,
        data: VideoDataModule,
        splits: Sequence[str],
        part: str = ENCODER,
        *,
        verify: bool = False,
        look_at_films: bool = True,
    ) -> None:
        if data.cache is None:
            raise ConfigError("data.cache is null; name the folder of the cache: data.cache=…")
        self.config = config
        self.data = data
        self.part = part
        self.splits = tuple(splits)
        self.settings = encoder_settings(config, part)
        self.noted = find_card(data.cache, self.settings, of_pictures=part == ENCODER)
        self.cache = FeatureCache(data.cache, self.noted or self.card)
        known = KnownFilms(data.cache)
        self.filler = self._filler(None if look_at_films or not known else known, verify)
        if self.cache.known is not None and self.filler.missing:
            self.filler = self._filler(None, verify)
        if self.cache.folder.is_dir():
            self._note_use()

    def _filler(self, known: KnownFilms | None, verify: bool) -> CacheFiller:
        """What is there and what is missing, by the films as they are or as they are known."""
        data, sees = self.data, self.part == ENCODER
        self.cache = replace(self.cache, known=known)
        use: Callable[[FeatureCache], None] = data.use_cache if sees else data.use_sound_cache
        use(self.cache)
        held: Callable[[str], Sequence[Entry]] = data.film_entries if sees else data.sound_entries
        entries = {e.key: e for split in self.splits for e in held(split)}
        return CacheFiller(self.cache, list(entries.values()), verify=verify)

    @cached_property
    def encoder(self) -> nn.Module:
        """The encoder, on the device that encodes."""
        return build_encoder(self.config, self.part).to(encoding_device(self.config.trainer))

    @property
    def card(self) -> EncoderCard:
        """The card of the encoder as it is."""
        return EncoderCard.of(cast(Any, self.encoder))

    def fill(self) -> int:
        """Encode what is missing, and say how many entries that were.

        Raises:
            ConfigError: if the disk is short or cannot be written, or the settings once gave
                another encoder.
            DataError: if more videos are broken than `data.max_broken` allows.
        """
        if not self.filler.missing:
            with suppress(ConfigError):  # a folder that only can be read serves as well
                self._note()
            return 0
        self.filler.require_room()
        self._note()
        self._note_use()
        return self.filler.fill(
            self._encode, self.data.broken.add, num_workers=self.data.num_workers
        )

    def _note_use(self) -> None:
        """Note what this run needs, so that nobody removes it, and what very many films are."""
        told = self.config.data
        sets = [str(name) for name in told.get("sets") or ()]
        named = " ".join(filter(None, [str(told.get("root")), *sets, ",".join(self.splits)]))
        with suppress(ConfigError):  # a folder that only can be read serves as well
            note_use(self.cache.folder, self.filler.numbers, named)
        films = self.filler.films
        if self.cache.known is None and len(films) > OPENED:
            KnownFilms(self.cache.root).remember(films)

    def _note(self) -> None:
        if self.noted is None:
            note_card(self.cache.root, self.settings, self.cache.card)

    @torch.no_grad()
    def _encode(self, frames: Tensor) -> Tensor:
        """The tokens (N,P,Dv) of frames (N,3,S,S), or of a film of which only these are left.

        Of a sound they are (N,P,Da), of clips (N,samples).
        """
        card = self.cache.card
        if self.part == ENCODER and frames.is_floating_point():
            if frames.shape[1:] != (card.num_tokens, card.width):
                raise ConfigError(
                    f"a film's features are {tuple(frames.shape)}, but this encoder gives "
                    f"(N,{card.num_tokens},{card.width}); choose the encoder that made them"
                )
            return frames
        if self.noted is not None and self.noted != self.card:
            note_card(self.cache.root, self.settings, self.card)
            raise ConfigError(
                f"{self.cache.root} holds features of another encoder under these settings: its "
                f"fingerprint was {self.noted.fingerprint[:12]}…, now it is "
                f"{self.card.fingerprint[:12]}…; start again to fill the cache anew"
            )
        return self.encoder(frames.to(encoding_device(self.config.trainer)))


def take_features(
    config: DictConfig, data: VideoDataModule, splits: Sequence[str]
) -> dict[str, nn.Module]:
    """Fill the cache of `data` where it lacks something, and give what replaces each encoder.

    Raises:
        ConfigError, DataError: as `CacheWork` and its `fill`.
    """
    if "train" in splits:
        data.check_augmentation()
    stand_ins: dict[str, nn.Module] = {}
    for part in encoder_parts(config):
        work = CacheWork(config, data, splits, part, look_at_films=False)
        log.info("%s", work.filler)
        work.fill()
        stand_ins[part] = StandInEncoder(**asdict(work.cache.card))
        del work  # and the encoder with it, if there is one: its memory is free from here on
        torch.cuda.empty_cache()
    return stand_ins


def encoding_device(trainer: DictConfig) -> torch.device:
    """The GPU of this process, unless the trainer keeps to the CPU or there is none."""
    if trainer.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    rank = int(os.environ.get("LOCAL_RANK", 0))
    chosen = isinstance(trainer.devices, ListConfig)
    return torch.device("cuda", trainer.devices[rank] if chosen else rank)
