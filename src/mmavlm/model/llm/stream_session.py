"""A causal language model that watches: frames, questions and answers come one by one.

What was read stays in the model's cache, so that a frame pays for its own tokens. With a window the
cache is bounded: when it is full, the oldest frames and answers are forgotten, and what is left, at
most half a window, is read again. What the system and the users say is kept.

Shapes: K tokens of a look, Dl LLM width, H width of the hidden states.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import Answer
from mmavlm.core.turns import Role, Shown, Turn
from mmavlm.model.llm.causal import CausalLayout
from mmavlm.model.llm.held_turns import Held, Look, without_first_questions, without_oldest
from mmavlm.model.llm.layout import embed, token_log_probs
from mmavlm.model.llm.session import search_for

if TYPE_CHECKING:
    from mmavlm.model.llm.prompted import PromptedLanguageModel

ONE_ANSWER = Generation(num_beams=1, num_answers=1)


class StreamSession:
    """One conversation in which a film runs, token by token as `Rendering` writes all of it.

    `latest`: a look is of all frames so far, as a memory's is, and takes the place of the one
    before it in the same stream. `window`: so many tokens are remembered at most; None: all.

    Raises:
        ConfigError: if the model is no causal one with a cache that can be cropped.
    """

    def __init__(
        self, llm: PromptedLanguageModel, *, latest: bool = False, window: int | None = None
    ) -> None:
        if not isinstance(llm.layout, CausalLayout) or llm.layout.past(llm.model) is None:
            raise ConfigError(
                f"{type(llm.model).__name__} cannot watch a film as it runs: that needs a causal "
                "language model with a cache of keys and values; choose another llm"
            )
        self._llm = llm
        self._write = llm.rendering.turn_by_turn
        self._latest = latest
        self._window = window
        self._held: list[Held] = []
        self._cache: Any = None  # derived from what is held; None where it has to be read again
        self._read = 0  # tokens in the cache

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What is remembered; its frames are counted from the first one that is.

        They have times where all of a turn's were given.
        """
        seen, found = 0, []
        for held in self._held:
            if held.role != "stream":
                found.append(Turn(held.role, (held.text,)))
            elif held.looks:
                span = seen, seen + len(held.looks)
                times = tuple(look.time_s for look in held.looks if look.time_s is not None)
                known = times if len(times) == len(held.looks) else ()
                found.append(Turn("stream", (Shown(0, span, known),)))
                seen += len(held.looks)
        return tuple(found)

    @property
    def looks(self) -> list[Tensor]:
        """The tokens (K,Dl) of each look that is remembered."""
        return [look.tokens for held in self._held for look in held.looks]

    @property
    def num_tokens(self) -> int:
        """How many tokens are remembered."""
        return sum(held.length for held in self._held)

    @torch.no_grad()
    def say(self, turn: Turn) -> None:
        """Go on with what the system or a user says.

        Raises:
            ConfigError: if it shows something, or exceeds the window with what was said before.
            TooLongError: if the model has too few positions.
        """
        if turn.role not in ("system", "user") or turn.shows:
            raise ConfigError(
                f"a turn of the {turn.role} that shows {len(turn.shows)} media cannot be said "
                "while a film runs; give a text of the user or the system"
            )
        ids = self._write.said(turn, first=not self._held)[0]
        self._make_room(len(ids) + len(self._write.closing("stream")))
        self._close()
        self._held.append(Held(turn.role, turn.text, ids))
        self._run_ids(ids)

    @torch.no_grad()
    def see(self, tokens: Tensor, time_s: float | None = None) -> Tensor:
        """The state (H,) of the model at the next frame, of which it sees these tokens (K,Dl).

        `time_s` is when the frame is, which a model that reads times has to know.

        Raises:
            ConfigError: if it has to and does not, or if what is kept exceeds the window.
            TooLongError: if the model has too few positions.
        """
        goes_on = bool(self._held) and self._held[-1].open and bool(self._held[-1].looks)
        front = self._write.time(time_s, first=self._latest or not goes_on)
        look = Look(tokens, time_s, front)
        self._make_room(look.length + len(self._write.opening("stream", first=True)))
        held = self._open("stream")
        if self._latest and held.looks:
            self._crop(self._read - held.looks.pop().length)
        held.looks.append(look)
        return self._run(self._embedded_look(look))[0][-1]

    @torch.no_grad()
    def reply(
        self, generation: Generation = ONE_ANSWER, *, keep: bool | Callable[[str], bool] = True
    ) -> Answer:
        """What the model says behind the last frame, and remembers if it is to `keep` that text.

        An answer without a text is never kept.

        Raises:
            TooLongError: if the model has too few positions.
        """
        around = [*self._write.opening("assistant"), *self._write.closing("assistant")]
        self._make_room(
            len(self._write.closing("stream")) + len(around) + generation.max_new_tokens
        )
        before, held = self._read, [replace(one) for one in self._held]
        try:
            self._open("assistant")
            read = self._all_tokens()
            ids = self._generated(read, generation)
            answer = Answer(self._llm.answers.decode(ids), self._scored(read[-1:], ids))
        except BaseException:
            self._held, self._cache = held, None
            raise
        self._held = held
        self._crop(before)
        if answer.text and (keep(answer.text) if callable(keep) else keep):
            self._remember(answer.text)
        return answer

    def _remember(self, text: str) -> None:
        """Go on with an answer, whose text may have more tokens than were generated."""
        write = self._write
        opening = write.opening("assistant", first=not self._held)
        ids = [*opening, *write.answer(text), *write.closing("assistant")]
        self._make_room(len(write.closing("stream")) + len(ids))
        self._close()
        self._held.append(Held("assistant", text, ids))
        self._run_ids(ids)

    def _open(self, role: Role) -> Held:
        """The open turn of this role, which begins here if there is none."""
        if self._held and self._held[-1].open and self._held[-1].role == role:
            return self._held[-1]
        self._close()
        ids = self._write.opening(role, first=not self._held)
        self._held.append(Held(role, "", ids, open=True))
        self._run_ids(ids)
        return self._held[-1]

    def _close(self) -> None:
        """End the turn that is open."""
        if self._held and self._held[-1].open:
            held = self._held[-1]
            held.open, held.behind = False, self._write.closing(held.role)
            self._run_ids(held.behind)

    def _make_room(self, tokens: int) -> None:
        """See to it that so many tokens can be read: in the window, and in the model's positions.

        Raises:
            ConfigError: if what has to be kept leaves no room for them.
            TooLongError: if the model has too few positions.
        """
        if self._window is not None and self.num_tokens + tokens > self._window:
            held = without_oldest(self._held, max(0, self._window // 2 - tokens), self._write)
            self._held = without_first_questions(held, self._window - tokens, self._write)
            self._cache = None
            if self.num_tokens + tokens > self._window:
                raise ConfigError(
                    f"what was said takes {self.num_tokens} tokens and {tokens} are to come, more "
                    f"than window={self._window} holds; raise it"
                )
        self._llm.room.check_rows([self.num_tokens], [tokens], [0])
        if self._cache is None and self._held:
            self._read_again()

    def _read_again(self) -> None:
        self._cache, self._read = DynamicCache(), 0
        self._run(self._all_tokens())

    def _all_tokens(self) -> Tensor:
        """The embeddings (L,Dl) of all that is remembered."""
        return torch.cat(
            [
                part
                for held in self._held
                for part in (
                    self._embedded(held.front),
                    *map(self._embedded_look, held.looks),
                    self._embedded(held.behind),
                )
            ]
        )

    def _embedded_look(self, look: Look) -> Tensor:
        if not look.front:
            return look.tokens
        return torch.cat([self._embedded(look.front), look.tokens])

    def _embedded(self, ids: Sequence[int]) -> Tensor:
        model = self._llm.model
        return embed(model, torch.tensor(ids, dtype=torch.int64).to(model.device))

    def _run_ids(self, ids: Sequence[int]) -> None:
        if ids:
            self._run(self._embedded(ids))

    def _run(self, tokens: Tensor, *, scored: bool = False) -> tuple[Tensor, Tensor | None]:
        """Read tokens (n,Dl): the hidden states (n,H), and if `scored` the logits (n,V)."""
        if self._cache is None:
            self._cache, self._read = DynamicCache(), 0
        model = self._llm.model
        tokens = tokens.to(model.get_input_embeddings().weight.dtype)
        try:
            with self._llm.in_eval_mode():
                part = model if scored else model.base_model
                read = part(inputs_embeds=tokens[None], past_key_values=self._cache, use_cache=True)
        except BaseException:
            self._cache = None  # some layers may have read what others have not
            raise
        self._read += len(tokens)
        return (read[0][0], read.logits[0] if scored else None)

    def _crop(self, tokens: int) -> None:
        """Take back what was read beyond so many tokens."""
        gone = self._read - tokens
        if tokens == 0:
            self._cache = DynamicCache()
        elif gone > 0:
            self._cache.crop(-gone)
        self._read = tokens

    def _generated(self, read: Tensor, generation: Generation) -> list[int]:
        """Ids of the best answer to all that was read (L,Dl), with its end."""
        inputs, search = read[None], search_for(self._llm, generation)
        beams = generation.num_beams > 1
        cache = copy.deepcopy(self._cache) if beams else self._cache
        cache.crop(-1)  # generation reads the last token itself
        if beams:
            cache.batch_repeat_interleave(generation.num_beams)
        mask = torch.ones(inputs.shape[:2], dtype=torch.int64, device=inputs.device)
        with self._llm.in_eval_mode():
            found = self._llm.model.generate(
                inputs_embeds=inputs,
                attention_mask=mask,
                past_key_values=cache,
                **search.arguments(),
            )
        before = self._read - 1
        self._read = int(self._cache.get_seq_length())
        self._crop(before)
        return self._llm.answers.until_end(found[0].tolist())

    def _scored(self, last: Tensor, ids: Sequence[int]) -> float:
        """Log-probability of an answer behind the `last` token (1,Dl), which is to be read."""
        before = self._read
        _, logits = self._run(torch.cat([last, self._embedded(ids[:-1])]), scored=True)
        assert logits is not None  # asked for
        found = token_log_probs(logits, torch.tensor(ids).to(logits.device))
        self._crop(before + 1)
        return float(found.sum())
