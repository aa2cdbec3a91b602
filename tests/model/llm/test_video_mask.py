"""Rows with different numbers of video tokens, in one batch padded on the right."""

import pytest
import torch
from models import FAMILIES, asking, build, question, seen

from mmavlm.core.conversation import Conversation
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import MediaTokens
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.text import load_tokenizer
from mmavlm.model.token_tables import TooLongError

COUNTS = (3, 7, 1)
MASK = torch.arange(7) < torch.tensor(COUNTS)[:, None]
PROMPTS = ["what is the genre of the movie?", "hi", "why does the man sit in the prison?"]
TARGETS = ["comedy", "ex-boyfriend ex-girlfriend", "zebra"]
TEMPLATES = ["{prompt}", "look at {video} and say: {prompt}"]
LENGTH_PENALTIES = [0.0, 1.0]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return build(request.param).requires_grad_(False)


@pytest.fixture(params=TEMPLATES)
def llm(model, request):
    return PromptedLanguageModel(model, load_tokenizer(None), prompt_template=request.param)


@pytest.fixture
def video(llm):
    """What is not real is no number at all."""
    tokens = torch.randn(3, 7, llm.width, generator=torch.Generator().manual_seed(0))
    return tokens.masked_fill(~MASK[:, :, None], float("nan"))


def alone(video):
    """Each row by itself, without its padding."""
    return [video[i : i + 1, :count] for i, count in enumerate(COUNTS)]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_row_has_the_loss_and_gradient_that_it_has_alone(llm, video):
    together = video.clone().requires_grad_()
    loss = llm.loss(asking(PROMPTS, TARGETS), seen(together, MASK))
    loss.backward()
    apart = video.clone().requires_grad_()
    lengths = [llm.answer_length(text) for text in TARGETS]
    rows = zip(alone(apart), PROMPTS, TARGETS, lengths, strict=True)
    expected = sum(llm.loss(asking([p], [t]), seen(row)) * n for row, p, t, n in rows) / sum(
        lengths
    )
    expected.backward()
    close(loss, expected)
    close(together.grad, apart.grad)
    assert not together.grad[~MASK].any()


def test_a_row_ranks_as_it_does_alone(llm, video):
    expected = [
        llm.rank(asking([prompt]), seen(row), TARGETS)[0]
        for row, prompt in zip(alone(video), PROMPTS, strict=True)
    ]
    close(llm.rank(asking(PROMPTS), seen(video, MASK), TARGETS), torch.stack(expected))


@pytest.mark.parametrize("length_penalty", LENGTH_PENALTIES)
def test_a_row_has_the_beams_that_it_has_alone(llm, video, length_penalty):
    settings = {"num_beams": 3, "num_answers": 3, "max_new_tokens": 4}
    settings |= {"length_penalty": length_penalty, "repetition_penalty": 1.5}
    found = llm.generate(asking(PROMPTS), seen(video, MASK), Generation(**settings))
    for answers, row, prompt in zip(found, alone(video), PROMPTS, strict=True):
        [expected] = llm.generate(asking([prompt]), seen(row), Generation(**settings))
        assert [answer.text for answer in answers] == [answer.text for answer in expected]
        scores, whole = ([a.log_prob for a in beams] for beams in (answers, expected))
        assert scores == pytest.approx(whole, rel=1e-5, abs=1e-5)


def test_a_mask_of_real_tokens_alone_is_no_mask(llm, video):
    whole = video.nan_to_num()
    assert torch.equal(
        llm.loss(asking(PROMPTS, TARGETS), seen(whole, torch.ones_like(MASK))),
        llm.loss(asking(PROMPTS, TARGETS), seen(whole)),
    )


@pytest.fixture(scope="module")
def limited():
    return PromptedLanguageModel(build("gpt2", n_positions=40), load_tokenizer(None))


def test_padding_needs_no_positions(limited):
    prompt = "movie" + " movie" * 29
    longest = 40 - len(question(limited.rendering, prompt)) - (limited.answer_length("comedy") - 1)
    video = torch.zeros(2, 60, limited.width)
    counts = torch.tensor([longest, longest])[:, None]
    assert limited.loss(
        asking([prompt] * 2, ["comedy"] * 2), seen(video, torch.arange(60) < counts)
    ).isfinite()
    counts[1] += 1
    with pytest.raises(TooLongError, match=rf"row 1 .*\({longest + 1} of the video") as told:
        limited.rank(asking([prompt] * 2), seen(video, torch.arange(60) < counts), ["comedy"])
    assert told.value.row == 1


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ([[True, False], [False, True]], r"row 1 .* must begin with its real tokens"),
        ([[False, True], [True, True]], r"row 0 .* must begin with its real tokens"),
        ([[True, True]], r"shape \(1, 2\), but there are 2 rows of 2 tokens"),
    ],
)
def test_a_mask_that_means_nothing_is_refused(limited, mask, said):
    video = torch.zeros(2, 2, limited.width)
    with pytest.raises(ValueError, match=said):
        limited.loss(asking(["hi", "hi"], ["zebra", "zebra"]), seen(video, torch.tensor(mask)))


@torch.no_grad()
def test_a_view_of_nothing_leaves_its_place_empty(limited):
    video = torch.randn(2, 2, limited.width, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[False, False], [True, True]])
    together = limited.rank(asking(["hi", "hi"]), seen(video, mask), ["zebra", "comedy"])
    nothing = MediaTokens(video[:0], [0])
    alone = limited.rank([Conversation.question(None, "hi")], nothing, ["zebra", "comedy"])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
