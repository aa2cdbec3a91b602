"""Decoding against another view, beside a restatement: token by token, row by row, no cache."""

import pytest
import torch
from models import asking, build, question, seen

from mmavlm.core.contrast import Against, Contrast
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import MediaTokens
from mmavlm.model.contrast_views import NoFilm
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.llm.contrasted import NEVER
from mmavlm.model.text import load_tokenizer

KINDS = ("qwen2", "mistral", "gpt2", "t5", "bart")
PROMPTS = ["what is the genre of the movie?", "hi", "why does the man sit in the prison?"]
CANDIDATES = ["comedy", "ex-boyfriend ex-girlfriend", "zebra", "husband wife", ""]
STRONG = [(1.0, 0.1), (0.5, 0.0), (2.0, 0.6)]  # alpha, beta


@pytest.fixture(scope="module", params=KINDS)
def llm(request):
    return PromptedLanguageModel(build(request.param).requires_grad_(False), load_tokenizer(None))


@pytest.fixture
def video(llm):
    return torch.randn(3, 4, llm.width, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def blurred(llm):
    """Another view, of another length."""
    return torch.randn(3, 3, llm.width, generator=torch.Generator().manual_seed(1))


def against(media, alpha=1.0, beta=0.1, talks=None):
    contrast = Contrast(view=NoFilm(), alpha=alpha, beta=beta)
    return Against(asking(PROMPTS) if talks is None else talks, media, contrast)


def alone(llm, media):
    """Texts alone, and no media."""
    talks = [Conversation.question(None, prompt) for prompt in PROMPTS]
    return talks, MediaTokens(torch.zeros(0, 1, llm.width), [0] * len(media))


@torch.no_grad()
def next_logits(llm, video, prompt, said):
    """Logits (V,) behind what was said about a film (K,Dl) so far."""
    embed = llm.model.get_input_embeddings()
    asked = torch.cat([video[None], embed(torch.tensor([question(llm.rendering, prompt).ids]))], 1)
    if llm.model.config.is_encoder_decoder:
        begun = torch.tensor([[llm.model.config.decoder_start_token_id, *said]])
        return llm.model(inputs_embeds=asked, decoder_input_ids=begun).logits[0, -1]
    if said:
        asked = torch.cat([asked, embed(torch.tensor([said]))], dim=1)
    return llm.model(inputs_embeds=asked).logits[0, -1]


def probabilities(seen, other, alpha, beta):
    """The published equation as it stands."""
    p = seen.softmax(-1)
    raised = ((1 + alpha) * seen - alpha * other).softmax(-1) * (p >= beta * p.max())
    return raised / raised.sum()


def slow_next(llm, films, prompt, said, alpha, beta, without=()):
    seen, other = (next_logits(llm, film, prompt, said) for film in films)
    seen = seen.clone()
    seen[list(without)] = -float("inf")
    return probabilities(seen, other, alpha, beta), seen.softmax(-1)


def slow_greedy(llm, films, prompt, alpha, beta, tokens):
    said = []
    while len(said) < tokens and not set(said) & set(llm.answers.end_ids):
        said.append(int(slow_next(llm, films, prompt, said, alpha, beta)[0].argmax()))
    return said


def slow_beams(llm, films, prompt, alpha, beta, tokens, beams):
    """Beams that never end, best first; what ends an answer has its share of probability."""
    running, ends = [(0.0, [])], llm.answers.end_ids
    for _ in range(tokens):
        found = []
        for score, said in running:
            p, _ = slow_next(llm, films, prompt, said, alpha, beta, without=ends)
            rest = 1 - next_logits(llm, films[0], prompt, said).softmax(-1)[ends].sum()
            values, ids = (p * rest).log().topk(beams)
            pairs = zip(values.tolist(), ids.tolist(), strict=True)
            found += [(score + value, [*said, i]) for value, i in pairs]
        running = sorted(found, key=lambda pair: -pair[0])[:beams]
    return [said for _, said in running]


def slow_score(llm, films, prompt, ids, alpha, beta):
    """Log-probability of an answer; one that is never said is known by what it is without."""
    held, plain = 0.0, 0.0
    for at, token in enumerate(ids):
        p, q = slow_next(llm, films, prompt, ids[:at], alpha, beta)
        held, plain = held + p[token].log().item(), plain + q[token].log().item()
    return plain + NEVER if held == -float("inf") else held


def rows(video, blurred, answers):
    """Both views, the prompt and the answers of each row."""
    return zip(zip(video, blurred, strict=True), PROMPTS, answers, strict=True)


@pytest.mark.parametrize(("alpha", "beta"), STRONG)
def test_greedy_answers_follow_the_equation(llm, video, blurred, alpha, beta):
    settings = Generation(num_beams=1, max_new_tokens=5)
    other = against(seen(blurred), alpha, beta)
    answers = llm.generate(asking(PROMPTS), seen(video), settings, against=other)
    for films, prompt, [answer] in rows(video, blurred, answers):
        said = slow_greedy(llm, films, prompt, alpha, beta, 5)
        assert answer.text == llm.answers.decode(said)
        expected = slow_score(llm, films, prompt, said, alpha, beta)
        assert answer.log_prob == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.01), (0.5, 0.0)])
def test_beams_follow_the_equation(llm, video, blurred, alpha, beta):
    settings = Generation(num_beams=3, num_answers=3, min_new_tokens=4, max_new_tokens=4)
    other = against(seen(blurred), alpha, beta)
    answers = llm.generate(asking(PROMPTS), seen(video), settings, against=other)
    for films, prompt, found in rows(video, blurred, answers):
        expected = slow_beams(llm, films, prompt, alpha, beta, 4, 3)
        assert [answer.text for answer in found] == [llm.answers.decode(ids) for ids in expected]
        scores = [slow_score(llm, films, prompt, ids, alpha, beta) for ids in expected]
        assert [answer.log_prob for answer in found] == pytest.approx(scores, abs=5e-3)


@pytest.mark.parametrize(
    ("alpha", "beta", "rank_chunk"), [(1.0, 0.1, 64), (0.5, 0.0, 1), (2.0, 0.6, 7)]
)
def test_ranking_follows_the_equation(llm, video, blurred, alpha, beta, rank_chunk):
    llm.rank_chunk = rank_chunk
    other = against(seen(blurred), alpha, beta)
    scores = llm.rank(asking(PROMPTS), seen(video), CANDIDATES, against=other)
    expected = [
        [slow_score(llm, films, p, llm.answers.ids(c), alpha, beta) for c in CANDIDATES]
        for films, p, _ in rows(video, blurred, PROMPTS)
    ]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-5, atol=2e-3)


def test_answers_against_no_film_are_those_against_no_tokens(llm, video):
    talks, media = alone(llm, video)
    scores = llm.rank(asking(PROMPTS), seen(video), CANDIDATES,
                      against=against(media, 0.5, 0.0, talks))  # fmt: skip
    nothing = video[0, :0]
    expected = [
        [slow_score(llm, (film, nothing), p, llm.answers.ids(c), 0.5, 0.0) for c in CANDIDATES]
        for film, p in zip(video, PROMPTS, strict=True)
    ]
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("same", ["alpha 0", "equal views"])
def test_nothing_is_taken_off_where_alpha_is_0_or_the_views_are_equal(llm, video, blurred, same):
    other = (
        against(seen(blurred), 0.0, 0.0) if same == "alpha 0" else against(seen(video), 1.0, 0.0)
    )
    for settings in (
        Generation(num_beams=3, num_answers=3, min_new_tokens=1, max_new_tokens=5),
        Generation(num_beams=1, max_new_tokens=5, repetition_penalty=1.5),
        Generation(num_beams=1, max_new_tokens=5, temperature=0.8, top_p=0.9),
    ):
        plain = llm.generate(asking(PROMPTS), seen(video), settings)
        held = llm.generate(asking(PROMPTS), seen(video), settings, against=other)
        for expected, found in zip(plain, held, strict=True):
            assert [answer.text for answer in found] == [answer.text for answer in expected]
            log_probs = [answer.log_prob for answer in expected]
            assert [answer.log_prob for answer in found] == pytest.approx(log_probs, abs=1e-3)
    torch.testing.assert_close(
        llm.rank(asking(PROMPTS), seen(video), CANDIDATES, against=other),
        llm.rank(asking(PROMPTS), seen(video), CANDIDATES),
        rtol=1e-4, atol=1e-3,
    )  # fmt: skip


def test_with_beta_1_only_the_greedy_answer_of_the_film_is_said(llm, video, blurred):
    settings, other = Generation(num_beams=1, max_new_tokens=5), against(seen(blurred), 1.0, 1.0)
    plain = llm.generate(asking(PROMPTS), seen(video), settings)
    held = llm.generate(asking(PROMPTS), seen(video), settings, against=other)
    assert [row[0].text for row in held] == [row[0].text for row in plain]
    assert [row[0].log_prob for row in held] == pytest.approx([0.0] * 3, abs=1e-4)
    beams = Generation(num_beams=3, num_answers=3, max_new_tokens=5)
    searched = llm.generate(asking(PROMPTS), seen(video), beams, against=other)
    assert [row[0].text for row in searched] == [row[0].text for row in plain]
    scores = llm.rank(asking(PROMPTS), seen(video), CANDIDATES, against=other)
    never = llm.rank(asking(PROMPTS), seen(video), CANDIDATES) + NEVER
    torch.testing.assert_close(scores, never, rtol=0, atol=5e-3)


def test_beams_are_answered_in_a_batch_as_one_by_one(llm, video, blurred):
    settings = Generation(num_beams=3, num_answers=2, max_new_tokens=5)
    together = llm.generate(asking(PROMPTS), seen(video), settings, against=against(seen(blurred)))
    for row, prompt in enumerate(PROMPTS):
        other = against(seen(blurred[row : row + 1]), talks=asking([prompt]))
        [found] = llm.generate(
            asking([prompt]), seen(video[row : row + 1]), settings, against=other
        )
        assert [answer.text for answer in found] == [answer.text for answer in together[row]]


def test_the_other_view_costs_what_the_film_costs_and_no_more(llm, video):
    lengths = []

    def count(model, args, given):
        names = ("decoder_input_ids", "inputs_embeds", "input_ids")
        read = next(given[name] for name in names if given.get(name) is not None)
        lengths.append(read.shape[0] * read.shape[1])

    def read(**other):
        lengths.clear()
        settings = Generation(num_beams=3, min_new_tokens=5, max_new_tokens=5)
        llm.generate(asking(PROMPTS), seen(video), settings, **other)
        return sum(lengths)

    hook = llm.model.register_forward_pre_hook(count, with_kwargs=True)
    plain, held = read(), read(against=against(seen(video), 0.0, 0.0))
    hook.remove()
    assert held <= 2 * plain


def alone_plausible(beta):
    """The cut-off alone: no other view, nothing taken off."""
    return Against(asking(PROMPTS), None, Contrast(view=None, alpha=0.0, beta=beta))


@torch.no_grad()
@pytest.mark.parametrize("beta", [0.1, 0.6])
def test_the_cutoff_alone_is_the_equation_with_equal_views_and_reads_no_second_one(
    llm, video, beta, monkeypatch
):
    equal = against(seen(video), 1.0, beta)
    ranked = llm.rank(asking(PROMPTS), seen(video), CANDIDATES, against=equal)
    monkeypatch.setattr(llm.layout, "steps", None)
    cut = alone_plausible(beta)
    found = llm.rank(asking(PROMPTS), seen(video), CANDIDATES, against=cut)
    torch.testing.assert_close(found, ranked, atol=1e-3, rtol=1e-4)
    greedy = Generation(num_beams=1, max_new_tokens=5)
    said = llm.generate(asking(PROMPTS), seen(video), greedy, against=cut)
    plain = llm.generate(asking(PROMPTS), seen(video), greedy)
    assert [row[0].text for row in said] == [row[0].text for row in plain], "greedy: nothing new"


@torch.no_grad()
def test_with_the_cutoff_alone_no_draw_is_implausible(llm, video):
    beta, texts = 0.6, set()
    for seed in range(4):
        drawn = Generation(num_beams=1, max_new_tokens=3, temperature=2.0, seed=seed)
        answers = llm.generate(asking(PROMPTS), seen(video), drawn, against=alone_plausible(beta))
        texts |= {row[0].text for row in answers}
        assert all(row[0].log_prob > NEVER / 2 for row in answers)
    drawn = Generation(num_beams=1, max_new_tokens=3, temperature=2.0, seed=0)
    plain = llm.generate(asking(PROMPTS), seen(video), drawn)
    assert {row[0].text for row in plain} - texts, "without it, others are drawn"


def test_a_contrast_without_a_view_takes_nothing_off():
    with pytest.raises(ConfigError, match=r"contrast.alpha=1.0 takes another view off.*is null"):
        Contrast(view=None)
