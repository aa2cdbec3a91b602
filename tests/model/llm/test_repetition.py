"""What is generated as MA-LMM's code would: from a BOS that its lengths and its penalty count."""

import pytest
import torch
from models import FAMILIES, asking, build, question, seen
from transformers import GenerationConfig

from mmavlm.core.generation import Generation
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.text import load_tokenizer

PROMPTS = ["what is the genre of the movie?", "hi", "why does the man sit in the prison?"]
BOS, PENALTY = 1, 1.5
# OPT's embeddings are narrower than its layers: transformers cannot begin it from an id and go on.
BEGUN_FROM_IDS = [kind for kind in FAMILIES if kind != "opt"]


@pytest.fixture(scope="module", params=FAMILIES)
def llm(request):
    return PromptedLanguageModel(build(request.param).requires_grad_(False), load_tokenizer(None))


@pytest.fixture
def video(llm):
    return torch.randn(3, 4, llm.width, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def start_id(llm):
    config = llm.model.config
    return config.decoder_start_token_id if config.is_encoder_decoder else BOS


@pytest.fixture
def likely(llm):
    """A function that gives a token so many times the best score of all others."""
    hooks = []

    def likely(token, times):
        def hook(head, inputs, scores):
            best = scores.amax(dim=-1, keepdim=True)
            return scores.index_copy(-1, torch.tensor([token]), times * best)

        hooks.append(llm.model.get_output_embeddings().register_forward_hook(hook))

    yield likely
    for hook in hooks:
        hook.remove()


def published(llm, video, prompt, *, min_length, max_length, num_beams):
    """One row's ids by transformers alone, whose answer begins with a BOS; the BOS left out."""
    table = llm.model.get_input_embeddings()
    inputs = torch.cat([video, table(torch.tensor([question(llm.rendering, prompt).ids]))], dim=1)
    seq2seq = llm.model.config.is_encoder_decoder
    read = 0 if seq2seq else inputs.shape[1]  # transformers takes these off again
    begun = {} if seq2seq else {"input_ids": torch.tensor([[BOS]])}
    config = GenerationConfig(
        num_beams=num_beams,
        num_return_sequences=num_beams,
        min_length=min_length + read,
        max_length=max_length + read,
        repetition_penalty=PENALTY,
        length_penalty=0.0,
        eos_token_id=llm.answers.end_ids,
        pad_token_id=llm.answers.pad_id,
        decoder_start_token_id=getattr(llm.model.config, "decoder_start_token_id", None),
    )
    generated = llm.model.generate(
        inputs_embeds=inputs,
        attention_mask=torch.ones(inputs.shape[:2], dtype=torch.int64),
        generation_config=config,
        **begun,
    )
    return [llm.answers.until_end(ids) for ids in generated[:, 1:].tolist()]


@pytest.mark.parametrize("llm", BEGUN_FROM_IDS, indirect=True)
@pytest.mark.parametrize(("min_length", "max_length"), [(1, 5), (2, 4)])
def test_lengths_without_the_bos_and_a_penalised_bos_are_the_published_decoding(
    llm, video, likely, start_id, min_length, max_length
):
    likely(start_id, 1.1)
    likely(llm.answers.end[-1], 1.0)
    found = llm.generate(
        asking(PROMPTS),
        seen(video),
        Generation(
            num_beams=3,
            num_answers=3,
            min_new_tokens=min_length - 1,
            max_new_tokens=max_length - 1,
            repetition_penalty=PENALTY,
            penalize_bos=True,
            length_penalty=0.0,
        ),
    )
    for row, prompt, answers in zip(video, PROMPTS, found, strict=True):
        lengths = {"min_length": min_length, "max_length": max_length}
        expected = published(llm, row[None], prompt, num_beams=3, **lengths)
        assert [answer.text for answer in answers] == [llm.answers.decode(ids) for ids in expected]


def greedy(llm, video, prompt, *, begun, tokens):
    """One row's ids, by the penalty written out; `begun` is what an answer already holds."""
    table, config = llm.model.get_input_embeddings(), llm.model.config
    asked, ids = question(llm.rendering, prompt).ids, []
    while len(ids) < tokens and not {*ids} & {*llm.answers.end_ids}:
        read = asked if config.is_encoder_decoder else asked + ids
        inputs = {"inputs_embeds": torch.cat([video, table(torch.tensor([read]))], dim=1)}
        if config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.tensor([[config.decoder_start_token_id, *ids]])
        scores = llm.model(**inputs).logits[0, -1]
        for token in {*begun, *ids}:
            scores[token] *= PENALTY if scores[token] < 0 else 1 / PENALTY
        ids.append(int(scores.argmax()))
    return ids


def test_the_penalty_counts_the_tokens_of_an_answer_and_if_asked_what_it_starts_with(
    llm, video, likely, start_id
):
    likely(start_id, 1.2)
    told = {"num_beams": 1, "max_new_tokens": 4, "repetition_penalty": PENALTY}
    answers = {}
    for penalize_bos, begun in ((False, []), (True, [start_id])):
        found = llm.generate(
            asking(PROMPTS), seen(video), Generation(penalize_bos=penalize_bos, **told)
        )
        expected = [
            llm.answers.decode(greedy(llm, row[None], prompt, begun=begun, tokens=4))
            for row, prompt in zip(video, PROMPTS, strict=True)
        ]
        assert [answer.text for (answer,) in found] == expected
        answers[penalize_bos] = expected
    assert answers[True] != answers[False]


def test_without_a_bos_there_is_none_to_penalise():
    words = load_tokenizer(None)
    words.bos_token = None
    llm = PromptedLanguageModel(build("llama"), words)
    told = {"num_beams": 2, "max_new_tokens": 3, "repetition_penalty": PENALTY}
    video = torch.randn(1, 4, llm.width, generator=torch.Generator().manual_seed(0))
    whole, same = (
        llm.generate(asking(["hi"]), seen(video), Generation(penalize_bos=how, **told))
        for how in (False, True)
    )
    assert whole == same
