"""How answers are generated."""

from __future__ import annotations

from dataclasses import dataclass

from mmavlm.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How answers are generated: by beam search, or at a `temperature` above 0 by sampling.

    Beams are ordered by log-probability / tokens^`length_penalty`. Above 1, `repetition_penalty`
    makes tokens that an answer already holds (not the prompt's) less likely (CTRL, section 4.1),
    and with `penalize_bos` the BOS of a causal model, if it has one, or the token a decoder starts
    with.

    Sampling draws each token from the fewest that have a share of `top_p` together. It takes one
    beam; the draws of a batch, or of a reply, depend on `seed` alone.

    Raises:
        ConfigError: if there are more answers than beams, fewer than one of anything, the shortest
            answer is longer than the longest, the repetition penalty is not above 0, or sampling
            is set as it cannot be.
    """

    num_beams: int = 5
    num_answers: int = 1
    min_new_tokens: int = 0
    max_new_tokens: int = 30
    repetition_penalty: float = 1.0
    penalize_bos: bool = False
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repetition_penalty <= 0:
            raise ConfigError(
                f"repetition_penalty={self.repetition_penalty} must be above 0; 1 changes nothing"
            )
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ConfigError(
                f"min_new_tokens={self.min_new_tokens} must be 0 to "
                f"max_new_tokens={self.max_new_tokens}"
            )
        if not 1 <= self.num_answers <= self.num_beams or self.max_new_tokens < 1:
            raise ConfigError(
                f"num_answers={self.num_answers}, num_beams={self.num_beams}, "
                f"max_new_tokens={self.max_new_tokens}: all must be 1 or more, and num_answers at "
                "most num_beams"
            )
        self._check_sampling()

    def _check_sampling(self) -> None:
        if not (0 <= self.temperature < float("inf") and 0 < self.top_p <= 1):
            raise ConfigError(
                f"temperature={self.temperature} must be 0 (no sampling) or above, and "
                f"top_p={self.top_p} above 0 and at most 1"
            )
        if self.temperature and self.num_beams > 1:
            raise ConfigError(
                f"temperature={self.temperature} draws one answer, and num_beams={self.num_beams} "
                "searches for the best; set num_beams=1, or temperature=0"
            )
        if self.top_p < 1 and not self.temperature:
            raise ConfigError(f"top_p={self.top_p} is of sampling; set temperature above 0 too")
