"""A Hugging Face language model that answers prompts about video tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)
from typing_extensions import Self, TypedDict, Unpack

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import Phase, layers_phase, logits_phase, recomputed
from mmavlm.core.interfaces import Answer
from mmavlm.model.llm.causal import CausalLayout
from mmavlm.model.llm.chat import PROMPT_FIELD
from mmavlm.model.llm.layout import Asked, Candidates, Layout, Model, real_counts
from mmavlm.model.llm.repetition import RepetitionPenalty
from mmavlm.model.llm.room import Room
from mmavlm.model.llm.seq2seq import Seq2SeqLayout
from mmavlm.model.llm.texts import Texts
from mmavlm.model.text import padded
from mmavlm.model.token_tables import check_rows, positions


class PromptSettings(TypedDict, total=False):
    """Settings of `PromptedLanguageModel`: what it reads, and how much at a time."""

    max_prompt_tokens: int  # 128; longer prompts lose their beginning
    max_answer_tokens: int  # 256; longer answers lose their end
    prompt_template: str  # "{prompt}"; {video} says where the video goes, if not in front
    chat_template: str | None  # None; auto (the tokenizer's own), Jinja, or the path of a file
    rank_chunk: int  # 64 sequences scored at a time
    gradient_checkpointing: bool  # False; True trades a second forward pass for memory


class PromptedLanguageModel(nn.Module):
    """Prompt + video tokens → loss, text or ranking (see `interfaces.LanguageModel`).

    Takes causal and sequence-to-sequence models. A model none of whose parameters learns stays in
    eval mode whatever its parents are set to; gradients pass through it to the video tokens.

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
        self.texts = Texts(
            tokenizer,
            template=settings.get("prompt_template", PROMPT_FIELD),
            max_prompt_tokens=settings.get("max_prompt_tokens", 128),
            max_answer_tokens=settings.get("max_answer_tokens", 256),
            continues=not seq2seq,
            chat=settings.get("chat_template"),
        )
        self.rank_chunk = settings.get("rank_chunk", 64)
        if self.rank_chunk < 1:
            raise ConfigError(f"llm.rank_chunk is {self.rank_chunk}; give 1 sequence or more")
        embedding = model.get_input_embeddings()
        check_rows(
            self.texts.num_rows,
            embedding.num_embeddings,
            "the language model",
            "give the tokenizer of these weights (llm.tokenizer), or add rows, which learn, with "
            "llm.resize_embeddings=true",
        )
        self.width = int(embedding.embedding_dim)
        self.room = Room(positions(model), together=not seq2seq)
        self.learns = any(p.requires_grad for p in model.parameters())
        self._checkpointed: list[nn.Module] = []
        if settings.get("gradient_checkpointing", False):
            old_name = model.gradient_checkpointing_enable  # deprecated where there is a new one
            enable = getattr(model, "activation_checkpointing_enable", old_name)
            enable({"use_reentrant": False})
            self._checkpointed = [
                m for m in model.modules() if getattr(m, "gradient_checkpointing", False)
            ]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Enter train mode where anything learns, stay in eval mode otherwise."""
        super().train(mode and self.learns)
        # A layer recomputes only if it is in train mode; dropout asks the modules inside it.
        for layer in self._checkpointed:
            layer.training = mode
        return self

    def loss(
        self,
        video_tokens: Tensor,
        prompts: Sequence[str],
        targets: Sequence[str],
        *,
        video_mask: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy over the answer tokens and their ends of the batch, a scalar.

        Raises:
            TooLongError: if a row needs more positions than the model has.
        """
        answers = [self.texts.answer(text) for text in targets]
        asked = self._asked(video_tokens, video_mask, prompts, list(map(len, answers)))
        return -self.layout.answer_log_probs(asked, answers).mean()

    @torch.no_grad()
    def generate(
        self,
        video_tokens: Tensor,
        prompts: Sequence[str],
        *,
        video_mask: Tensor | None = None,
        num_beams: int = 5,
        num_answers: int = 1,
        min_new_tokens: int = 0,
        max_new_tokens: int = 30,
        repetition_penalty: float = 1.0,
        penalize_bos: bool = False,
        length_penalty: float = 1.0,
    ) -> list[list[Answer]]:
        """The best `num_answers` beams of each row, best first, by beam search without sampling.

        Beams are ordered by log-probability / tokens^`length_penalty`. Above 1,
        `repetition_penalty` makes tokens that an answer already holds (not the prompt's) less
        likely (CTRL, section 4.1), and with `penalize_bos` the BOS of a causal model, if it has
        one, or the token a decoder starts with. `Answer.log_prob` knows of neither: it sums over
        the tokens as they were generated, end-of-text included where it was reached.

        Raises:
            ConfigError: if there are more answers than beams, fewer than one of anything, the
                shortest answer is longer than the longest, the repetition penalty is not
                above 0, or a row needs more positions than the model has.
        """
        if repetition_penalty <= 0:
            raise ConfigError(
                f"repetition_penalty={repetition_penalty} must be above 0; 1 changes nothing"
            )
        if not 0 <= min_new_tokens <= max_new_tokens:
            raise ConfigError(
                f"min_new_tokens={min_new_tokens} must be 0 to max_new_tokens={max_new_tokens}"
            )
        if not 1 <= num_answers <= num_beams or max_new_tokens < 1:
            raise ConfigError(
                f"num_answers={num_answers}, num_beams={num_beams}, "
                f"max_new_tokens={max_new_tokens}: all must be 1 or more, and num_answers at most "
                "num_beams"
            )
        config = GenerationConfig(
            do_sample=False,
            num_beams=num_beams,
            num_return_sequences=num_answers,
            min_new_tokens=min_new_tokens or None,
            max_new_tokens=max_new_tokens,
            length_penalty=float(length_penalty) if num_beams > 1 else None,
            bos_token_id=self.texts.tokenizer.bos_token_id,
            eos_token_id=self.texts.end_ids,
            pad_token_id=self.texts.pad_id,
            decoder_start_token_id=getattr(self.model.config, "decoder_start_token_id", None),
        )
        processors = LogitsProcessorList()
        if repetition_penalty != 1:
            processors.append(self._penalty(repetition_penalty, penalize_bos))
        longest = [max_new_tokens] * len(prompts)
        asked = self._asked(video_tokens, video_mask, prompts, longest)
        with self._scoring():
            generated = self.layout.generate(asked, config, processors)
            answers = [self.texts.until_end(ids) for ids in generated.tolist()]
            scores = self._score(asked, answers, per_row=num_answers)
        pairs = zip(answers, scores.flatten().tolist(), strict=True)
        found = [Answer(self.texts.decode(ids), log_prob) for ids, log_prob in pairs]
        return [found[i : i + num_answers] for i in range(0, len(found), num_answers)]

    @torch.no_grad()
    def rank(
        self,
        video_tokens: Tensor,
        prompts: Sequence[str],
        candidates: Sequence[str],
        *,
        video_mask: Tensor | None = None,
        with_eos: bool = True,
    ) -> Tensor:
        """Log-probability of every candidate for every row, (B,C), end-of-text included `with_eos`.

        Raises:
            ConfigError: if there are no candidates, one has neither text nor end, or a row needs
                more positions than there are.
        """
        answers = self.texts.candidates(candidates, with_eos)
        longest = [max(map(len, answers))] * len(prompts)
        asked = self._asked(video_tokens, video_mask, prompts, longest)
        with self._scoring():
            return self._score(asked, answers, per_row=None)

    def answer_length(self, text: str) -> int:
        """How many tokens `text` takes as an answer, end-of-text included."""
        return len(self.texts.answer(text))

    def check_lengths(self, video_tokens: int, max_new_tokens: int) -> str | None:
        """How many positions the longest texts that the settings admit take, of how many.

        None where there is no limit. Beyond what rotary positions were trained with, a warning.

        Raises:
            ConfigError: if they may need more than a table of positions has.
        """
        prompt = self.texts.longest_prompt
        return self.room.check(video_tokens, prompt, self.texts.max_answer_tokens, max_new_tokens)

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
            if self._checkpointed:
                inputs = rows * length * self.width * item
                phase = recomputed(phase, model.config.num_hidden_layers, inputs)
            phases.append(phase)
        return [*phases, logits_phase(rows, answer, model.config.vocab_size, item)]

    def _asked(
        self,
        video_tokens: Tensor,
        video_mask: Tensor | None,
        prompts: Sequence[str],
        answers: Sequence[int],
    ) -> Asked:
        """What is asked, if there are positions for it and answers of so many tokens."""
        read = [self.texts.prompt(text) for text in prompts]
        counts = real_counts(video_tokens, video_mask)
        self.room.check_rows(counts, list(map(len, read)), answers)
        return Asked(self.model, video_tokens, counts, read)

    def _penalty(self, penalty: float, penalize_bos: bool) -> RepetitionPenalty:
        """Not in the config: there transformers takes a row's padding for a part of its answer."""
        config, bos_id = self.model.config, self.texts.tokenizer.bos_token_id
        if config.is_encoder_decoder:
            bos_id = config.decoder_start_token_id
        return RepetitionPenalty(
            float(penalty),
            skipped=int(config.is_encoder_decoder),
            bos_id=bos_id if penalize_bos else None,
        )

    def _score(self, asked: Asked, answers: list[list[int]], per_row: int | None) -> Tensor:
        """Scores (B,C) of answers: `per_row` own ones of each row, or the same for all rows."""
        ids, mask = padded(answers, asked.video.device)
        rows = len(asked.prompts)
        shape = (rows, per_row or len(answers), ids.shape[1])
        ids, mask = (t.view(shape) if per_row else t.expand(shape) for t in (ids, mask))
        candidates = Candidates(ids, mask, self.rank_chunk)
        return self.layout.rank(asked, candidates)

    @contextmanager
    def _scoring(self) -> Iterator[None]:
        """Eval mode for the model, so that scores never depend on dropout."""
        mode = self.model.training, [layer.training for layer in self._checkpointed]
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(mode[0])
            for layer, training in zip(self._checkpointed, mode[1], strict=True):
                layer.training = training
