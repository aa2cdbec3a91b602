import pytest
import torch
from models import FAMILIES, asking, build, question, seen
from torch.nn.functional import cross_entropy

from mmavlm.core.errors import ConfigError
from mmavlm.core.footprint import peak
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import LanguageModel
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.text import load_tokenizer
from support import peak_bytes

KINDS = tuple(FAMILIES)
PROMPTS = ["what is the genre of the movie?", "hi", "why does the man sit in the prison?"]
TARGETS = ["comedy", "ex-boyfriend ex-girlfriend", "zebra"]


def wrap(kind, *, frozen=True, **settings):
    model = build(kind).requires_grad_(not frozen)
    return PromptedLanguageModel(model, load_tokenizer(None), **settings)


@pytest.fixture(scope="module", params=KINDS)
def llm(request):
    return wrap(request.param)


@pytest.fixture
def video(llm):
    return torch.randn(3, 4, llm.width, generator=torch.Generator().manual_seed(0))


def plain_log_prob(llm, video, prompt, answer, reduction="sum"):
    """One row, no padding, no cache: the sum over answer tokens of their log-probability."""
    embed = llm.model.get_input_embeddings()
    asked = torch.cat([video, embed(torch.tensor([prompt.ids]))], dim=1)
    if llm.model.config.is_encoder_decoder:
        start = [llm.model.config.decoder_start_token_id]
        decoder = torch.tensor([start + answer[:-1]])
        logits = llm.model(inputs_embeds=asked, decoder_input_ids=decoder).logits[0]
    else:
        whole = torch.cat([asked, embed(torch.tensor([answer]))], dim=1)
        logits = llm.model(inputs_embeds=whole).logits[0, asked.shape[1] - 1 : -1]
    return -cross_entropy(logits, torch.tensor(answer), reduction=reduction)


def plain_scores(llm, video, texts_by_row):
    return torch.stack(
        [
            torch.stack(
                [
                    plain_log_prob(
                        llm, row[None], question(llm.rendering, p), llm.answers.ids(text)
                    )
                    for text in texts
                ]
            )
            for row, p, texts in zip(video, PROMPTS, texts_by_row, strict=True)
        ]
    )


def test_it_is_a_language_model(llm):
    assert isinstance(llm, LanguageModel)


def test_loss_is_the_mean_over_answer_tokens_and_ends(llm, video):
    scores = plain_scores(llm, video, [[text] for text in TARGETS])
    tokens = sum(llm.answer_length(text) for text in TARGETS)
    torch.testing.assert_close(
        llm.loss(asking(PROMPTS, TARGETS), seen(video)), -scores.sum() / tokens
    )


def test_token_ids_as_video_give_what_the_model_gives_for_its_own_input_ids(llm):
    spelled = torch.tensor([[40, 60, 80], [41, 61, 81], [90, 70, 50]])
    video = llm.model.get_input_embeddings()(spelled)
    expected = []
    for shown, prompt, target in zip(spelled.tolist(), PROMPTS, TARGETS, strict=True):
        asked, answer = [*shown, *question(llm.rendering, prompt).ids], llm.answers.ids(target)
        if llm.model.config.is_encoder_decoder:
            own = {"input_ids": torch.tensor([asked]), "labels": torch.tensor([answer])}
        else:
            labels = torch.tensor([[*[-100] * len(asked), *answer]])
            own = {"input_ids": torch.tensor([asked + answer]), "labels": labels}
        expected.append(-llm.model(**own).loss * len(answer))
    scores = llm.rank(asking(PROMPTS), seen(video), TARGETS).diag()
    torch.testing.assert_close(scores, torch.stack(expected), rtol=1e-4, atol=1e-4)
    tokens = sum(llm.answer_length(text) for text in TARGETS)
    torch.testing.assert_close(
        llm.loss(asking(PROMPTS, TARGETS), seen(video)), -sum(expected) / tokens
    )


@pytest.mark.parametrize("rank_chunk", [1, 7, 64])
def test_rank_is_the_summed_log_probability_of_each_candidate(llm, video, rank_chunk):
    candidates = [*TARGETS, "", "friend", "husband wife"]
    llm.rank_chunk = rank_chunk
    expected = plain_scores(llm, video, [candidates] * 3)
    torch.testing.assert_close(
        llm.rank(asking(PROMPTS), seen(video), candidates), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("rank_chunk", [1, 7, 64])
def test_without_ends_rank_is_the_sum_over_all_tokens_but_the_last(llm, video, rank_chunk):
    candidates = [*TARGETS, "friend", "husband wife"]
    llm.rank_chunk = rank_chunk
    expected = torch.tensor(
        [
            [
                plain_log_prob(
                    llm,
                    row[None],
                    question(llm.rendering, p),
                    llm.answers.ids(text),
                    reduction="none",
                )[:-1].sum()
                for text in candidates
            ]
            for row, p in zip(video, PROMPTS, strict=True)
        ]
    )
    found = llm.rank(asking(PROMPTS), seen(video), candidates, with_eos=False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argsort(dim=1), expected.argsort(dim=1))


def test_without_ends_a_candidate_that_begins_another_is_not_below_it(llm, video):
    scores = llm.rank(
        asking(PROMPTS), seen(video), ["the movie", "the movie of the movie"], with_eos=False
    )
    assert (scores[:, 0] >= scores[:, 1]).all()


def test_without_its_end_a_candidate_without_text_is_refused(llm, video):
    with pytest.raises(ConfigError, match=r"candidate '' has no text.* stage.rank_with_eos=true"):
        llm.rank(asking(PROMPTS), seen(video), ["comedy", ""], with_eos=False)


def test_rank_of_candidates_that_are_only_an_end(llm, video):
    expected = plain_scores(llm, video, [[""]] * 3)
    torch.testing.assert_close(
        llm.rank(asking(PROMPTS), seen(video), [""]), expected, rtol=1e-4, atol=1e-4
    )


def test_rows_in_a_batch_give_what_they_give_alone(llm, video):
    settings = {"num_beams": 3, "num_answers": 3, "max_new_tokens": 4}
    together = llm.generate(asking(PROMPTS), seen(video), Generation(**settings))
    for i, prompt in enumerate(PROMPTS):
        alone = llm.generate(asking([prompt]), seen(video[i : i + 1]), Generation(**settings))[0]
        assert [a.text for a in together[i]] == [a.text for a in alone]
        assert [a.log_prob for a in together[i]] == pytest.approx(
            [a.log_prob for a in alone], abs=1e-3
        )


def test_answers_depend_on_the_video(llm, video):
    scores = llm.rank(asking(PROMPTS[:1] * 2), seen(torch.cat([video[:1], -video[:1]])), TARGETS)
    assert (scores[0] - scores[1]).abs().max() > 1e-3


def test_greedy_answers_are_the_likeliest_token_again_and_again(llm, video):
    for i, prompt in enumerate(PROMPTS):
        ids, ask = [], question(llm.rendering, prompt)
        for _ in range(3):
            ids.append(_argmax_next(llm, video[i : i + 1], ask, ids))
            if ids[-1] == llm.answers.end[-1]:
                break
        found = llm.generate(
            asking([prompt]), seen(video[i : i + 1]), Generation(num_beams=1, max_new_tokens=3)
        )[0][0]
        assert found.text == llm.answers.decode(ids)
        expected = plain_log_prob(llm, video[i : i + 1], ask, ids)
        assert found.log_prob == pytest.approx(expected.item(), abs=1e-3)


def _argmax_next(llm, video, prompt, ids):
    embed = llm.model.get_input_embeddings()
    asked = torch.cat([video, embed(torch.tensor([prompt.ids]))], dim=1)
    if llm.model.config.is_encoder_decoder:
        start = [llm.model.config.decoder_start_token_id]
        decoder = torch.tensor([start + ids])
        logits = llm.model(inputs_embeds=asked, decoder_input_ids=decoder).logits
    else:
        text = torch.tensor([[*prompt.ids, *ids]])
        logits = llm.model(inputs_embeds=torch.cat([video, embed(text)], dim=1)).logits
    return logits[0, -1].argmax().item()


def test_gradients_pass_through_a_frozen_model_to_the_video(llm, video):
    video = video.requires_grad_()
    llm.loss(asking(PROMPTS, TARGETS), seen(video)).backward()
    assert video.grad.flatten(1).norm(dim=1).gt(0).all()
    assert all(p.grad is None for p in llm.parameters())


def test_a_frozen_model_stays_in_eval_mode_and_a_learning_one_does_not():
    assert not wrap("t5").train().model.training
    assert wrap("t5", frozen=False).train().model.training


def test_scores_never_depend_on_dropout_and_the_mode_comes_back():
    llm = wrap("t5", frozen=False).train()
    video = torch.randn(3, 4, llm.width)
    first, second = (llm.rank(asking(PROMPTS), seen(video), TARGETS) for _ in range(2))
    assert torch.equal(first, second)
    assert llm.model.training
    losses = [llm.loss(asking(PROMPTS, TARGETS), seen(video)).item() for _ in range(2)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [True, False])
def test_gradient_checkpointing_runs_layers_twice_and_changes_no_gradient(kind, frozen):
    calls, grads = [], []
    for checkpointing in (False, True):
        llm = wrap(kind, frozen=frozen, gradient_checkpointing=checkpointing).train()
        for module in llm.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        embedding = llm.model.get_input_embeddings()
        keys = ("k_proj", "c_attn", ".k")
        linear = next(m for name, m in llm.named_modules() if name.endswith(keys))
        count = []
        linear.register_forward_hook(lambda *_, count=count: count.append(1))
        video = torch.randn(
            3, 4, embedding.embedding_dim, generator=torch.Generator().manual_seed(1)
        ).requires_grad_()
        for module in llm.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
        llm.loss(asking(PROMPTS, TARGETS), seen(video)).backward()
        calls.append(len(count))
        grads.append(video.grad)
    assert calls == [1, 2]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_checkpointing_leaves_evaluation_as_it_was():
    llm = wrap("llama", gradient_checkpointing=True).train()
    video = torch.randn(3, 4, llm.width)
    plain = wrap("llama").rank(asking(PROMPTS), seen(video), TARGETS)
    torch.testing.assert_close(llm.rank(asking(PROMPTS), seen(video), TARGETS), plain)
    assert any(layer.training for layer in llm.model.modules())
    llm.eval()
    assert not any(layer.training for layer in llm.model.modules())


def test_video_tokens_take_the_precision_of_the_model():
    llm = PromptedLanguageModel(build("llama").bfloat16(), load_tokenizer(None))
    assert (
        llm.loss(asking(PROMPTS, TARGETS), seen(torch.randn(3, 4, llm.width))).dtype
        == torch.float32
    )


def test_settings_of_the_checkpoint_do_not_steer_generation():
    model = build("llama")
    model.generation_config.update(do_sample=True, temperature=9.0, max_length=3, top_k=5)
    llm = PromptedLanguageModel(model, load_tokenizer(None))
    video = torch.randn(3, 4, llm.width, generator=torch.Generator().manual_seed(0))
    answers = [
        llm.generate(asking(PROMPTS), seen(video), Generation(num_beams=2, max_new_tokens=5))
        for _ in range(2)
    ]
    assert (
        answers[0]
        == answers[1]
        == wrap("llama").generate(
            asking(PROMPTS), seen(video), Generation(num_beams=2, max_new_tokens=5)
        )
    )


@pytest.mark.parametrize(
    ("num_beams", "num_answers", "max_new_tokens"), [(2, 3, 5), (1, 0, 5), (1, 1, 0)]
)
def test_counts_that_do_not_fit_are_refused(num_beams, num_answers, max_new_tokens):
    llm = wrap("llama")
    with pytest.raises(ConfigError, match=rf"num_answers={num_answers}, num_beams={num_beams}"):
        llm.generate(
            asking(["hi"]),
            seen(torch.randn(1, 2, llm.width)),
            Generation(num_beams=num_beams, num_answers=num_answers, max_new_tokens=max_new_tokens),
        )


def test_answers_are_at_least_as_long_as_asked(llm, video):
    # the end of text made the likeliest token, so that nothing but the minimum holds answers open
    bias = torch.zeros(llm.model.get_output_embeddings().out_features)
    bias[llm.answers.end[-1]] = 1e4
    hook = llm.model.get_output_embeddings().register_forward_hook(lambda *a: a[2] + bias)
    try:
        for least in (0, 1, 3):
            found = llm.generate(
                asking(PROMPTS),
                seen(video),
                Generation(num_beams=2, min_new_tokens=least, max_new_tokens=4),
            )
            assert [len(llm.answers.ids(a.text)) > least for (a,) in found] == [True] * 3
            assert least or [a.text for (a,) in found] == [""] * 3
    finally:
        hook.remove()


@pytest.fixture
def liking(llm):
    """A function that makes some words the likeliest tokens by far, whatever is asked."""
    hooks = []

    def like(*ids):
        bias = torch.zeros(llm.model.get_output_embeddings().out_features)
        bias[list(ids)] = torch.arange(20.0, 20.0 - len(ids), -1)
        head = llm.model.get_output_embeddings()
        hooks.append(head.register_forward_hook(lambda *a: 0 * a[2] + bias))

    yield like
    for hook in hooks:
        hook.remove()


def test_an_answer_that_repeats_itself_is_changed_by_a_penalty(llm, video, liking):
    words = ("comedy", "action", "prison")
    liking(*(llm.answers.ids(word)[-2] for word in words))
    told = {"num_beams": 1, "min_new_tokens": 3, "max_new_tokens": 3}
    for penalty, expected in ((1.0, [3, 0, 0]), (1.5, [1, 1, 1])):
        # rows of different lengths, none of which is to count its padding
        for (answer,) in llm.generate(
            asking(PROMPTS), seen(video), Generation(repetition_penalty=penalty, **told)
        ):
            assert [answer.text.count(word) for word in words] == expected


def test_beams_go_by_their_whole_probability_without_a_length_penalty(llm, video, liking):
    liking(llm.answers.end[-1], llm.answers.ids("comedy")[-2])
    told = {"num_beams": 2, "min_new_tokens": 1, "max_new_tokens": 3}
    for penalty, expected in ((0.0, 1), (3.0, 2)):
        for (answer,) in llm.generate(
            asking(PROMPTS), seen(video), Generation(length_penalty=penalty, **told)
        ):
            assert answer.text.count("comedy") == expected


def test_a_penalty_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match=r"repetition_penalty=0.0 must be above 0"):
        wrap("llama").generate(
            asking(["hi"]), seen(torch.randn(1, 2, 1)), Generation(repetition_penalty=0.0)
        )


def test_a_shortest_answer_longer_than_the_longest_is_refused():
    llm = wrap("llama")
    with pytest.raises(ConfigError, match="min_new_tokens=6 must be 0 to max_new_tokens=5"):
        llm.generate(
            asking(["hi"]),
            seen(torch.randn(1, 2, 1)),
            Generation(min_new_tokens=6, max_new_tokens=5),
        )


def test_ranking_nothing_is_refused():
    llm = wrap("llama")
    with pytest.raises(ConfigError, match="nothing to rank; give at least one candidate"):
        llm.rank(asking(["hi"]), seen(torch.randn(1, 2, llm.width)), [])


def test_a_chunk_of_no_sequence_is_refused():
    with pytest.raises(ConfigError, match=r"llm.rank_chunk is 0; give 1 sequence or more"):
        wrap("llama", rank_chunk=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_estimated_memory_of_a_loss_is_within_twice_the_measured_peak(kind):
    llm = wrap(kind).train()
    rows, prompt, answer = 16, question(llm.rendering, PROMPTS[0] * 4), llm.answer_length("comedy")
    video = torch.randn(rows, 32, llm.width, requires_grad=True)
    estimate = peak(llm.phases(rows, 32, len(prompt), answer))
    prompts, targets = [PROMPTS[0] * 4] * rows, ["comedy"] * rows
    measured = peak_bytes(lambda: llm.loss(asking(prompts, targets), seen(video)).backward())
    assert measured / 2 < estimate < measured * 2
