"""Conversations with any number of media and turns, in one batch."""

import pytest
import torch
from models import FAMILIES, FILM, asking, build, seen
from torch.nn.functional import cross_entropy

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import MediaTokens
from mmavlm.core.turns import Shown, Turn
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.text import load_tokenizer
from mmavlm.model.token_tables import TooLongError

CAUSAL = [kind for kind in FAMILIES if kind not in ("t5", "bart")]
COUNTS = torch.tensor([3, 5, 2, 4])
MASK = torch.arange(5) < COUNTS[:, None]
CANDIDATES = ["comedy", "ex-boyfriend ex-girlfriend"]


def talk(*parts, answer="comedy"):
    """A turn of the user with these parts, a number standing for a film, and an answer."""
    shown = tuple(Shown(part) if isinstance(part, int) else part for part in parts)
    media = (FILM,) * len({part for part in parts if isinstance(part, int)})
    return Conversation((Turn("user", shown), Turn("assistant", (answer,), learned=True)), media)


TALKS = [
    talk("compare", 0, "and", 1, answer="zebra"),
    talk("who sits in the prison?"),
    talk(0, "what is the genre of the movie?"),
    talk("why?", 0, answer="the wife of his friend"),
]
VIEWS = [2, 0, 1, 1]


@pytest.fixture(scope="module", params=FAMILIES)
def llm(request):
    model = build(request.param).requires_grad_(False)
    return PromptedLanguageModel(model, load_tokenizer(None))


@pytest.fixture
def media(llm):
    """What is not real is no number at all."""
    tokens = torch.randn(4, 5, llm.width, generator=torch.Generator().manual_seed(0))
    return MediaTokens(tokens.masked_fill(~MASK[:, :, None], float("nan")), VIEWS, MASK)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def alone(llm, media, row):
    """One row by its own ids and tokens, without padding: what is read, and its embeddings."""
    rendered, shown = llm.rendering.turns(TALKS[row].turns), media.rows([row])
    embed = llm.model.get_input_embeddings()

    def table(ids):
        return embed(torch.tensor(ids, dtype=torch.int64))

    pieces, since = [], 0
    for at, tokens, real in zip(rendered.media_at, shown.tokens, shown.mask, strict=True):
        pieces += [table(rendered.ids[since:at]), tokens[real]]
        since = at
    [(start, stop)] = rendered.learned
    answer = rendered.ids[start:stop]
    pieces.append(table(rendered.ids[since:start]))
    asked = torch.cat(pieces)[None]
    if llm.model.config.is_encoder_decoder:
        decoder = torch.tensor([[llm.model.config.decoder_start_token_id, *answer[:-1]]])
        logits = llm.model(inputs_embeds=asked, decoder_input_ids=decoder).logits[0]
    else:
        whole = torch.cat([asked, table([answer])], dim=1)
        logits = llm.model(inputs_embeds=whole).logits[0, asked.shape[1] - 1 : -1]
    return -cross_entropy(logits, torch.tensor(answer), reduction="none")


def test_the_loss_is_the_mean_over_the_learned_tokens_of_rows_read_alone(llm, media):
    expected = torch.cat([alone(llm, media, row) for row in range(4)])
    close(llm.loss(TALKS, media), -expected.mean())


def test_what_is_learned_of_each_row_sums_up_to_what_it_is_alone_and_makes_up_the_loss(llm, media):
    each = [alone(llm, media, row) for row in range(4)]
    sums, tokens = llm.learned_log_probs(TALKS, media)
    close(sums, torch.stack([scores.sum() for scores in each]))
    assert tokens.tolist() == [len(scores) for scores in each]
    assert len(set(tokens.tolist())) > 1
    close(-sums.sum() / tokens.sum(), llm.loss(TALKS, media))


def test_rows_of_which_nothing_is_learned_are_left_out_of_what_is(llm, media):
    silent = [TALKS[0], TALKS[1].asked, TALKS[2].asked, TALKS[3]]
    for own, all_rows in zip(
        llm.learned_log_probs(silent, media), llm.learned_log_probs(TALKS, media), strict=True
    ):
        close(own, all_rows[[0, 3]])


def test_gradients_reach_the_real_tokens_of_every_view_and_no_others(llm, media):
    tokens = media.tokens.clone().requires_grad_()
    llm.loss(TALKS, MediaTokens(tokens, VIEWS, MASK)).backward()
    assert tokens.grad[MASK].norm(dim=-1).gt(0).all()
    assert not tokens.grad[~MASK].any()


def test_a_row_answers_and_ranks_as_it_does_alone(llm, media):
    how = Generation(num_beams=3, num_answers=2, max_new_tokens=4)
    answers, scores = llm.generate(TALKS, media, how), llm.rank(TALKS, media, CANDIDATES)
    for row, said in enumerate(TALKS):
        [own] = llm.generate([said], media.rows([row]), how)
        assert [answer.text for answer in answers[row]] == [answer.text for answer in own]
        close(scores[row], llm.rank([said], media.rows([row]), CANDIDATES)[0])


def test_a_batch_may_show_nothing_at_all(llm):
    nothing = MediaTokens(torch.zeros(0, 5, llm.width), [0, 0])
    talks = [TALKS[1], talk("hi")]
    assert llm.loss(talks, nothing).isfinite()
    assert llm.rank(talks, nothing, CANDIDATES).isfinite().all()
    assert len(llm.generate(talks, nothing, Generation(num_beams=1, max_new_tokens=2))) == 2


def test_rows_without_a_learned_turn_change_nothing(llm, media):
    silent = [TALKS[0], TALKS[1].asked, TALKS[2].asked, TALKS[3]]
    close(llm.loss(silent, media), llm.loss([TALKS[0], TALKS[3]], media.rows([0, 3])))


def test_what_is_said_and_shown_behind_the_last_learned_turn_is_not_read(llm, media):
    more = [
        Conversation((*TALKS[2].turns, Turn("user", (Shown(1), "and then?"))), (FILM, FILM)),
        TALKS[3],
    ]
    views = MediaTokens(media.tokens[[2, 0, 3]], [2, 1], media.mask[[2, 0, 3]])
    close(llm.loss(more, views), llm.loss(TALKS[2:], media.rows([2, 3])))


def test_a_batch_in_which_nothing_is_learned_is_refused(llm, media):
    with pytest.raises(DataError, match="no turn of the batch is learned; give an answer"):
        llm.loss([said.asked for said in TALKS], media)
    with pytest.raises(DataError, match="no turn of the batch is learned; give an answer"):
        llm.learned_log_probs([said.asked for said in TALKS], media)


@pytest.mark.parametrize("views", [[2, 0, 1, 2], [1, 1, 1, 1], [2, 0, 1]])
@pytest.mark.parametrize("ask", ["loss", "rank", "generate"])
def test_views_that_are_not_where_media_are_shown_are_refused(views, ask):
    llm = PromptedLanguageModel(build("llama"), load_tokenizer(None))
    media = MediaTokens(torch.zeros(sum(views), 5, llm.width), views)
    given = {"loss": [], "rank": [CANDIDATES], "generate": []}[ask]
    with pytest.raises(ValueError, match=r"at \[2, 0, 1, 1\] places, but .* give one view for"):
        getattr(llm, ask)(TALKS, media, *given)


SEVERAL = Conversation(
    (
        Turn("user", (Shown(0), "what is the genre?")),
        Turn("assistant", ("a comedy",), learned=True),
        Turn("user", ("why", Shown(1))),
        Turn("assistant", ("hi",)),
        Turn("user", ("who?",)),
        Turn("assistant", ("the wife of his friend",), learned=True),
    ),
    (FILM, FILM),
)


@pytest.mark.parametrize("kind", CAUSAL)
def test_all_learned_turns_of_a_row_are_learned_as_each_would_be_alone(kind):
    llm = PromptedLanguageModel(build(kind).requires_grad_(False), load_tokenizer(None))
    tokens = torch.randn(3, 3, llm.width, generator=torch.Generator().manual_seed(0))
    first, last = llm.rendering.turns(SEVERAL.turns).learned
    each = [
        Conversation(SEVERAL.turns[:2], (FILM,)),
        Conversation(
            tuple(Turn(t.role, t.parts, t is SEVERAL.turns[5]) for t in SEVERAL.turns),
            (FILM, FILM),
        ),
    ]
    sizes = [stop - start for start, stop in (first, last)]
    losses = [
        llm.loss(each[:1], MediaTokens(tokens[:1], [1])) * sizes[0],
        llm.loss(each[1:], MediaTokens(tokens[:2], [2])) * sizes[1],
    ]
    alone = sum(losses) / sum(sizes)
    close(llm.loss([SEVERAL], MediaTokens(tokens[:2], [2])), alone)
    question = asking(["hi"], ["zebra"])
    other = llm.loss(question, seen(tokens[2:]))
    count = llm.answer_length("zebra")
    together = llm.loss([SEVERAL, *question], MediaTokens(tokens, [2, 1]))
    close(together, (alone * sum(sizes) + other * count) / (sum(sizes) + count))
    rows, counts = llm.learned_log_probs([SEVERAL, *question], MediaTokens(tokens, [2, 1]))
    close(-rows / counts, torch.stack([alone, other]))


def test_several_learned_turns_are_refused_by_a_model_with_one_decoder():
    llm = PromptedLanguageModel(build("t5"), load_tokenizer(None))
    with pytest.raises(ConfigError, match=r"conversation 0 .* 2 learned turns, .* the last one"):
        llm.loss([SEVERAL], MediaTokens(torch.zeros(2, 3, llm.width), [2]))


def test_a_row_that_is_too_long_has_its_number_in_the_batch():
    llm = PromptedLanguageModel(build("gpt2", n_positions=40), load_tokenizer(None))
    talks = [*asking(["hi"]), *asking(["hi", "movie " * 60], ["comedy", "comedy"])]
    with pytest.raises(TooLongError, match=r"row 2 of the batch") as told:
        llm.loss(talks, seen(torch.zeros(3, 4, llm.width)))
    assert told.value.row == 2
