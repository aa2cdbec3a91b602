"""The model both stages share: encoder → fusion → temporal → projector → LLM.

Training, generation and ranking all go through `watch` and `video_tokens`; there is one path.
Shapes: B batch, T frames, P frame tokens, Dv visual width, K query tokens, D Q-Former width,
Dl LLM width, F aligned frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmavlm.core.batch import VideoTextBatch
from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import (
    Answer,
    LanguageModel,
    TemporalAggregator,
    TemporalState,
    TextTokens,
    VisualEncoder,
)
from mmavlm.model.activations import of_step
from mmavlm.model.alignment.grad_cache import Features, features_in_chunks
from mmavlm.model.alignment.levels import Aligned, MultiLevelAlignment, of_films
from mmavlm.model.frame_positions import FramePositions
from mmavlm.model.fusion import Fusion, Seen
from mmavlm.model.temporal import Wanted
from mmavlm.model.text import PromptTokenizer, mean_of_tokens
from mmavlm.model.token_tables import rows_named


@dataclass(frozen=True)
class Watched:
    """A batch as the temporal aggregator sees it: frame tokens (B,T,P,Dv), mask (B,T), prompt."""

    frame_tokens: Tensor
    frame_mask: Tensor
    prompt: TextTokens


class VideoLanguageModel(nn.Module):
    """MMA-MFF on MA-LMM's memory.

    `temporal`, `fusion` and `alignment` are given without their widths, which follow from the
    encoder. Without `llm` the model can only be aligned (stage 1); without `alignment` only
    trained on answers. `max_num_frames` and `position_init` are of the `FramePositions`.

    Raises:
        ConfigError: if the tokenizer admits longer prompts than the Q-Former has positions for.
    """

    def __init__(
        self,
        *,
        encoder: VisualEncoder,
        prompt_tokenizer: PromptTokenizer,
        temporal: Callable[..., TemporalAggregator],
        fusion: Callable[..., Fusion],
        alignment: Callable[..., MultiLevelAlignment] | None = None,
        llm: LanguageModel | None = None,
        max_num_frames: int = 120,
        position_init: str = "zeros",
        visual_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.prompt_tokenizer = prompt_tokenizer
        self.encoder = encoder
        self.visual_norm = nn.LayerNorm(encoder.width, eps=visual_norm_eps)
        self.frame_positions = FramePositions(max_num_frames, encoder.width, position_init)
        self.temporal = temporal(visual_width=encoder.width, vocab_size=prompt_tokenizer.vocab_size)
        table = self.temporal.qformer.embeddings.position_embeddings
        prompt_tokenizer.check_positions(table.num_embeddings)
        widths = {"visual_width": encoder.width, "query_width": self.temporal.width}
        self.alignment: MultiLevelAlignment | None = None
        if alignment is not None:
            self.alignment = alignment(**widths, own_words=self._mean_of_words)
            self.temporal.check_layers(self.alignment.cross_layers)
        aligned_width = None if self.alignment is None else self.alignment.aligned_width
        self.fusion = fusion(**widths, aligned_width=aligned_width)
        self.llm = llm
        self.projector = None
        if llm is not None:
            self.projector = self.fusion.projector(self.temporal.width, llm.width)

    def watch(self, batch: VideoTextBatch, num_frames: int | None = None) -> Watched:
        """Encode the first `num_frames` frames (all by default) and fuse the prompt into them.

        Raises:
            ConfigError: if there are more frames than rows in the frame-position table.
        """
        mask = batch.frame_mask[:, :num_frames]
        return self._watch_encoded(self._encode(batch, num_frames), mask, batch.prompt)

    def stream(self, frames: Iterable[Tensor], prompts: Sequence[str]) -> Iterator[TemporalState]:
        """Watch B films frame by frame as they come, uint8 (B,3,H,W); the state after each frame.

        Memory stays constant however long the film is, and no gradient is kept. A state is good
        until the next frame is asked for; `video_tokens(state)` is what the LLM may be asked about
        meanwhile. Frames beyond the table of positions all take its last row.
        """
        device = self.frame_positions.weight.device
        prompt = self.prompt_tokenizer.encode(prompts, device=device)

        def frame_tokens() -> Iterator[Tensor]:
            for t, frame in enumerate(frames):
                with torch.no_grad():
                    encoded = self.encoder(frame.to(device))[:, None]
                    yield self._frame_tokens(encoded, self.frame_positions.at(t), prompt)[:, 0]

        return self.temporal.stream(prompt, frame_tokens())

    def remember(self, watched: Watched) -> TemporalState:
        """Run the frame loop over what was watched."""
        return self.temporal(watched.frame_tokens, watched.prompt, watched.frame_mask)

    def video_tokens(self, state: TemporalState) -> Tensor:
        """What the LLM sees of the film: (B,`num_video_tokens`,Dl).

        Where films gave different numbers of tokens, `video_mask` says which are real.
        """
        if self.projector is None:
            raise ConfigError("this model was built without an LLM; give llm=… to ask it questions")
        queries = self.temporal.read(state)
        # A fusion sees one look of K tokens at a time.
        looks = queries.unflatten(1, (-1, self._queries)).flatten(0, 1)
        aligned = None
        if self.fusion.reads_aligned:
            aligned = self._require_alignment().film_feature(looks)
        fused = self.fusion.after(looks, Seen(state.visual_bank, aligned))
        return self.projector(fused.unflatten(0, (len(queries), -1)).flatten(1, 2))

    def video_mask(self, state: TemporalState) -> Tensor | None:
        """Which video tokens (B,`num_video_tokens`) are real; None where all are."""
        looks = self.temporal.mask(state)
        if looks is None:
            return None
        return looks.repeat_interleave(self.fusion.num_tokens(self._queries), dim=1)

    def seen_by_llm(self, batch: VideoTextBatch) -> tuple[Tensor, Tensor | None]:
        """The video tokens of a batch and their mask, by `video_tokens` and `video_mask`."""
        state = self.remember(self.watch(batch))
        return self.video_tokens(state), self.video_mask(state)

    def num_video_tokens(self, frames: int = 1) -> int:
        """How many tokens the LLM sees of a film of so many frames."""
        return self.temporal.looks_at(frames) * self.fusion.num_tokens(self._queries)

    @property
    def _queries(self) -> int:
        return self.temporal.query_tokens.shape[1]

    def forward(
        self,
        batch: VideoTextBatch,
        *,
        answer: bool = True,
        align: bool = True,
        chunk: int | None = None,
    ) -> dict[str, Tensor]:
        """Losses by name: `text` if `answer`, `align_<level>` if `align`, each a scalar.

        Where the batch is aligned alone, `chunk` rows at a time hold activations (see
        `aligned_features`).
        """
        losses: dict[str, Tensor] = {}
        if chunk is not None and align and not answer:
            features = self._features(batch, chunk)
            aligned = self._require_alignment().compare(features, self._texts(batch))
            return {f"align_{level}": loss for level, loss in aligned.items()}
        watched = self.watch(batch, None if answer else self._frames_to_align(batch))
        state, inputs = None, None
        if align and self.alignment is not None:
            state, inputs = self.alignment_inputs(watched)
        if answer:
            state = self.remember(watched) if state is None else state
            mask = self.video_mask(state)
            losses["text"] = self.answer_loss(self.video_tokens(state), batch, mask)
        if inputs is not None:
            aligned = self._require_alignment()(inputs, self._texts(batch))
            losses |= {f"align_{level}": loss for level, loss in aligned.items()}
        return losses

    def answer_loss(
        self, video_tokens: Tensor, batch: VideoTextBatch, video_mask: Tensor | None = None
    ) -> Tensor:
        """Mean cross-entropy of a batch's answers, given its video tokens (B,K,Dl) and their mask.

        Raises:
            TooLongError: naming an item for which the LLM has too few positions.
        """
        with rows_named(batch.item_id):
            return self._require_llm().loss(
                video_tokens, batch.prompt, batch.target, video_mask=video_mask
            )

    def check_lengths(self, max_new_tokens: int, frames: int = 1) -> str | None:
        """Whether rows of films of so many frames fit into the LLM, in words.

        See `LanguageModel.check_lengths`.
        """
        return self._require_llm().check_lengths(self.num_video_tokens(frames), max_new_tokens)

    def check_frames(self, num_frames: int) -> None:
        """Refuse films of so many frames if the table of frame positions is too short for them.

        Raises:
            ConfigError: naming both numbers; the alignment alone reads no more than its frames.
        """
        aligned = self.alignment.frames if self.alignment is not None else None
        if self.llm is None and aligned is not None and not aligned.beyond_first:
            num_frames = aligned.prefix(num_frames)
        self.frame_positions.first(num_frames)

    def aligned_features(
        self, batch: VideoTextBatch, chunk: int | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Level → one unit-norm feature a film and a text, each (B,E), for retrieval.

        `chunk` as in `forward`.
        """
        return of_films(self._features(batch, chunk))

    def _features(self, batch: VideoTextBatch, chunk: int | None) -> Features:
        """The features of a batch that is aligned alone.

        With `chunk`, so many rows at a time hold activations (see `alignment.grad_cache`); the
        frozen encoder runs once, and its outputs of the aligned frames are kept.
        """
        frames = self._frames_to_align(batch)
        mask = batch.frame_mask[:, :frames]
        rows = (self._encode(batch, frames), mask, batch.prompt, self._texts(batch))
        if chunk is None:
            return self._features_of(*rows)
        return features_in_chunks(self._features_of, *rows, chunk=chunk)

    def _features_of(
        self, encoded: Tensor, mask: Tensor, prompts: Sequence[str], texts: Sequence[str]
    ) -> Features:
        """Encoder outputs (B,F,P,Dv), mask (B,F) and texts → the features of both, by level."""
        watched = self._watch_encoded(encoded, mask, prompts)
        return self._require_alignment().features(self.alignment_inputs(watched)[1], texts)

    def alignment_inputs(self, watched: Watched) -> tuple[TemporalState | None, Aligned]:
        """What is aligned of a film, and its state where frames beyond the first are aligned."""
        alignment = self._require_alignment()
        frames = alignment.frames
        wanted = Wanted(
            frames.prefix(watched.frame_mask.shape[1]),
            frames.uses_middle,
            frames.uses_last,
            alignment.cross_layers,
        )
        state, looks = self.temporal.look(
            watched.frame_tokens, watched.prompt, watched.frame_mask, wanted
        )
        rows = torch.arange(len(looks.frames), device=looks.frames.device)[:, None]
        tokens = watched.frame_tokens[rows, looks.frames]
        return state, Aligned(tokens, looks.outputs, looks.mask, looks.crossed)

    def generate(self, batch: VideoTextBatch, **settings: Any) -> list[list[Answer]]:
        """The best answers of each row, best first; settings as in `LanguageModel.generate`."""
        tokens, mask = self.seen_by_llm(batch)
        with rows_named(batch.item_id):
            return self._require_llm().generate(tokens, batch.prompt, video_mask=mask, **settings)

    def rank(self, batch: VideoTextBatch, candidates: Sequence[str]) -> Tensor:
        """Log-probability of every candidate answer for every row, (B,C)."""
        tokens, mask = self.seen_by_llm(batch)
        with rows_named(batch.item_id):
            return self._require_llm().rank(tokens, batch.prompt, candidates, video_mask=mask)

    def activation_bytes(
        self,
        rows: int,
        frames: int,
        prompt_tokens: int = 32,
        answer_tokens: int = 32,
        chunk: int | None = None,
    ) -> int:
        """About how many bytes of activations a training step holds (see `activations.of_step`)."""
        return of_step(self, rows, frames, prompt_tokens, answer_tokens, chunk)

    def _encode(self, batch: VideoTextBatch, num_frames: int | None) -> Tensor:
        if batch.features is not None:
            return batch.features[:, :num_frames]
        assert batch.frames is not None  # VideoTextBatch holds frames or features
        frames = batch.frames[:, :num_frames]
        return self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def _watch_encoded(self, encoded: Tensor, mask: Tensor, prompts: Sequence[str]) -> Watched:
        """Encoder outputs (B,T,P,Dv) and mask (B,T) as a film about which a prompt is asked."""
        prompt = self.prompt_tokenizer.encode(prompts, self.frame_positions.weight.device)
        positions = self.frame_positions.first(encoded.shape[1])
        return Watched(self._frame_tokens(encoded, positions, prompt), mask, prompt)

    def _frame_tokens(self, encoded: Tensor, positions: Tensor, prompt: TextTokens) -> Tensor:
        """Encoder outputs (B,T,P,Dv) at `positions` (T,Dv), with the prompt fused into them."""
        tokens = self.visual_norm(encoded.to(self.visual_norm.weight.dtype))
        tokens = tokens + positions[:, None]
        return self.fusion.before(tokens, self.temporal.embed_prompt(prompt), prompt.mask)

    def _frames_to_align(self, batch: VideoTextBatch) -> int | None:
        """How many leading frames alignment needs, or None for all of them."""
        frames = self._require_alignment().frames
        return None if frames.beyond_first else frames.prefix(batch.frame_mask.shape[1])

    def _texts(self, batch: VideoTextBatch) -> list[str]:
        return self._require_alignment().texts(batch.prompt, batch.target)

    def _mean_of_words(self, texts: Sequence[str], max_tokens: int | None) -> Tensor:
        """B texts as the mean (B,D) of the Q-Former's own embeddings of their tokens.

        Texts are cut to `max_tokens`, and to as many as the Q-Former has positions for.
        """
        positions = self.temporal.qformer.embeddings.position_embeddings.num_embeddings
        device = self.frame_positions.weight.device
        longest = min(positions, positions if max_tokens is None else max_tokens)
        tokens = self.prompt_tokenizer.encode(texts, device=device, max_length=longest)
        return mean_of_tokens(self.temporal.embed_prompt(tokens), tokens)

    def _require_llm(self) -> LanguageModel:
        if self.llm is None:
            raise ConfigError("this model was built without an LLM; give llm=… to ask it questions")
        return self.llm

    def _require_alignment(self) -> MultiLevelAlignment:
        if self.alignment is None:
            raise ConfigError(
                "this model was built without alignment; choose alignment=info_nce or another"
            )
        return self.alignment
