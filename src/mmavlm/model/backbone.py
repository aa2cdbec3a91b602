"""The model both stages share: its branches, an alignment and an LLM.

Training, generation and ranking all go through `watch` and `media_tokens`; there is one path.
Shapes: C conversations, V views of M films, T frames, K tokens a view, D Q-Former width,
Dl LLM width, F aligned frames.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmavlm.core.batch import Batch
from mmavlm.core.contrast import Against, Contrast, MemoryView
from mmavlm.core.conversation import num_views
from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import Answer, LanguageModel, MediaTokens, TemporalState
from mmavlm.model.activations import of_step
from mmavlm.model.alignment.grad_cache import Features, features_in_chunks
from mmavlm.model.alignment.hard_negatives import FalseRows
from mmavlm.model.alignment.levels import Aligned, MultiLevelAlignment, of_films
from mmavlm.model.branches import Branch
from mmavlm.model.heads import FrameHeads
from mmavlm.model.hearing import sound_tokens
from mmavlm.model.llm.prompted import PromptedLanguageModel
from mmavlm.model.llm.stream_rows import (
    FrameAt,
    StreamRead,
    frames_shown,
    last_of_streams,
    read_streams,
)
from mmavlm.model.media import interleaved
from mmavlm.model.temporal import Wanted
from mmavlm.model.token_tables import rows_named
from mmavlm.model.watched import Watched


class VideoLanguageModel(nn.Module):
    """MMA-MFF on MA-LMM's memory.

    `vision` and `sound` are given unbuilt, `alignment` without its widths, which follow from the
    branch. Without `llm` the model can only be aligned (stage 1); without `alignment` only trained
    on answers; without `sound` nothing can be heard. `heads`, given without their width, score
    frames while a film runs.

    Raises:
        ConfigError: if the parts do not fit each other.
    """

    def __init__(
        self,
        *,
        vision: Callable[[], Branch],
        sound: Callable[[], Branch] | None = None,
        alignment: Callable[..., MultiLevelAlignment] | None = None,
        llm: LanguageModel | None = None,
        heads: Callable[..., FrameHeads] | None = None,
    ) -> None:
        super().__init__()
        self.vision = vision()
        self.alignment: MultiLevelAlignment | None = None
        if alignment is not None:
            self.alignment = alignment(**self.vision.widths, own_words=self.vision.mean_of_words)
            self.vision.temporal.check_layers(self.alignment.cross_layers)
            if self.alignment.text_encoder is None:
                self.vision.check_words()
        self.llm = llm
        if heads is not None and llm is None:
            raise ConfigError("heads read states of an LLM, and there is none; choose heads=none")
        self.heads = None if heads is None or llm is None else heads(width=llm.width)
        self.sound: Branch | None = None
        if sound is not None:
            self.sound = sound()
            self.sound.connect(aligned_width=None, llm_width=None if llm is None else llm.width)
        self.vision.connect(
            aligned_width=None if self.alignment is None else self.alignment.aligned_width,
            llm_width=None if llm is None else llm.width,
        )

    def watch(self, batch: Batch, num_frames: int | None = None) -> Watched:
        """Encode the first `num_frames` frames (all by default) and fuse the guides into them.

        Raises:
            ConfigError: if there are more frames than rows in the frame-position table.
        """
        views, mask = batch.views, batch.frame_mask[:, :num_frames]
        return self.vision.watch(self._encode(batch, num_frames), mask, views.guides, views.films)

    def video_tokens(self, state: TemporalState) -> Tensor:
        """What the LLM sees of views, by their state: (V,K,Dl); see `Branch.tokens`."""
        feature = None
        if self.vision.fusion.reads_aligned:
            feature = self._require_alignment().film_feature
        return self.vision.tokens(state, feature)

    def media_tokens(self, batch: Batch) -> MediaTokens:
        """What the LLM sees of all that a batch shows."""
        if not batch.views.films:
            return self._as_media(batch, None)
        return self._as_media(batch, self.vision.remember(self.watch(batch)))

    def forward(
        self,
        batch: Batch,
        *,
        answer: bool = True,
        align: bool = True,
        chunk: int | None = None,
        by_row: bool = False,
    ) -> dict[str, Tensor]:
        """Losses by name: `text` (see `answer_loss`) if `answer`, `align_<level>` if `align`.

        Where the batch is aligned alone, `chunk` views at a time hold activations (see
        `aligned_features`). Nothing is aligned of a batch that shows nothing.
        """
        align = align and self.alignment is not None and bool(batch.views.films)
        if align and not answer:
            features = self._features(batch, chunk)
            aligned = self._require_alignment().compare(features, *self._texts(batch))
            return {f"align_{level}": loss for level, loss in aligned.items()}
        losses: dict[str, Tensor] = {}
        state, inputs = None, None
        if answer:
            if batch.views.films:
                watched = self.watch(batch)
                if align:
                    state, inputs = self.alignment_inputs(watched)
                state = self.vision.remember(watched) if state is None else state
            losses["text"] = self.answer_loss(batch, self._as_media(batch, state), by_row=by_row)
        if inputs is not None:
            aligned = self._require_alignment()(inputs, *self._texts(batch))
            losses |= {f"align_{level}": loss for level, loss in aligned.items()}
        return losses

    def read_streams(self, batch: Batch, only: Collection[FrameAt] | None = None) -> StreamRead:
        """What is learned, and the LLM's state at each frame, of films that run.

        `only` as in `stream_rows.read_streams`.

        Raises:
            ConfigError: if the LLM cannot watch, or there are sounds (see `stream_rows`).
            TooLongError: naming an item for which the LLM has too few positions.
        """
        llm = self._require_llm()
        if not isinstance(llm, PromptedLanguageModel) or any(batch.is_heard):
            raise ConfigError(
                f"{type(llm).__name__} cannot watch these films as they run; choose a language "
                "model of transformers, and leave sounds out"
            )
        learned = None
        if only is not None:
            last = last_of_streams(frames_shown(batch.conversations))
            learned = frozenset(at.frame for at in (*only, *last))
        tokens, mask, looks = self.vision.newest_looks(self.watch(batch), learned)
        media = MediaTokens(tokens, num_views(batch.conversations), mask, looks)
        with rows_named(batch.item_id):
            return read_streams(llm, batch.conversations, media, only)

    def require_heads(self) -> FrameHeads:
        """The heads that score frames; ConfigError where there are none."""
        if self.heads is None:
            raise ConfigError("this model was built without heads; choose heads=duet")
        return self.heads

    def answer_loss(self, batch: Batch, media: MediaTokens, *, by_row: bool = False) -> Tensor:
        """Mean cross-entropy of what conversations teach, given their media; `by_row` of each (C,).

        Raises:
            TooLongError: naming an item for which the LLM has too few positions.
        """
        with rows_named(batch.item_id):
            if not by_row:
                return self._require_llm().loss(batch.conversations, media)
            found, tokens = self._require_llm().learned_log_probs(batch.conversations, media)
            return -found / tokens

    def check_lengths(self, max_new_tokens: int, frames: int = 1) -> str | None:
        """Whether rows of films of so many frames fit into the LLM, in words.

        See `LanguageModel.check_lengths`.
        """
        return self._require_llm().check_lengths(self.vision.num_tokens(frames), max_new_tokens)

    def check_frames(self, num_frames: int) -> None:
        """Refuse films of so many frames if the table of frame positions is too short for them.

        Raises:
            ConfigError: naming both numbers; the alignment alone reads no more than its frames.
        """
        aligned = self.alignment.frames if self.alignment is not None else None
        if self.llm is None and aligned is not None and not aligned.beyond_first:
            num_frames = aligned.prefix(num_frames)
        self.vision.frame_positions.first(num_frames)

    def aligned_features(
        self, batch: Batch, chunk: int | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Level → one unit-norm feature a view and its text, each (V,E), for retrieval.

        `chunk` as in `forward`.
        """
        return of_films(self._features(batch, chunk))

    def _features(self, batch: Batch, chunk: int | None) -> Features:
        """The features of a batch that is aligned alone.

        With `chunk`, so many views at a time hold activations (see `alignment.grad_cache`); the
        frozen encoder runs once, and its outputs of the aligned frames are kept.
        """
        aligned, views = self._require_alignment().frames, batch.views
        frames = None if aligned.beyond_first else aligned.prefix(batch.frame_mask.shape[1])
        encoded, mask = self._encode(batch, frames), batch.frame_mask[:, :frames]
        if views.films != list(range(len(encoded))):
            encoded, mask = encoded[views.films], mask[views.films]
        rows = (encoded, mask, views.guides, *self._texts(batch))
        if chunk is None:
            return self._features_of(*rows)
        return features_in_chunks(self._features_of, *rows, chunk=chunk)

    def _features_of(
        self,
        encoded: Tensor,
        mask: Tensor,
        guides: Sequence[str],
        texts: Sequence[str],
        false: FalseRows = (),
    ) -> Features:
        """Encoder outputs (V,F,P,Dv), mask (V,F) and texts → the features of both, by level."""
        watched = self.vision.watch(encoded, mask, guides)
        return self._require_alignment().features(self.alignment_inputs(watched)[1], texts, false)

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
        state, looks = self.vision.look(watched, wanted)
        tokens = watched.frame_tokens[watched.films[:, None], looks.frames]
        return state, Aligned(tokens, looks.outputs, looks.mask, looks.crossed)

    def generate(
        self,
        batch: Batch,
        generation: Generation | None = None,
        contrast: Contrast | None = None,
    ) -> list[list[Answer]]:
        """The best answers to each conversation, best first, decoded by `contrast` if given."""
        media, against = self.seen(batch, contrast)
        with rows_named(batch.item_id):
            return self._require_llm().generate(
                batch.conversations, media, generation, against=against
            )

    def rank(
        self, batch: Batch, candidates: Sequence[str], contrast: Contrast | None = None
    ) -> Tensor:
        """Log-probability of every candidate answer to every conversation, (C,N)."""
        media, against = self.seen(batch, contrast)
        with rows_named(batch.item_id):
            return self._require_llm().rank(batch.conversations, media, candidates, against=against)

    def seen(self, batch: Batch, contrast: Contrast | None) -> tuple[MediaTokens, Against | None]:
        """What the LLM sees of a batch, and of another view, whose frames are encoded once."""
        if contrast is None:
            return self.media_tokens(batch), None
        if (view := contrast.view) is None:
            return self.media_tokens(batch), Against(batch.conversations, None, contrast)
        if isinstance(view, MemoryView):
            media, remembered = self._remembered(batch, view)
            return media, Against(batch.conversations, remembered, contrast)
        if view.reads_features:
            batch = self.encoded(batch)
        other = view(batch)
        against = Against(other.conversations, self.media_tokens(other), contrast)
        return self.media_tokens(batch), against

    def _remembered(self, batch: Batch, view: MemoryView) -> tuple[MediaTokens, MediaTokens]:
        """What the LLM sees of films watched once and remembered twice, the other way by `view`."""
        state, other = None, None
        if batch.views.films:
            state = self.vision.remember(watched := self.watch(batch))
            other = view.remember(self.vision, watched, state)
        return self._as_media(batch, state), self._as_media(batch, other)

    def encoded(self, batch: Batch) -> Batch:
        """The batch with what the encoder gives in place of frames, if it has any."""
        if batch.frames is None:
            return batch
        return replace(batch, frames=None, features=self._encode(batch, None))

    def activation_bytes(
        self,
        rows: int,
        frames: int,
        prompt_tokens: int = 32,
        answer_tokens: int = 32,
        chunk: int | None = None,
        clips: int = 8,
    ) -> int:
        """About how many bytes of activations a training step holds (see `activations.of_step`)."""
        return of_step(self, rows, frames, prompt_tokens, answer_tokens, chunk, clips)

    def _encode(self, batch: Batch, num_frames: int | None) -> Tensor:
        """What the encoder gives for the films of a batch (M,T,P,Dv), or gave for its features."""
        if batch.features is not None:
            self.vision.check_features(batch.features)
            return batch.features[:, :num_frames]
        assert batch.frames is not None  # asked only where something is shown
        return self.vision.encode(batch.frames[:, :num_frames])

    def _as_media(self, batch: Batch, state: TemporalState | None) -> MediaTokens:
        """The media of a batch by the state of its views, None where it shows nothing."""
        views = num_views(batch.conversations)
        if state is None:
            nothing = torch.zeros(0, 1, self._require_llm().width, device=self.vision.device)
            seen = MediaTokens(nothing, views)
        else:
            tokens, mask = self.video_tokens(state), self.vision.mask(state)
            seen = MediaTokens(tokens, views, mask, self.vision.looks(state, tokens.shape[1]))
        if not any(heard := batch.is_heard):
            return seen
        return interleaved(seen, sound_tokens(self.sound, batch), heard)

    def _texts(self, batch: Batch) -> tuple[list[str], FalseRows]:
        """What the views of a batch are aligned with, and what is not true of them."""
        alignment, views = self._require_alignment(), batch.views
        texts = alignment.texts(views.guides, views.replies)
        return texts, alignment.false_texts(batch.false_of_views)

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
