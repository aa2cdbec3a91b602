"""Rows longer than those of training: scaled rotary positions, kinds of attention, their memory."""

import logging

import pytest
import torch
from models import asking, build, save, seen

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import peak
from mmavlm.model.llm import HFLanguageModel, PromptedLanguageModel
from mmavlm.model.text import load_tokenizer
from support import peak_bytes

POSITIONS = 64
LINEAR = {"rope_type": "linear", "factor": 16}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    build("llama", max_position_embeddings=POSITIONS).save_pretrained(folder)
    load_tokenizer(None).save_pretrained(folder)
    return str(folder)


def film(llm, tokens):
    return torch.randn(1, tokens, llm.width, generator=torch.Generator().manual_seed(0))


def load(folder, **settings):
    return HFLanguageModel(folder, dtype="float32", max_answer_tokens=8, **settings)


def test_a_row_longer_than_those_of_training_fits_with_scaling_and_is_warned_of_without(
    llama, caplog
):
    plain, scaled = load(llama), load(llama, rope_scaling=LINEAR)
    with caplog.at_level(logging.WARNING):
        assert f"of {16 * POSITIONS} positions" in scaled.check_lengths(800, 8)
        assert caplog.text == ""
        plain.check_lengths(800, 8)
        assert f"trained with {POSITIONS} positions" in caplog.text
        caplog.clear()
        scaled.check_lengths(16 * POSITIONS, 8)
        assert f"trained with {16 * POSITIONS} positions" in caplog.text
    assert scaled.loss(asking(["why?"], ["so"]), seen(film(scaled, 800))).isfinite()


def test_scaled_positions_are_those_of_training_with_others_between(llama):
    plain, scaled = load(llama), load(llama, rope_scaling={"type": "linear", "factor": 4})
    at = torch.arange(POSITIONS)[None]
    x = torch.zeros(1, POSITIONS, 1)
    before = plain.model.model.rotary_emb(x, at)
    after = scaled.model.model.rotary_emb(x, 4 * at)
    for part, other in zip(before, after, strict=True):
        torch.testing.assert_close(part, other)


@pytest.mark.parametrize(
    ("kind", "settings", "word"),
    [
        ("gpt2", {"rope_scaling": LINEAR}, "rotary positions, and .* 'gpt2', has none that"),
        ("llama", {"rope_scaling": {"rope_type": "square"}}, "'square'; choose one of linear, "),
        ("llama", {"rope_scaling": {"factor": 2}}, "the rope_type None; choose one of linear"),
        ("llama", {"rope_scaling": LINEAR | {"factor": 0.5}}, "rope_scaling.factor must be at le"),
        ("llama", {"attention": "fast"}, "llm.attention is 'fast'; choose one of eager, sdpa"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, kind, settings, word):
    with pytest.raises(ConfigError, match=word):
        load(save(kind, tmp_path), **settings)


def test_flash_attention_is_refused_with_a_remedy_where_it_is_not_installed(llama, monkeypatch):
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: False)
    with pytest.raises(ConfigError, match="install flash-attn, or choose sdpa"):
        load(llama, attention="flash_attention_2")


@torch.no_grad()
def test_kinds_of_attention_give_the_same(llama):
    eager, sdpa = (load(llama, attention=kind) for kind in ("eager", "sdpa"))
    losses = [
        llm.loss(asking(["why?"], ["so"]), seen(film(llm, 20))).item() for llm in (eager, sdpa)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_estimate_knows_that_scores_are_laid_out_and_that_layers_are_computed_again(
    checkpointed,
):
    """What is measured lies within a factor of two of it, for a row of 700 tokens."""
    found = {}
    for kind in ("eager", "sdpa"):
        model = build("llama", attn_implementation=kind, max_position_embeddings=1024)
        llm = PromptedLanguageModel(
            model, load_tokenizer(None), gradient_checkpointing=checkpointed
        ).train()
        row = film(llm, 700)

        def step(llm=llm, row=row):
            llm.loss(asking(["why?"], ["so"]), seen(row)).backward()

        found[kind] = peak(llm.phases(1, 700, 4, 2)), peak_bytes(step)
    for estimate, measured in found.values():
        assert 0.5 < estimate / measured < 2
    assert found["eager"][0] > 1.5 * found["sdpa"][0]
