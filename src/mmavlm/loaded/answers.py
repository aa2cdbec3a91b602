"""Questions about films, and their answers as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.interfaces import MediaTokens
from mmavlm.core.items import Item
from mmavlm.core.quoting import as_text
from mmavlm.loaded.given import as_path, texts
from mmavlm.loaded.places import kind_of
from mmavlm.predict import check_request
from mmavlm.run.ask import Ready, ask, moments
from mmavlm.run.chat import own_medium
from mmavlm.run.questions import found_of


@dataclass(frozen=True)
class Said:
    """A text that a model gave, and how likely it is.

    `log_prob` is the sum over its tokens. `probability` is among the candidates if there were any.
    `cut` says of what was said in a conversation that it was ended by `max_new_tokens`.
    """

    text: str
    probability: float
    log_prob: float
    cut: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class FilmAnswer:
    """What a model answers to a prompt about a film: `answers`, the most probable first.

    `times_s` are the moments of the frames that it saw. `explain` of the model takes it as it is.
    """

    film: Path
    prompt: str
    answers: tuple[Said, ...]
    times_s: tuple[float, ...]
    request: DictConfig = field(repr=False, compare=False)  # the settings it was asked with

    @property
    def text(self) -> str:
        """The most probable answer."""
        return self.answers[0].text

    @property
    def probability(self) -> float:
        """How likely that is: among the candidates, or among all that could be said."""
        return self.answers[0].probability

    @property
    def log_prob(self) -> float:
        """Its log-probability, the sum over its tokens."""
        return self.answers[0].log_prob

    @property
    def start_s(self) -> float:
        """When the first frame is that was seen."""
        return self.times_s[0]

    @property
    def end_s(self) -> float:
        """When the last frame is that was seen."""
        return self.times_s[-1]

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<{self.text!r}, probability {self.probability:.3f}, of {self.film.name}>"


def about(config: DictConfig, film: str | Path, prompt: str) -> None:
    """Write one question into a config of `predict`, if it can be asked.

    Raises:
        ConfigError: if the prompt is empty or no text, or candidates are no list.
        VideoError: if the film is missing.
    """
    texts("prompt", prompt)
    config.video = as_text(str(as_path("film", film)))
    config.prompt = as_text(prompt)
    check_request(config)


def answers_about(
    model: Ready,
    config: DictConfig,
    films: Sequence[str | Path],
    prompts: Sequence[str],
    candidates: Sequence[str] | None,
) -> list[FilmAnswer]:
    """The answers to each prompt about each film, film by film; each film is decoded once.

    Raises:
        ConfigError: if a prompt is empty, or candidates are no list.
        VideoError: naming a film that is missing or cannot be decoded, or a prompt that is too
            long for the model.
    """
    config = deepcopy(config)
    choose(config, candidates)
    items = []
    for number, (film, prompt) in enumerate(product(films, prompts)):
        about(config, film, prompt)
        items.append(question(film, prompt, str(number)))
    return [
        FilmAnswer(
            film=found.item.film.source,
            prompt=found.item.prompt,
            answers=_said(found.item, found.told),
            times_s=found.times_s,
            request=config,
        )
        for found in found_of(config, model, items)
    ]


def choose(config: DictConfig, candidates: Sequence[str] | None) -> None:
    """Write candidates into a config of `predict`; what is no list is refused with the question."""
    if candidates is not None:
        one = isinstance(candidates, str)
        given = [candidates] if one or isinstance(candidates, Mapping) else list(candidates)
        if any(text is None or isinstance(text, Mapping) for text in given):
            raise ConfigError(f"candidates={given} are no texts; give a list of texts")
        config.candidates = candidates if one else [as_text(str(text)) for text in given]


@torch.inference_mode()
def answers_along(
    model: Ready, config: DictConfig, film: Path, prompt: str
) -> Iterator[FilmAnswer]:
    """The answers at the moments of a stream, which `config` asks about (see `moments`).

    Raises:
        VideoError: if the film cannot be decoded.
    """
    for at_s, tokens in moments(config, model.backbone):
        rows = ask(config, model.llm, MediaTokens(tokens, [1]), model.max_new_tokens)
        seen = range(round(at_s * config.stream_fps) + 1)
        times_s = tuple(number / config.stream_fps for number in seen)
        yield FilmAnswer(film, prompt, _rows(rows), times_s, config)


def question(film: str | Path, prompt: str, name: str = "asked") -> Item:
    """A question about all of a film, or a picture.

    Raises:
        ConfigError: if it is a sound.
    """
    if (kind := kind_of(film)) == "sound":
        raise ConfigError(
            f"{film} is a sound, and questions are asked about films; let it be heard in a "
            "conversation: chat().show(path)"
        )
    medium = own_medium(kind, str(film))
    return Item(item_id=name, conversation=Conversation.question(medium, prompt, ""), task="ask")


def _said(asked: Item, told: Mapping[str, Any]) -> tuple[Said, ...]:
    if "error" in told:
        raise VideoError(f"{asked.film.source} cannot be asked {asked.prompt!r}: {told['error']}")
    return _rows(told["answers"])


def _rows(rows: Sequence[Mapping[str, Any]]) -> tuple[Said, ...]:
    return tuple(Said(row["answer"], row["probability"], row["log_prob"]) for row in rows)
