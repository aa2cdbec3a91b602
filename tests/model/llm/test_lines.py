"""Films with what is said between their frames: which tokens stand where."""

from dataclasses import replace

import pytest
import torch
from models import FAMILIES, build

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import DataError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import FramesOfLooks, MediaTokens
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Line, Shown, Turn
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.text import load_tokenizer

FRAMES, EACH = 5, 2  # of the film, and tokens of a frame


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return build(request.param).requires_grad_(False)


@pytest.fixture
def llm(model):
    return PromptedLanguageModel(model, load_tokenizer(None), max_prompt_tokens=24)


def film(*parts):
    media = (Medium(medium_id="a", source="a.mp4"),)
    return Conversation((Turn("user", parts), Turn("assistant", ("comedy",), learned=True)), media)


SAID = film(
    Line("the man sits"), Shown(0, (0, 2)), Line("a comedy"), Shown(0, (2, 5)), "the genre?"
)


@pytest.fixture
def media(llm):
    tokens = torch.randn(1, FRAMES * EACH, llm.width, generator=torch.Generator().manual_seed(0))
    return MediaTokens(tokens, [1], None, FramesOfLooks(EACH, [range(FRAMES)]))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def embeddings(llm, talk, media):
    rows = [llm.rendering.turns(talk.asked.turns)]
    return llm.asked(rows, media, [1]).inputs()[0][0]


def test_tokens_of_frames_stand_between_the_lines(llm, media):
    """Each slice as a medium of its own gives the same inputs."""
    a, b = (Medium(medium_id=name, source=f"{name}.mp4") for name in "ab")
    parts = (Line("the man sits"), Shown(0), Line("a comedy"), Shown(1), "the genre?")
    apart = replace(SAID, turns=(Turn("user", parts), SAID.turns[1]), media=(a, b))
    tokens = torch.zeros(2, 3 * EACH, llm.width)
    tokens[0, : 2 * EACH], tokens[1] = media.tokens[0, : 2 * EACH], media.tokens[0, 2 * EACH :]
    mask = torch.arange(3 * EACH) < torch.tensor([[2 * EACH], [3 * EACH]])
    # media that a turn begins with stand in front of all; a line is in front of these
    expected = embeddings(llm, apart, MediaTokens(tokens, [2], mask))
    close(embeddings(llm, SAID, media), expected)
    close(llm.loss([SAID], media), llm.loss([apart], MediaTokens(tokens, [2], mask)))


def test_a_film_that_is_not_padded_gives_what_it_gives_beside_longer_ones(llm, media):
    longer = torch.cat([media.tokens, torch.full_like(media.tokens, float("nan"))], dim=1)
    mask = (torch.arange(2 * FRAMES * EACH) < FRAMES * EACH)[None]
    looks = FramesOfLooks(EACH, [range(2 * FRAMES)])
    close(llm.loss([SAID], MediaTokens(longer, [1], mask, looks)), llm.loss([SAID], media))


def test_tokens_of_all_frames_stand_where_the_film_begins(llm, media):
    whole = film(Line("the man sits"), Shown(0), Line("a comedy"), "the genre?")
    of_all = replace(media, looks=None)
    close(embeddings(llm, SAID, of_all), embeddings(llm, whole, of_all))


def test_lines_are_neither_counted_nor_cut(llm, media, caplog):
    long = film(Line("the man sits " * 40), Shown(0, (0, 5)), "the genre?")
    ids = llm.rendering.turns(long.asked.turns).ids
    assert len(ids) > 100
    assert not caplog.records
    cut = film(Line("a man sits " * 40), Shown(0, (0, 5)), "the genre? " * 40)
    told = llm.rendering.turns(cut.asked.turns).ids
    text = llm.rendering.tokenizer.decode(told)
    assert text.count("sits") == 40
    assert text.count("genre") < 40
    assert "loses its beginning" in caplog.text


def test_a_session_answers_as_the_stateless_path(llm, media):
    generation = Generation(num_beams=1, max_new_tokens=4)
    session = llm.session()
    session.append(*SAID.asked.turns, media=media)
    expected = llm.generate([SAID], media, generation)[0][0]
    found = session.reply(generation)
    assert found.text == expected.text
    assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-5)
    session.append(Turn("assistant", ("comedy",)), Turn("user", ("why?",)))
    later = replace(SAID, turns=session.turns)
    close(session.rank(["comedy", "zebra"]), llm.rank([later], media, ["comedy", "zebra"])[0])


def test_some_of_the_conversations_keep_their_frames(media):
    two = MediaTokens(
        media.tokens.repeat(2, 1, 1), [1, 1], None, FramesOfLooks(EACH, [range(5), range(3)])
    )
    assert two.rows([1]).looks == FramesOfLooks(EACH, [range(3)])


def test_frames_that_are_left_out_have_no_tokens(llm, media):
    """Every second frame was kept: those of a slice are the kept ones among its frames."""
    kept = MediaTokens(media.tokens[:, : 3 * EACH], [1], None, FramesOfLooks(EACH, [[0, 2, 4]]))
    inputs = embeddings(llm, SAID, kept)
    assert len(inputs) == len(embeddings(llm, SAID, media)) - 2 * EACH
    asked = llm.asked([llm.rendering.turns(SAID.asked.turns)], kept, [1])
    assert [(p.start, p.stop) for p in asked.pieces[0]] == [(0, EACH), (EACH, 3 * EACH)]


@pytest.mark.parametrize(
    "parts",
    [
        (Shown(0, (2, 4)), "why?"),
        (Shown(0, (0, 2)), Shown(0, (3, 4)), "why?"),
        (Shown(0, (0, 2)), Shown(0, (2, 2)), "why?"),
        (Shown(0), Shown(0, (1, 2)), "why?"),
    ],
)
def test_frames_that_do_not_follow_each_other_are_refused(parts):
    with pytest.raises(DataError, match="shows the frames"):
        Turn("user", parts)


def test_a_conversation_with_lines_is_itself_after_a_round_trip():
    assert Conversation.from_json(SAID.as_json()).turns == SAID.turns
    assert [view.guide for view in SAID.views] == ["the genre?"]
    assert SAID.prompt == "the genre?"
