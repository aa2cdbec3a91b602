import logging

import pytest
import torch
from models import FAMILIES, asking, build, question, seen

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import peak
from mmavlm.core.generation import Generation
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.llm.room import Room
from mmavlm.model.text import load_tokenizer
from mmavlm.model.token_tables import Positions, TooLongError

LIMITED = {"gpt2": {"n_positions": 40}, "opt": {"max_position_embeddings": 40}}
LIMITED |= {"bart": {"max_position_embeddings": 40}}
LONG = "movie " * 30
NONE = [kind for kind in FAMILIES if kind not in LIMITED]


def wrap(kind, **settings):
    model = build(kind, **LIMITED.get(kind, {})).requires_grad_(False)
    return PromptedLanguageModel(model, load_tokenizer(None), **settings)


def video(llm, rows=1, tokens=4):
    return torch.randn(rows, tokens, llm.width, generator=torch.Generator().manual_seed(0))


def fitting(llm, answer):
    """The longest prompt, in words, that there are positions for beside video and answer."""
    together = not llm.model.config.is_encoder_decoder
    return 40 - 4 - 1 - (llm.answer_length(answer) - 1 if together else 0)


@pytest.mark.parametrize("kind", LIMITED)
def test_the_last_position_is_used_and_the_next_refused_by_loss_and_rank(kind):
    llm = wrap(kind)
    words = fitting(llm, "comedy")
    prompts = ["movie" + " movie" * (words - 1), "movie" + " movie" * words]
    assert llm.loss(asking(prompts[:1], ["comedy"]), seen(video(llm))).isfinite()
    assert llm.rank(asking(prompts[:1]), seen(video(llm)), ["comedy"]).isfinite().all()
    both = video(llm, 2)
    for ask in (
        lambda: llm.loss(asking(prompts, ["comedy", "comedy"]), seen(both)),
        lambda: llm.rank(asking(prompts), seen(both), ["comedy", "comedy"]),
    ):
        with pytest.raises(
            TooLongError, match=r"row 1 .* 40 positions; lower llm.max_prompt"
        ) as told:
            ask()
        assert told.value.row == 1


@pytest.mark.parametrize("kind", LIMITED)
def test_what_is_generated_needs_positions_too(kind):
    llm = wrap(kind)
    together = not llm.model.config.is_encoder_decoder
    words = 40 - 4 - 1 - (5 if together else 0)
    prompt = "movie" + " movie" * (words - 1)
    settings = {"num_beams": 2, "min_new_tokens": 6, "max_new_tokens": 6}
    assert len(llm.generate(asking([prompt]), seen(video(llm)), Generation(**settings))) == 1
    with pytest.raises(TooLongError, match=r"of the prompt"):
        llm.generate(asking([f"{prompt} movie"]), seen(video(llm)), Generation(**settings))
    with pytest.raises(TooLongError, match=r"answer"):
        llm.generate(asking(["hi"]), seen(video(llm)), Generation(num_beams=1, max_new_tokens=41))


@pytest.mark.parametrize("kind", NONE)
def test_where_there_is_no_table_nothing_is_refused(kind):
    llm = wrap(kind)
    assert llm.loss(asking([LONG * 4], [LONG]), seen(video(llm))).isfinite()


def test_a_message_says_what_the_length_is_made_of():
    room = Room(Positions(100, table=True), together=True)
    parts = r"32 of the video \+ 80 of the prompt \+ 21 of the answer before its last"
    with pytest.raises(TooLongError, match=rf"takes 133 tokens \({parts}\), .* 100 positions"):
        room.check_rows([32, 32], [10, 80], [5, 22])
    apart = Room(Positions(100, table=True), together=False)
    with pytest.raises(TooLongError, match=r"takes 112 tokens .* and an answer of 22"):
        apart.check_rows([32, 32], [10, 80], [5, 22])


@pytest.mark.parametrize("template", ["{prompt}", "look: {video} {prompt} in a word"])
def test_settings_that_admit_longer_rows_are_refused_at_the_start(template):
    settings = {"prompt_template": template, "max_prompt_tokens": 9}
    fits = wrap("gpt2", max_answer_tokens=10, **settings)
    assert "of 40 positions" in fits.check_lengths(8, 10)
    with pytest.raises(
        ConfigError, match=r"40 positions, but .*max_answer_tokens=30 .*answer of 10; lower"
    ):
        wrap("gpt2", max_answer_tokens=30, **settings).check_lengths(8, 10)
    with pytest.raises(ConfigError, match=r"max_answer_tokens=10 .* generated answer of 30; lower"):
        fits.check_lengths(8, 30)


def test_no_text_is_longer_than_what_was_checked():
    for template in ("{prompt}", "look: {video} {prompt} in a word"):
        llm = wrap("gpt2", prompt_template=template, max_prompt_tokens=9, max_answer_tokens=7)
        assert len(question(llm.rendering, LONG)) <= llm.rendering.longest_prompt
        assert llm.answer_length(LONG) == 7


def test_rotary_positions_beyond_training_are_a_warning(caplog):
    llm = PromptedLanguageModel(build("llama", max_position_embeddings=40), load_tokenizer(None))
    with caplog.at_level(logging.WARNING):
        assert "it was trained with" in llm.check_lengths(8, 10)
    assert "trained with 40 positions" in caplog.text


def test_relative_positions_are_not_mentioned():
    assert wrap("t5").check_lengths(32, 10_000) is None


@pytest.mark.parametrize("kind", LIMITED)
def test_the_estimate_is_of_no_row_that_is_longer_than_the_table(kind):
    llm = wrap(kind)
    if llm.model.config.is_encoder_decoder:
        assert peak(llm.phases(2, 4, 400, 400)) == peak(llm.phases(2, 4, 36, 40))
        return
    longest = peak(llm.phases(2, 4, 28, 8))
    assert peak(llm.phases(2, 4, 400, 8)) == longest > peak(llm.phases(2, 4, 20, 8))
