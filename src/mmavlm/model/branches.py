"""A branch of the model: encoder → norm → positions → fusion → temporal → projector.

Shapes: M films, V views of them, T frames, P frame tokens, Dv visual width, K query tokens,
D Q-Former width, Dl LLM width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import (
    FramesOfLooks,
    PatchGrid,
    ReadsPatches,
    TemporalAggregator,
    TemporalState,
    TextTokens,
    VisualEncoder,
)
from mmavlm.model.frame_positions import FramePositions
from mmavlm.model.fusion import Fusion, Seen
from mmavlm.model.temporal.looks import Wanted
from mmavlm.model.text import PromptTokenizer, mean_of_tokens
from mmavlm.model.watched import Watched

_OWN_WORDS = "alignment.text_encoder=null"


class Branch(nn.Module):
    """Films, seen under the text that asks about them → tokens for an LLM.

    `temporal` and `fusion` are given without their widths, which follow from the encoder.
    `max_num_frames` and `position_init` are of the `FramePositions`; `prompt_tokenizer` is needed
    where the temporal aggregator reads guides. Without `norm_eps` there is no norm. In evaluation
    films are read as `saliency` re-weights them, if it is given. A branch is complete once it is
    connected.

    Raises:
        ConfigError: if the tokenizer admits longer guides than the Q-Former has positions for, or
            the temporal aggregator reads patches and the encoder does not say where they lie.
    """

    norm: nn.Module
    fusion: Fusion
    projector: nn.Module | None

    def __init__(
        self,
        *,
        encoder: VisualEncoder,
        prompt_tokenizer: PromptTokenizer | None = None,
        temporal: Callable[..., TemporalAggregator],
        fusion: Callable[..., Fusion],
        max_num_frames: int = 120,
        position_init: str = "zeros",
        norm_eps: float | None = 1e-6,
        saliency: Callable[[TemporalAggregator, Watched], Watched] | None = None,
    ) -> None:
        super().__init__()
        self.prompt_tokenizer = prompt_tokenizer
        self.encoder = encoder
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(encoder.width, eps=norm_eps)
        self.frame_positions = FramePositions(max_num_frames, encoder.width, position_init)
        words = 0 if prompt_tokenizer is None else prompt_tokenizer.vocab_size
        self.temporal = temporal(visual_width=encoder.width, vocab_size=words)
        if isinstance(self.temporal, ReadsPatches):
            self.temporal.take_patches(_patches(encoder))
        if (positions := self.temporal.guide_positions) is not None:
            self.guide_tokenizer.check_positions(positions)
        self._make_fusion = fusion
        self.saliency = saliency

    @property
    def widths(self) -> dict[str, int]:
        """Widths of frame tokens and of query tokens, as alignment and fusion take them."""
        return {"visual_width": self.encoder.width, "query_width": self.temporal.width}

    def connect(self, *, aligned_width: int | None, llm_width: int | None) -> None:
        """Make fusion and projector, now that the widths of alignment and LLM are known.

        Without an LLM (None) there is no projector.
        """
        self.fusion = self._make_fusion(**self.widths, aligned_width=aligned_width)
        if self.fusion.reads_guide:
            self._guide_positions(f"fusion {type(self.fusion).__name__}")
        self.projector = None
        own = self.temporal if isinstance(self.temporal, ReadsPatches) else None
        if own is not None and self.fusion.acts:
            raise ConfigError(
                f"fusion {type(self.fusion).__name__} cannot stand with "
                f"{type(self.temporal).__name__}, whose tokens are no query outputs and are "
                "projected in a way of their own; choose fusion=none"
            )
        if llm_width is not None:
            width = self.temporal.width
            made = own.projector(llm_width) if own else self.fusion.projector(width, llm_width)
            self.projector = made

    @property
    def device(self) -> torch.device:
        """Where the branch is."""
        return self.frame_positions.weight.device

    def encode(self, frames: Tensor) -> Tensor:
        """Frames uint8 (M,T,3,H,W) → what the frozen encoder gives (M,T,P,Dv)."""
        return self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def check_features(self, features: Tensor) -> None:
        """Refuse features (M,T,P,Dv) that the encoder cannot have given.

        Raises:
            ConfigError: naming both shapes.
        """
        given, own = tuple(features.shape[2:]), (self.encoder.num_tokens, self.encoder.width)
        if given != own:
            raise ConfigError(
                f"films come as features of {given[0]} tokens of width {given[1]} a frame, but "
                f"{type(self.encoder).__name__} gives {own[0]} of width {own[1]}; choose the "
                "encoder that made them"
            )

    def watch(
        self,
        encoded: Tensor,
        frame_mask: Tensor,
        guides: Sequence[str],
        film_of: Sequence[int] | None = None,
    ) -> Watched:
        """Encoder outputs (M,T,P,Dv) and mask (M,T) → films to be seen under V guides.

        `film_of` says which film each view is of; None: each of its own, in order. A fusion that
        reads guides makes a film of its own of each view.

        Raises:
            ConfigError: if there are more frames than rows in the frame-position table.
        """
        tokens = self._placed(encoded, self.frame_positions.first(encoded.shape[1]))
        rows: Tensor | None = None
        if film_of is not None and list(film_of) != list(range(len(tokens))):
            rows = torch.tensor(film_of, device=tokens.device)
            if self.fusion.reads_guide:
                tokens, frame_mask, rows = tokens[rows], frame_mask[rows], None
        guide = self.encoded_guides(guides)
        return Watched(self._fused(tokens, guide), frame_mask, guide, rows)

    def stream(self, frames: Iterable[Tensor], guides: Sequence[str]) -> Iterator[TemporalState]:
        """Watch V films frame by frame as they come, uint8 (V,3,H,W); the state after each frame.

        No gradient is kept, and with a memory what is held stays constant however long the film is;
        aggregators that read each frame alone keep its tokens. A state is good until the next frame
        is asked for. Frames beyond the table of positions all take its last row.

        Raises:
            ConfigError: if frames are to be re-weighted, for which a film must be at its end.
        """
        self._check_end("a stream")
        guide = self.encoded_guides(guides)
        seen = (self.see(frame, t, guide) for t, frame in enumerate(frames))
        return self.temporal.stream(guide, seen)

    @torch.no_grad()
    def see(self, frame: Tensor, number: int, guide: TextTokens) -> Tensor:
        """What the temporal aggregator sees (V,P,Dv) of V films' frame uint8 (V,3,H,W)."""
        encoded = self.encoder(frame.to(self.device))[:, None]
        return self._fused(self._placed(encoded, self.frame_positions.at(number)), guide)[:, 0]

    def remember(self, watched: Watched) -> TemporalState:
        """Run the frame loop over what was watched, twice where it is re-weighted in between."""
        if self.saliency is not None and not self.training:
            watched = self.saliency(self.temporal, watched)
        return self.temporal(
            watched.frame_tokens, watched.guide, watched.frame_mask, watched.film_of
        )

    def look(self, watched: Watched, wanted: Any) -> tuple[TemporalState | None, Any]:
        """The looks after some frames, with gradient; see `TemporalAggregator.look`."""
        return self.temporal.look(
            watched.frame_tokens, watched.guide, watched.frame_mask, wanted, watched.film_of
        )

    def tokens(
        self, state: TemporalState, film_feature: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """What the LLM sees of the views: (V,`num_tokens`,Dl).

        `film_feature` takes looks (V·looks,K,D) to the feature that is aligned with the text, for
        a fusion that reads it. Where films gave different numbers of tokens, `mask` says which are
        real.
        """
        if self.projector is None:
            raise ConfigError("this model was built without an LLM; give llm=… to ask it questions")
        queries = self.temporal.read(state)
        # A fusion sees one look of K tokens at a time.
        looks = queries.unflatten(1, (-1, self.temporal.num_queries)).flatten(0, 1)
        aligned = None
        if self.fusion.reads_aligned:
            assert film_feature is not None  # the backbone gives its alignment's
            aligned = film_feature(looks)
        fused = self.fusion.after(looks, Seen(state.visual_bank, aligned))
        return self.projector(fused.unflatten(0, (len(queries), -1)).flatten(1, 2))

    def mask(self, state: TemporalState) -> Tensor | None:
        """Which tokens (V,`num_tokens`) are real; None where all are for sure."""
        looks = self.temporal.mask(state)
        if looks is None:
            return None
        return looks.repeat_interleave(self._tokens_a_look, dim=1)

    def looks(self, state: TemporalState, tokens: int) -> FramesOfLooks | None:
        """Of which frames the views' `tokens` are; None where they are of all of a film."""
        frames = self.temporal.frames_of(state)
        return None if frames is None else FramesOfLooks(tokens // max(map(len, frames)), frames)

    def newest_looks(
        self, watched: Watched, learned: frozenset[int] | None = None
    ) -> tuple[Tensor, Tensor | None, FramesOfLooks]:
        """What the LLM sees of views while they run: tokens (V,T·K,Dl), their mask, their frames.

        Frames in `learned` are to carry gradient, None for all.

        Looks of single frames stand one behind the other. Those of a memory are of all frames so
        far, and the newest stands for those before it (`FramesOfLooks.latest`).

        Raises:
            ConfigError: if a fusion acts on looks of a memory, or frames are to be re-weighted.
        """
        self._check_end("a film that is read while it runs")
        if self.temporal.looks_at(2) > 1:
            state = self.remember(watched)
            tokens = self.tokens(state)
            looks = self.looks(state, tokens.shape[1])
            assert looks is not None  # several looks are of frames of their own
            return tokens, self.mask(state), looks
        if self.fusion.acts or self.projector is None:
            raise ConfigError(
                f"fusion {type(self.fusion).__name__} sees a film as a whole, and here it is read "
                "while it runs; choose fusion=none"
            )
        frames = watched.frame_mask.shape[1]
        outputs = self.look(watched, Wanted(frames, learned=learned))[1].outputs  # (V,T,K,D)
        mask = watched.frame_mask[watched.films]
        seen = [range(count) for count in mask.sum(dim=1).tolist()]
        looks = FramesOfLooks(outputs.shape[2], seen, latest=True)
        real = mask.repeat_interleave(outputs.shape[2], dim=1)
        return self.projector(outputs.flatten(1, 2)), real, looks

    def _check_end(self, what: str) -> None:
        if self.saliency is not None:
            raise ConfigError(
                f"{what} is not re-weighted, since what is salient shows at its end; set "
                "saliency=none"
            )

    def num_tokens(self, frames: int = 1) -> int:
        """How many tokens the LLM sees of a film of so many frames."""
        return self.temporal.looks_at(frames) * self._tokens_a_look

    @property
    def _tokens_a_look(self) -> int:
        if isinstance(self.temporal, ReadsPatches):
            return self.temporal.tokens_a_look()
        return self.fusion.num_tokens(self.temporal.num_queries)

    def mean_of_words(self, texts: Sequence[str], max_tokens: int | None) -> Tensor:
        """B texts as the mean (B,D) of the Q-Former's own embeddings of their tokens.

        Texts are cut to `max_tokens`, and to as many as the Q-Former has positions for.
        """
        positions = self._guide_positions(_OWN_WORDS)
        longest = min(positions, positions if max_tokens is None else max_tokens)
        tokenizer = self.guide_tokenizer
        tokens = tokenizer.encode(texts, device=self.device, max_length=longest)
        return mean_of_tokens(self.temporal.embed_prompt(tokens), tokens)

    def check_words(self) -> None:
        """Refuse an alignment with the Q-Former's own embeddings where none are as wide as looks.

        Raises:
            ConfigError: naming the temporal aggregator.
        """
        self._guide_positions(_OWN_WORDS)
        if isinstance(self.temporal, ReadsPatches):
            raise ConfigError(
                f"{_OWN_WORDS} reads words through the Q-Former, but "
                f"{type(self.temporal).__name__} makes its tokens of patches, which are of another "
                "width; choose a text_encoder"
            )

    def _guide_positions(self, reader: str) -> int:
        """How many tokens of a text the temporal aggregator reads, for a `reader` of its words."""
        if self.temporal.guide_positions is None:
            raise ConfigError(
                f"{reader} reads words through the Q-Former, but {type(self.temporal).__name__} "
                "reads none; choose another, or temporal=memory_qformer"
            )
        return self.temporal.guide_positions

    def encoded_guides(self, guides: Sequence[str]) -> TextTokens:
        """V guides as the temporal aggregator reads them; without a token where it reads none."""
        if self.temporal.guide_positions is None:
            nothing = torch.zeros(len(guides), 0, dtype=torch.int64, device=self.device)
            return TextTokens(nothing, nothing.bool())
        return self.guide_tokenizer.encode(guides, self.device)

    @property
    def guide_tokenizer(self) -> PromptTokenizer:
        """What tokenises guides; ConfigError where none was given."""
        if self.prompt_tokenizer is None:
            raise ConfigError(
                f"{type(self.temporal).__name__} reads guides, and there is no tokenizer for them; "
                "give prompt_tokenizer=…"
            )
        return self.prompt_tokenizer

    def _placed(self, encoded: Tensor, positions: Tensor) -> Tensor:
        """Encoder outputs (M,T,P,Dv) behind the norm, at `positions` (T,Dv)."""
        return self.norm(encoded.to(positions.dtype)) + positions[:, None]

    def _fused(self, tokens: Tensor, guide: TextTokens) -> Tensor:
        """Frame tokens (V,T,P,Dv) with their guides fused into them."""
        if not self.fusion.reads_guide:
            return tokens
        return self.fusion.before(tokens, self.temporal.embed_prompt(guide), guide.mask)


def _patches(encoder: VisualEncoder) -> PatchGrid:
    """Which of its tokens are patches: as the encoder says, or as their number lets on."""
    grid = getattr(encoder, "patch_grid", None) or PatchGrid.square(encoder.num_tokens)
    if grid is None or grid.stop > encoder.num_tokens:
        raise ConfigError(
            f"{type(encoder).__name__} gives {encoder.num_tokens} tokens a frame and does not say "
            "which are patches of a picture; choose an encoder with a patch_grid, or another "
            "temporal aggregator"
        )
    return grid
