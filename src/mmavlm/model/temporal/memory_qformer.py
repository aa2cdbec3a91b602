"""The frame loop: a Q-Former that reads a film frame by frame with long-term memory (MA-LMM, 3.2).

At frame t every layer attends to what it banked of the past and to the frame at hand:

    keys of self-attention  = query bank of the layer ∥ the layer's input at t
    keys of cross-attention = visual bank             ∥ frame tokens at t

and both are banked afterwards. The banks are compressed before the next frame is added rather
than after the last one, so the loop never needs to know which frame is the last.

Frames that carry no gradient are projected once and their keys and values kept (`live`); those
that carry one are attended to in full. Both give the same tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import Memory, TextTokens
from mmavlm.model.compiling import compiled
from mmavlm.model.few_queries import KeyValue
from mmavlm.model.memory.slots import SlotRule
from mmavlm.model.qformer import AttentionBlock, QFormer, QFormerLayer
from mmavlm.model.temporal.attend import (
    Attended,
    Keys,
    KeysOf,
    Masks,
    attend,
    projected_anew,
    with_current,
)
from mmavlm.model.temporal.layers_first import layers_first
from mmavlm.model.temporal.live import LiveState, live
from mmavlm.model.temporal.looks import Looks, Wanted, look, of_views
from mmavlm.model.temporal.queries import GuidedQueries
from mmavlm.model.temporal.state import Film, MemoryQFormerState, watch

# Frames whose keys and values are computed in one product take about this much memory.
PROJECTED_BYTES = 2**26

State = MemoryQFormerState | LiveState


class MemoryQFormer(GuidedQueries):
    """Query tokens that gather a whole film into K video tokens.

    `backprop_frames` last frames carry gradient. With 1, the published method, gradients equal
    those of the full loop, whose banks are detached; with more, the banked entries of those last
    frames carry gradient too. With `cache_keys` frames without gradient are projected once, not
    once for every later frame, where both memories can be kept in place (`memory.slots.SlotRule`).
    `compile_backend` (such as inductor) compiles the layers of a step.

    Raises:
        ConfigError: if `backprop_frames` or `num_query_tokens` is below 1.
    """

    def __init__(
        self,
        *,
        qformer: Callable[..., QFormer],
        visual_memory: Memory,
        query_memory: Memory,
        visual_width: int,
        vocab_size: int,
        num_query_tokens: int = 32,
        backprop_frames: int = 1,
        cache_keys: bool = True,
        compile_backend: str | None = None,
    ) -> None:
        super().__init__(qformer, visual_width, vocab_size, num_query_tokens)
        if backprop_frames < 1:
            raise ConfigError(f"temporal.backprop_frames must be at least 1, got {backprop_frames}")
        self.visual_memory = visual_memory
        self.query_memory = query_memory = query_memory.for_queries()
        self.backprop_frames = backprop_frames
        memories = (visual_memory, query_memory)
        rules = [memory for memory in memories if isinstance(memory, SlotRule)]
        self.cache_keys = cache_keys and len(rules) == len(memories)
        self.rules = rules
        self._compiled = compile_backend is not None
        self._through_layer = compiled(_through_layer, compile_backend)

    def looks_at(self, frames: int) -> int:
        """One look, however many frames there are: the last, which the past is banked for."""
        return 1

    def start(self, prompt: TextTokens, frame_tokens: Tensor) -> State:
        """The state before the first frame, for frames like `frame_tokens` (B,P,Dv)."""
        state = self._start(prompt, frame_tokens)
        if torch.is_grad_enabled() or not self.cache_keys:
            return state
        return self._live(state, frame_tokens, ragged=True)

    def step(
        self, state: State, frame_tokens: Tensor, mask: Tensor, layers: Sequence[int] = ()
    ) -> State:
        """Attend to bank and frame (B,P,Dv), then bank it; rows with `mask` False skip it.

        `layers` are those behind whose cross-attention the query tokens are kept, too.
        """
        if isinstance(state, LiveState):
            if not torch.is_grad_enabled() and not layers:
                return self._advance(state.copy(), frame_tokens, mask, self._project(frame_tokens))
            state = state.settled()
        visual_bank = self.visual_memory.compress(state.visual_bank)
        query_bank = self.query_memory.compress(state.query_bank)

        visual_keys, visual_mask = with_current(self.visual_memory.read(visual_bank), frame_tokens)
        keys_of, key_mask = projected_anew(state, self.query_memory.read(query_bank), visual_keys)
        masks = (key_mask, visual_mask)
        output, inputs, crossed = self._attend(state, keys_of, masks, layers)
        layer_inputs = torch.cat(inputs, dim=1)

        if self.backprop_frames == 1:
            frame_tokens, layer_inputs = frame_tokens.detach(), layer_inputs.detach()
        return replace(
            state,
            visual_bank=self.visual_memory.append(visual_bank, frame_tokens, mask),
            query_bank=self.query_memory.append(query_bank, layer_inputs, mask),
            video_tokens=torch.where(mask[:, None, None], output, state.video_tokens),
            crossed=torch.stack(crossed, dim=1) if crossed else None,
        )

    def read(self, state: State) -> Tensor:
        """The video tokens of the film so far, (B,K,D)."""
        return state.video_tokens

    def mask(self, state: State) -> None:
        """All video tokens are real."""

    def frames_of(self, state: State) -> None:
        """The video tokens are of all frames."""

    def stream(self, prompt: TextTokens, frames: Iterable[Tensor]) -> Iterator[State]:
        """The state after each of `frames` (B,P,Dv) as they come, in constant memory, no gradient.

        The banks are written over: a state is good until the next one is asked for.
        """

        def start(frame_tokens: Tensor) -> State:
            state = self._start(prompt, frame_tokens)
            return self._live(state, frame_tokens, ragged=False) if self.cache_keys else state

        def step(state: State, frame_tokens: Tensor, everyone: Tensor) -> State:
            if isinstance(state, LiveState):
                return self._advance(state, frame_tokens, everyone, self._project(frame_tokens))
            return self.step(state, frame_tokens, everyone)

        return watch(frames, start, step)

    def forward(
        self,
        frame_tokens: Tensor,
        prompt: TextTokens,
        frame_mask: Tensor,
        film_of: Tensor | None = None,
    ) -> State:
        """The state after a film (B,T,P,Dv); only its last `backprop_frames` carry gradient."""
        film = Film.to_the_end(*of_views(frame_tokens, frame_mask, film_of))
        states = self.run(film, prompt, film.length - self.backprop_frames)
        return deque(states, maxlen=1)[0][1]

    def look(
        self,
        frame_tokens: Tensor,
        prompt: TextTokens,
        frame_mask: Tensor,
        wanted: Wanted,
        film_of: Tensor | None = None,
    ) -> tuple[State | None, Looks]:
        """What is made of some frames of a film (B,T,P,Dv), all of them with gradient.

        Also the state after the film, where frames that are `wanted` come after the leading ones.
        """
        frame_tokens, frame_mask = of_views(frame_tokens, frame_mask, film_of)
        return look(self, frame_tokens, prompt, frame_mask, wanted)

    def run(
        self, film: Film, prompt: TextTokens, grad_from: int, stops: Collection[int] = ()
    ) -> Iterator[tuple[int, State]]:
        """Step through a film, with gradient from step `grad_from` on: steps taken, and the state.

        The state before the first step comes first, and the last one comes last. Frames without
        gradient may pass many at once, but never across one of `stops`. A state is good until the
        next one is asked for.
        """
        training = torch.is_grad_enabled()
        quiet = film.length
        if training or film.layers:
            quiet = min(max(grad_from, 0), film.length)
        if not self.cache_keys:
            quiet = 0
        state: State = self._start(prompt, film.tokens[:, 0])
        yield 0, state
        for taken, watched in self._watch(state, film, quiet, stops):
            state = watched
            yield taken, state
        for t in range(quiet, film.length):
            if training and t == grad_from > 0:
                # older PyTorch (2.6) would take weights that were cast without gradient
                torch.clear_autocast_cache()
            with torch.set_grad_enabled(training and t >= grad_from):
                state = self.step(state, *film.frame(t), film.layers)
            yield t + 1, state

    def _watch(
        self, state: State, film: Film, until: int, stops: Collection[int]
    ) -> Iterator[tuple[int, LiveState]]:
        """Step through the frames before `until` without gradient."""
        # What comes out of evaluation may be put to any use, which inference mode would forbid.
        mode = torch.inference_mode if torch.is_grad_enabled() else torch.no_grad
        first_frame = film.tokens[:, 0]
        by_frame = first_frame.device.type != "cpu" or self._compiled or len(stops) >= film.length
        chunk = max(1, PROJECTED_BYTES // self._projected_bytes(first_frame, by_frame))
        bounds = {*range(0, until, chunk), until}
        if not by_frame:
            bounds |= {stop for stop in stops if stop < until}
        for first, stop in pairwise(sorted(bounds)):
            with mode():
                if not isinstance(state, LiveState):
                    state = self._live(
                        state,
                        first_frame,
                        ragged=film.ragged,
                        at_most=until,
                        in_stretches=not by_frame,
                    )
                frames = film.frames(first, stop)
                projected = self._project(frames) if by_frame else []
            if not by_frame:
                with mode():
                    state = layers_first(self.qformer, state, frames, film.masks(first, stop))
                yield stop, state
                continue
            for t in range(first, stop):
                keys = [(key[:, t - first], value[:, t - first]) for key, value in projected]
                with mode():
                    state = self._advance(state, *film.frame(t), keys)
                yield t + 1, state

    def _start(self, prompt: TextTokens, frame_tokens: Tensor) -> MemoryQFormerState:
        queries = self.query_tokens.expand(len(frame_tokens), -1, -1)
        hidden, mask = self.qformer.embeddings(queries, prompt)
        layer_inputs = hidden.detach().repeat(1, len(self.qformer.layers), 1)
        return MemoryQFormerState(
            hidden=hidden,
            mask=mask,
            visual_bank=self.visual_memory.init(frame_tokens),
            query_bank=self.query_memory.init(layer_inputs),
            video_tokens=torch.zeros_like(queries),
        )

    def _live(
        self,
        state: MemoryQFormerState,
        frame_tokens: Tensor,
        *,
        ragged: bool,
        at_most: int | None = None,
        in_stretches: bool = False,
    ) -> LiveState:
        return live(
            state,
            self.qformer,
            self.rules,
            frame_tokens,
            ragged=ragged,
            at_most=at_most,
            in_stretches=in_stretches,
        )

    def _project(self, frames: Tensor) -> list[KeyValue]:
        """Frames (B,…,P,Dv) → keys and values of every layer with cross-attention."""
        return [block.project(frames) for block in self._cross_attentions()]

    def _projected_bytes(self, frame_tokens: Tensor, of_all_layers: bool) -> int:
        """The memory of the keys and values of one frame (B,P,Dv), of one layer or of all."""
        positions = frame_tokens.shape[0] * frame_tokens.shape[1]
        layers = len(self._cross_attentions()) if of_all_layers else 1
        return 2 * layers * positions * self.width * frame_tokens.itemsize

    def _cross_attentions(self) -> list[AttentionBlock]:
        blocks = [layer.crossattention for layer in self.qformer.layers]
        return [block for block in blocks if block is not None]

    def _advance(
        self, state: LiveState, frame_tokens: Tensor, mask: Tensor, projected: Sequence[KeyValue]
    ) -> LiveState:
        """Bank a frame (B,P,Dv) and its keys and values (B,h,P,d) a layer, and attend to all."""
        move = state.visual.make_room(mask)
        state.visual.take(move, frame_tokens)
        visual_keys = zip(state.visual_keys, projected, strict=True)
        room = state.query.make_room(mask.repeat(len(self.qformer.layers)))
        state.query_keys.merge(room)

        def keys_of(i: int, layer: QFormerLayer, hidden: Tensor) -> Keys:
            rows = state.rows(i)
            keys = layer.attention.project(hidden)
            banked = state.query_keys.part(rows).put(room.of(rows), keys)
            if layer.crossattention is None:
                return (banked[0], banked[1]), None
            (kept,), keys = next(visual_keys)
            kept.merge(move)
            seen = kept.put(move, keys)
            return (banked[0], banked[1]), (seen[0], seen[1])

        key_mask = state.key_mask(room.of(state.rows(0)))
        masks = (key_mask, state.visual_mask(move))
        output, inputs, _ = self._attend(state, keys_of, masks)
        state.query.take(room, torch.cat(inputs))
        return state.seen(mask, output)

    def _attend(
        self, state: State, keys_of: KeysOf, masks: Masks, layers: Sequence[int] = ()
    ) -> Attended:
        return attend(self.qformer, state, keys_of, masks, layers, through=self._through_layer)


def _through_layer(layer: QFormerLayer, *inputs: Any) -> Tensor:
    return layer(*inputs)
