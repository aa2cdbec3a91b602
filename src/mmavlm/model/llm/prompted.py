"""A Hugging Face language model that takes part in conversations about media."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase
from typing_extensions import Self, TypedDict, Unpack

from mmavlm.core.contrast import Against, Contrast
from mmavlm.core.conversation import Conversation, num_views
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.footprint import Phase, layers_phase, logits_phase, recomputed, scores_bytes
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import Answer, MediaTokens
from mmavlm.core.turns import Turn
from mmavlm.model.llm.causal import CausalLayout
from mmavlm.model.llm.chat import PROMPT_FIELD
from mmavlm.model.llm.contrasted import Other
from mmavlm.model.llm.layout import Asked, Layout, Model, check_views, first_views
from mmavlm.model.llm.rendering import Rendered, Rendering
from mmavlm.model.llm.room import Room
from mmavlm.model.llm.seq2seq import Seq2SeqLayout
from mmavlm.model.llm.session import Session, best_answers, ranking
from mmavlm.model.llm.stream_session import StreamSession
from mmavlm.model.llm.turn_by_turn import StreamTimes
from mmavlm.model.token_tables import check_rows, positions


class PromptSettings(TypedDict, total=False):
    """Settings of `PromptedLanguageModel`: what it reads, and how much at a time."""

    max_prompt_tokens: int  # 128; longer prompts lose their beginning
    max_answer_tokens: int  # 256; longer answers lose their end
    prompt_template: str  # "{prompt}"; {video} says where the media go, if not in front
    chat_template: str | None  # None; auto (the tokenizer's own), Jinja, or the path of a file
    stream_times: StreamTimes | None  # None; times of frames as text, in front of each or the first
    rank_chunk: int  # 64 sequences scored at a time
    gradient_checkpointing: bool  # False; True trades a second forward pass for memory


class PromptedLanguageModel(nn.Module):
    """Conversations + media tokens → loss, text or ranking (see `interfaces.LanguageModel`).

    Takes causal and sequence-to-sequence models. A model none of whose parameters learns stays in
    eval mode whatever its parents are set to; gradients pass through it to the media tokens.

    Raises:
        ConfigError: on settings out of range, or a tokenizer without end-of-text token or with more
            tokens than there are embeddings.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        **settings: Unpack[PromptSettings],
    ) -> None:
        super().__init__()
        self.model = model
        # What a checkpoint says about sampling and lengths is not to mix with what is asked here.
        self.model.generation_config = GenerationConfig()
        seq2seq = bool(model.config.is_encoder_decoder)
        self.layout: Layout = Seq2SeqLayout() if seq2seq else CausalLayout()
        self.rendering = Rendering(
            tokenizer,
            template=settings.get("prompt_template", PROMPT_FIELD),
            max_prompt_tokens=settings.get("max_prompt_tokens", 128),
            max_answer_tokens=settings.get("max_answer_tokens", 256),
            continues=not seq2seq,
            chat=settings.get("chat_template"),
            stream_times=settings.get("stream_times"),
        )
        self.answers = self.rendering.answers
        self.rank_chunk = settings.get("rank_chunk", 64)
        if self.rank_chunk < 1:
            raise ConfigError(f"llm.rank_chunk is {self.rank_chunk}; give 1 sequence or more")
        embedding = model.get_input_embeddings()
        check_rows(
            self.rendering.num_rows,
            embedding.num_embeddings,
            "the language model",
            "give the tokenizer of these weights (llm.tokenizer), or add rows, which learn, with "
            "llm.resize_embeddings=true",
        )
        self.width = int(embedding.embedding_dim)
        self.room = Room(positions(model), together=not seq2seq)
        self.learns = any(p.requires_grad for p in model.parameters())
        self.checkpointed: list[nn.Module] = []
        if settings.get("gradient_checkpointing", False):
            old_name = model.gradient_checkpointing_enable  # deprecated where there is a new one
            enable = getattr(model, "activation_checkpointing_enable", old_name)
            enable({"use_reentrant": False})
            self.checkpointed = [
                m for m in model.modules() if getattr(m, "gradient_checkpointing", False)
            ]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Enter train mode where anything learns, stay in eval mode otherwise."""
        super().train(mode and self.learns)
        # A layer recomputes only if it is in train mode; dropout asks the modules inside it.
        for layer in self.checkpointed:
            layer.training = mode
        return self

    def loss(self, conversations: Sequence[Conversation], media: MediaTokens) -> Tensor:
        """Mean cross-entropy over the tokens of learned turns and their ends, a scalar.

        Raises:
            DataError: if no turn of the batch is learned.
            TooLongError: if a row needs more positions than the model has.
            ValueError: if the conversations show more or fewer media than there are views.
        """
        asked = self._learned(conversations, media)
        return -self.layout.learned_log_probs(asked).mean()

    def learned_log_probs(
        self, conversations: Sequence[Conversation], media: MediaTokens
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of all that is learned of each conversation, (C,), and its tokens (C,).

        Ends of turns are among the tokens; conversations of which nothing is learned are left out.
        The mean over tokens is `-loss`.

        Raises:
            DataError, TooLongError, ValueError: as of `loss`.
        """
        asked = self._learned(conversations, media)
        found = self.layout.learned_log_probs(asked)
        counts = torch.tensor([sum(b - a for a, b in row.learned) for row in asked.rows])
        row_of = torch.arange(len(counts)).repeat_interleave(counts).to(found.device)
        sums = found.new_zeros(len(counts)).index_add(0, row_of, found)
        return sums, counts.to(found.device)

    def generate(
        self,
        conversations: Sequence[Conversation],
        media: MediaTokens,
        generation: Generation | None = None,
        *,
        against: Against | None = None,
    ) -> list[list[Answer]]:
        """The best answers to the last turn of the user, for each conversation, best first.

        `Answer.log_prob` knows of no penalty: it sums over the tokens as they were generated,
        end-of-text included where it was reached. `against` another view both search and
        log-probabilities are those of `core.contrast`; there penalties come behind it.

        Raises:
            TooLongError: if a row needs more positions than the model has.
            ValueError: if the conversations show more or fewer media than there are views.
        """
        generation = generation or Generation()
        longest = generation.max_new_tokens
        asked = self._questions(conversations, media, longest)
        return best_answers(self, asked, generation, other=self._other(against, longest))

    def rank(
        self,
        conversations: Sequence[Conversation],
        media: MediaTokens,
        candidates: Sequence[str],
        *,
        with_eos: bool = True,
        against: Against | None = None,
    ) -> Tensor:
        """Log-probability (C,N) of every candidate as the answer, end-of-text included `with_eos`.

        `against` another view it is that of `core.contrast`; a candidate with a token that is not
        plausible stands below all others (see `contrasted`).

        Raises:
            ConfigError: if there are no candidates, or one has neither text nor end.
            TooLongError: if a row needs more positions than the model has.
            ValueError: if the conversations show more or fewer media than there are views.
        """
        ids = self.answers.candidates(candidates, with_eos)
        longest = max(map(len, ids))
        asked = self._questions(conversations, media, longest)
        return ranking(self, asked, ids, other=self._other(against, longest))

    @contextmanager
    def in_eval_mode(self) -> Iterator[None]:
        """Eval mode for the model, so that scores never depend on dropout."""
        mode = self.model.training, [layer.training for layer in self.checkpointed]
        if not mode[0] and not any(mode[1]):  # a film asks at every frame
            yield
            return
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(mode[0])
            for layer, training in zip(self.checkpointed, mode[1], strict=True):
                layer.training = training

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """The model as it is with its adapters (LoRA) switched off; it must have some."""
        self.model.disable_adapters()
        try:
            yield
        finally:
            self.model.enable_adapters()

    def watching(self, *, latest: bool = False, window: int | None = None) -> StreamSession:
        """A conversation in which a film runs (see `StreamSession`)."""
        return StreamSession(self, latest=latest, window=window)

    def session(self, contrast: Contrast | None = None) -> Session:
        """A conversation with this model that goes on turn by turn, decoded by `contrast`."""
        return Session(self, contrast)

    def asked(
        self,
        rows: Sequence[Rendered],
        media: MediaTokens,
        answers: Sequence[int],
        *,
        numbers: Sequence[int] | None = None,
    ) -> Asked:
        """What is asked, if there are positions for it and answers of so many tokens.

        `numbers` are those of the rows in the batch, if they are not all of it.

        Raises:
            DataError: if there is no token before an answer.
            TooLongError: if a row needs more positions than the model has.
            ValueError: if rows show more or fewer media than there are views.
        """
        asked = Asked(self.model, rows, media)
        before = [row.learned[-1][0] if row.learned else len(row) for row in rows]
        shown = asked.media_lengths()
        numbers = numbers or range(len(rows))
        for number, *read in zip(numbers, shown, before, strict=True):
            if not any(read):
                raise DataError(
                    f"row {number} of the batch has no token before the answer; ask something"
                )
        self.room.check_rows(shown, before, answers, numbers)
        return asked

    def answer_length(self, text: str) -> int:
        """How many tokens `text` takes as an answer, end-of-text included."""
        return len(self.answers.ids(text))

    def check_lengths(self, video_tokens: int, max_new_tokens: int) -> str | None:
        """How many positions the longest texts that the settings admit take, of how many.

        None where there is no limit. Beyond what rotary positions were trained with, a warning.

        Raises:
            ConfigError: if they may need more than a table of positions has.
        """
        prompt = self.rendering.longest_prompt
        return self.room.check(video_tokens, prompt, self.answers.max_tokens, max_new_tokens)

    def phases(self, rows: int, video_tokens: int, prompt: int, answer: int) -> list[Phase]:
        """What `loss` holds for `rows` of so many tokens each, part by part (see `footprint`).

        No row is longer than the model's table of positions.
        """
        model, item, most = self.model, self.model.dtype.itemsize, self.room.at_most
        parts = {model: most(video_tokens + prompt + answer)}
        if model.config.is_encoder_decoder:
            parts = {model.get_encoder(): most(video_tokens + prompt)}
            parts[model.get_decoder()] = answer = most(answer)
        head = model.get_output_embeddings()
        head = getattr(head, "old", head)
        phases = []
        for part, length in parts.items():
            phase = layers_phase(part, rows * length, item, without=head)
            if model.config._attn_implementation == "eager" and part is model:
                sizes = model.config.num_hidden_layers, model.config.num_attention_heads
                phase = Phase(phase.kept + scores_bytes(rows, length, *sizes, item))
            if self.checkpointed:
                inputs = rows * length * self.width * item
                phase = recomputed(phase, model.config.num_hidden_layers, inputs)
            phases.append(phase)
        return [*phases, logits_phase(rows, answer, model.config.vocab_size, item)]

    def _learned(self, conversations: Sequence[Conversation], media: MediaTokens) -> Asked:
        """The conversations of which anything is learned, each up to the last such turn."""
        check_views(num_views(conversations), media)
        turns = [_up_to_learned(talk) for talk in conversations]
        chosen = [n for n, said in enumerate(turns) if said]
        if not chosen:
            raise DataError("no turn of the batch is learned; give an answer to learn from")
        latest = media.looks is not None and media.looks.latest
        rows = [self.rendering.turns(turns[n], latest=latest) for n in chosen]
        seen = [row.num_views for row in rows]
        if seen != list(media.views):
            media = first_views(media, chosen, seen)
        answers = [stop - start for start, stop in (row.learned[-1] for row in rows)]
        return self.asked(rows, media, answers, numbers=chosen)

    def _questions(
        self, conversations: Sequence[Conversation], media: MediaTokens, longest: int
    ) -> Asked:
        latest = media.looks is not None and media.looks.latest
        rows = [self.rendering.asked(talk.asked.turns, latest=latest) for talk in conversations]
        return self.asked(rows, media, [longest] * len(rows))

    def _other(self, against: Against | None, longest: int) -> Other | None:
        if against is None:
            return None
        asked = None
        if against.media is not None:
            asked = self._questions(against.conversations, against.media, longest)
        return Other(asked, against.contrast)


def _up_to_learned(talk: Conversation) -> Sequence[Turn]:
    """The turns of a conversation up to the last one that is learned."""
    stop = max((n + 1 for n, turn in enumerate(talk.turns) if turn.learned), default=0)
    return talk.turns[:stop]
