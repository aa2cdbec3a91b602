import pytest
import torch
from models import FAMILIES, asking, build, save, seen
from torch import nn

from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.model.llm import HFLanguageModel, PromptedLanguageModel
from mmavlm.model.llm.new_rows import add_rows
from mmavlm.model.text import load_tokenizer

NEW = ["zebra-token", "gnu-token"]
PROMPTS, TARGETS = ["what is the genre of the movie?", "a zebra-token"], ["comedy", "gnu-token"]


def larger():
    tokenizer = load_tokenizer(None)
    tokenizer.add_tokens(NEW)
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama whose tokenizer has two tokens more than its embedding has rows."""
    folder = tmp_path_factory.mktemp("llama")
    save("llama", folder)
    larger().save_pretrained(folder)
    return str(folder)


def video(llm, rows=2):
    return torch.randn(rows, 3, llm.width, generator=torch.Generator().manual_seed(0))


def test_a_tokenizer_with_more_tokens_than_rows_is_refused_when_the_model_is_built(folder):
    with pytest.raises(ConfigError, match=r"language model has 2755 tokens, but its embedding 2753 "
                       r"rows: 2 tokens .* llm.resize_embeddings=true"):  # fmt: skip
        HFLanguageModel(folder)


def test_a_padded_embedding_is_fine():
    model = build("llama", vocab_size=4096)
    assert PromptedLanguageModel(model, load_tokenizer(None)).answer_length("comedy") == 2


@pytest.mark.parametrize("kind", FAMILIES)
def test_old_tokens_are_read_as_before_and_new_ones_like_their_mean(kind):
    plain, grown = build(kind).eval(), build(kind).eval()
    first = plain.get_input_embeddings().num_embeddings
    add_rows(grown, first + 2)
    ids = torch.tensor([[5, 6, 7, 8]])
    decoder = {"decoder_input_ids": ids} if plain.config.is_encoder_decoder else {}
    with torch.no_grad():
        expected, found = plain(input_ids=ids, **decoder), grown(input_ids=ids, **decoder)
        assert found.logits.shape[-1] == first + 2
        torch.testing.assert_close(found.logits[..., :first], expected.logits)
        words = plain.get_input_embeddings()
        whole = words(torch.arange(first))
        new = grown.get_input_embeddings()(torch.tensor([first, first + 1]))
    torch.testing.assert_close(new, whole.mean(dim=0).expand(2, -1))
    torch.testing.assert_close(grown.get_input_embeddings().weight[:first], words.weight)


@pytest.mark.parametrize("kind", FAMILIES)
def test_new_tokens_are_asked_answered_generated_and_ranked(kind):
    model = build(kind).requires_grad_(False)
    tokenizer = larger()
    add_rows(model, len(tokenizer))
    llm = PromptedLanguageModel(model, tokenizer)
    learning = {name for name, p in llm.named_parameters() if p.requires_grad}
    assert all(".new_rows." in name for name in learning)
    llm.loss(asking(PROMPTS, TARGETS), seen(video(llm))).backward()
    assert all(p.grad.any() for p in llm.parameters() if p.requires_grad)
    ranked = llm.rank(asking(PROMPTS), seen(video(llm)), [*TARGETS, *NEW])
    assert ranked.isfinite().all()
    for parameter in llm.parameters():
        if parameter.requires_grad:
            nn.init.constant_(parameter, 9.0 if parameter.ndim == 2 else 0.0)
    assert llm.generate(
        asking(PROMPTS), seen(video(llm)), Generation(num_beams=2, max_new_tokens=3)
    )


def test_no_more_rows_are_added_than_are_missing(folder, tmp_path):
    grown = HFLanguageModel(folder, resize_embeddings=True)
    assert grown.model.get_input_embeddings().num_embeddings == 2755
    padded = HFLanguageModel(save("llama", tmp_path), resize_embeddings=True)
    assert not any("new_rows" in name for name, _ in padded.named_parameters())


@pytest.mark.parametrize("how", [{}, {"lora": {"rank": 2}}, {"trainable": True}])
def test_new_rows_learn_whether_the_rest_does_or_not(folder, how):
    if "lora" in how:
        pytest.importorskip("peft", reason="needs the lora extra")
    llm = HFLanguageModel(folder, dtype="float32", resize_embeddings=True, **how).train()
    frozen = {n: p.clone() for n, p in llm.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in llm.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(llm.loss(asking(PROMPTS, TARGETS), seen(video(llm))))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 1
    assert all(torch.equal(p, frozen[n]) for n, p in llm.named_parameters() if n in frozen)
    assert bool(frozen) is not how.get("trainable", False)


def test_new_rows_start_alike_whatever_was_drawn_before(folder):
    first, second = (
        [torch.manual_seed(seed), HFLanguageModel(folder, resize_embeddings=True)][1].state_dict()
        for seed in (1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_half_precision_weights_get_new_rows_in_single_precision(folder):
    llm = HFLanguageModel(folder, resize_embeddings=True)
    assert llm.model.dtype == torch.bfloat16
    assert {p.dtype for p in llm.parameters() if p.requires_grad} == {torch.float32}
    assert llm.loss(asking(PROMPTS, TARGETS), seen(video(llm))).isfinite()


def test_gradient_checkpointing_reaches_new_rows(folder):
    llm = HFLanguageModel(
        folder, dtype="float32", resize_embeddings=True, gradient_checkpointing=True
    ).train()
    llm.loss(asking(PROMPTS, TARGETS), seen(video(llm))).backward()
    assert all(p.grad is not None for p in llm.parameters() if p.requires_grad)
