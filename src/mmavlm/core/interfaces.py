"""The Protocols the parts meet through. Read this page after the README.

Shapes: B batch, T frames, P frame tokens, Dv visual width, K query tokens, L prompt tokens,
D Q-Former width, Dl LLM width, S memory slots, N token positions of a slot.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import isqrt
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mmavlm.core.contrast import Against
from mmavlm.core.conversation import Conversation
from mmavlm.core.footprint import FilmSizes, Phase, QFormerSizes
from mmavlm.core.generation import Generation

if TYPE_CHECKING:  # readers of annotations wait for no torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class TextTokens:
    """Tokenised texts, padded on the right: `ids` int64 (B,L), `mask` bool (B,L), True = real."""

    ids: Tensor
    mask: Tensor


@dataclass(frozen=True)
class MemoryState:
    """A memory bank as a value: `tokens` (B,S,N,D) in time order, `counts` (B,S,N) float32.

    A count says how many frames a slot holds at that position; 0 marks an empty slot, and a row's
    empty slots are empty at every position. `seen` (B,) int64 is the number of frames appended.
    """

    tokens: Tensor
    counts: Tensor
    seen: Tensor


@runtime_checkable
class Memory(Protocol):
    """A strategy that keeps the past small. All methods are pure: state in, state out."""

    def for_queries(self) -> Memory:
        """The same strategy for query banks, whose positions have masks of their own."""

    def init(self, tokens: Tensor) -> MemoryState:
        """An empty bank for entries shaped like `tokens` (B,N,D)."""

    def append(self, state: MemoryState, tokens: Tensor, mask: Tensor) -> MemoryState:
        """Add one entry (B,N,D) behind the last slot; rows whose `mask` (B,) is False get none."""

    def compress(self, state: MemoryState) -> MemoryState:
        """Bring every row back to at most the strategy's bank length."""

    def read(self, state: MemoryState) -> tuple[Tensor, Tensor]:
        """Tokens (B,S,N,D) and the mask (B,S) of the slots that hold something."""


@dataclass(frozen=True)
class PatchGrid:
    """Which of P frame tokens are patches of the picture: from `first` on, row by row."""

    first: int
    rows: int
    columns: int

    @property
    def stop(self) -> int:
        """The token behind the last patch."""
        return self.first + self.rows * self.columns

    @classmethod
    def square(cls, num_tokens: int) -> PatchGrid | None:
        """The grid of tokens that are a square, or one behind a class token; None of others."""
        for first in (0, 1):
            side = isqrt(num_tokens - first)
            if side > 1 and side * side == num_tokens - first:
                return cls(first, side, side)
        return None


@runtime_checkable
class VisualEncoder(Protocol):
    """A frozen image encoder, in eval mode whatever its parents are set to.

    One whose tokens are patches may say where these lie, as `patch_grid` (PatchGrid or None).
    """

    image_size: int
    num_tokens: int
    width: int

    def __call__(self, frames: Tensor) -> Tensor:
        """uint8 (N,3,H,W) → frame tokens (N,P,Dv); normalises on the device it is given."""

    @property
    def fingerprint(self) -> str:
        """A hash of weights and input transform: the key of the feature cache."""


@runtime_checkable
class SoundEncoder(Protocol):
    """A frozen audio encoder of clips of `clip_s` seconds, with N = clip_s·rate_hz samples each."""

    rate_hz: int
    clip_s: float
    num_tokens: int
    width: int

    def __call__(self, clips: Tensor) -> Tensor:
        """float32 (S,N) from −1 to 1 → clip tokens (S,P,Da)."""

    @property
    def fingerprint(self) -> str:
        """A hash of weights and input transform."""


class TemporalState(Protocol):
    """What a temporal aggregator carries from frame to frame."""

    @property
    def visual_bank(self) -> MemoryState | None:
        """The bank of frame tokens, current frame included, or None where there is none."""


@runtime_checkable
class TemporalAggregator(Protocol):
    """Frame tokens → video tokens, as a stream of steps or in one go, with equal results.

    The backbone's branch calls this. In one go, `film_of` (V,) int64 says which film each of V
    guides asks about, so that what depends on no guide can be computed once a film; None: each
    about its own.
    """

    backprop_frames: int | None  # so many of the last frames carry gradient; None: all

    @property
    def width(self) -> int:
        """D, the width of the video tokens."""

    @property
    def num_queries(self) -> int:
        """K, the tokens of one look."""

    @property
    def guide_positions(self) -> int | None:
        """How many tokens of a guide are read at most; None where none is."""

    def sizes(self, guide_tokens: int, at_most: int) -> QFormerSizes:
        """The sizes of a step, for films of `at_most` frames."""

    def looks_at(self, frames: int) -> int:
        """How many looks of K video tokens each a film of so many frames gives."""

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise ConfigError if `look` cannot look behind the cross-attention of these layers."""

    def embed_prompt(self, prompt: TextTokens) -> Tensor:
        """The prompt as fusion takes it, (B,L,D)."""

    def start(self, prompt: TextTokens, frame_tokens: Tensor) -> Any:
        """The state before the first frame; `frame_tokens` (B,P,Dv) tells shape and device."""

    def step(self, state: Any, frame_tokens: Tensor, mask: Tensor) -> Any:
        """Take one frame (B,P,Dv); rows whose `mask` (B,) is False keep their state."""

    def read(self, state: Any) -> Tensor:
        """The video tokens so far, look after look of K each: (B,looks·K,D)."""

    def mask(self, state: Any) -> Tensor | None:
        """Which looks (B,looks) are a film's own, those in front; None where all are for sure."""

    def frames_of(self, state: Any) -> Sequence[Sequence[int]] | None:
        """For each film, of which frame each look is, ascending; None where looks are of all."""

    def stream(self, prompt: TextTokens, frames: Iterable[Tensor]) -> Iterator[Any]:
        """The state after each of `frames` (B,P,Dv) as they come, good until the next one."""

    def look(
        self,
        frame_tokens: Tensor,
        prompt: TextTokens,
        frame_mask: Tensor,
        wanted: Any,
        film_of: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """The video tokens after some frames of a film, all with gradient (`temporal.looks`).

        Also the state after the film (B,T,P,Dv), or None where only leading frames are `wanted`.
        """

    def __call__(
        self,
        frame_tokens: Tensor,
        prompt: TextTokens,
        frame_mask: Tensor,
        film_of: Tensor | None = None,
    ) -> Any:
        """The state after all frames (B,T,P,Dv)."""


@runtime_checkable
class ReadsPatches(Protocol):
    """A temporal aggregator whose tokens are made of patches, and projected in a way of its own."""

    def take_patches(self, grid: PatchGrid) -> None:
        """Take which of the frame tokens are patches, before anything is asked of it."""

    def looks_at(self, frames: int) -> int:
        """How many frames are read of a film of so many, or slots of a memory."""

    def projector(self, llm_width: int) -> nn.Module:
        """What takes its tokens (V,looks·K,D) to the width of the language model."""

    def tokens_a_look(self) -> int:
        """How many tokens the projector makes of a look of K."""

    def phase(self, film: FilmSizes, reader: QFormerSizes, llm_width: int) -> Phase:
        """What a step holds of looks at so many frames, by what reads them, and of projection."""


@dataclass(frozen=True)
class Answer:
    """One generated text with its log-probability given video and prompt (sum over tokens).

    `cut` says that it has no end of its own: it had as many tokens as it may.
    """

    text: str
    log_prob: float
    cut: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class FramesOfLooks:
    """Looks of `tokens` tokens each; `frames` says of each view, look by look, of which frame.

    With `latest` a look is of all frames up to its own, as a memory's is; the last one stands for
    those before it.
    """

    tokens: int
    frames: Sequence[Sequence[int]]
    latest: bool = False

    def span(self, view: int, start: int, stop: int) -> tuple[int, int]:
        """Where the tokens of a view that are of frames `start` to `stop` begin and end."""
        frames = self.frames[view]
        if self.latest:
            last = bisect_left(frames, stop)
            return self.tokens * (last - 1), self.tokens * last
        return self.tokens * bisect_left(frames, start), self.tokens * bisect_left(frames, stop)


@dataclass(frozen=True)
class MediaTokens:
    """What an LLM sees of media: `tokens` (V,K,Dl), a row for each view.

    Views stand in the order in which conversations show media; `views` says how many each of the C
    conversations has. Where they have different numbers of tokens, `mask` (V,K) is True at the real
    ones, which come first in each row; the others change nothing. None: all are real. `looks` says
    of which frames the tokens are, so that texts can stand between them; without it all tokens of a
    view stand where it begins.
    """

    tokens: Tensor
    views: Sequence[int]
    mask: Tensor | None = None
    looks: FramesOfLooks | None = None

    def rows(self, which: Sequence[int]) -> MediaTokens:
        """What is seen in some of the conversations."""
        stops = list(accumulate(self.views, initial=0))
        chosen = [view for row in which for view in range(stops[row], stops[row + 1])]
        return self.chosen(chosen, [self.views[row] for row in which])

    def chosen(self, rows: Sequence[int], views: Sequence[int]) -> MediaTokens:
        """Some of the views, so many of each conversation."""
        mask = None if self.mask is None else self.mask[rows]
        looks = self.looks
        if looks is not None:
            looks = replace(looks, frames=[looks.frames[row] for row in rows])
        return MediaTokens(self.tokens[rows], views, mask, looks)


@runtime_checkable
class LanguageModel(Protocol):
    """Conversations + the tokens of what they show → loss, text, or a ranking of candidates."""

    width: int

    def loss(self, conversations: Sequence[Conversation], media: MediaTokens) -> Tensor:
        """Mean cross-entropy over the tokens of learned turns (and their ends), a scalar."""

    def learned_log_probs(
        self, conversations: Sequence[Conversation], media: MediaTokens
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of all that is learned of each conversation, (C,), and its tokens (C,).

        Conversations of which nothing is learned are left out.
        """

    def generate(
        self,
        conversations: Sequence[Conversation],
        media: MediaTokens,
        generation: Generation | None = None,
        *,
        against: Against | None = None,
    ) -> list[list[Answer]]:
        """The best answers to the last turn of the user, for each conversation, best first.

        What is said of another view is taken off, if they are decoded `against` one.
        """

    def rank(
        self,
        conversations: Sequence[Conversation],
        media: MediaTokens,
        candidates: Sequence[str],
        *,
        with_eos: bool = True,
        against: Against | None = None,
    ) -> Tensor:
        """Log-probability (C,N) of every candidate as the answer, with its eos or without.

        `against` as in `generate`.
        """

    def answer_length(self, text: str) -> int:
        """How many tokens `text` takes as an answer, eos included."""

    def check_lengths(self, video_tokens: int, max_new_tokens: int) -> str | None:
        """The longest rows that the settings admit, and the limit, in words; None without one.

        Raises ConfigError where rows may be longer than the model can read.
        """

    def phases(self, rows: int, video_tokens: int, prompt: int, answer: int) -> list[Phase]:
        """What `loss` holds in memory for `rows` of so many tokens each, part by part."""
