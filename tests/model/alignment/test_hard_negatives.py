"""Hard negatives: texts that are not true of a film, in every form of the alignment loss."""

import math
from functools import partial
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError
from mmavlm.model.alignment import (
    Aligned,
    FalsePairs,
    HardNegatives,
    MultiLevelAlignment,
    SigmoidLoss,
    Temperature,
    equal_texts_info_nce,
    info_nce,
    sigmoid_loss,
    symmetric_info_nce,
)
from mmavlm.model.alignment.hard_negatives import padded
from mmavlm.model.alignment.levels import of_films

SMOOTHING, BIAS = 0.1, -1.0
FORMS = {
    "info_nce": info_nce,
    "equal_texts": equal_texts_info_nce,
    "symmetric": symmetric_info_nce,
    "smoothed": partial(symmetric_info_nce, label_smoothing=SMOOTHING),
    "sigmoid": partial(sigmoid_loss, bias=BIAS),
}
NONE = -math.inf

# --- the equations, restated over plain numbers


def nll(row, targets, further):
    """−Σ_j targets_j · log p_j of a row of logits with further columns that are never targets."""
    total = math.log(sum(map(math.exp, [*row, *further])))
    return sum(share * (total - value) for share, value in zip(targets, row, strict=True))


def restated(form, rows, same, film, text):
    """The loss of plain logits; `film[i]` and `text[i]` list those of false texts of video i."""
    size = len(rows)
    columns = [list(column) for column in zip(*rows, strict=True)]
    if form == "sigmoid":
        total = 0.0
        for i in range(size):
            for j in range(size):
                total += math.log1p(math.exp(-(1 if same[i][j] else -1) * (rows[i][j] + BIAS)))
            total += sum(math.log1p(math.exp(value + BIAS)) for value in film[i])
        return total / size
    smooth = SMOOTHING if form == "smoothed" else 0.0
    total = 0.0
    for i in range(size):
        targets = [(1 - smooth) * (i == j) + smooth / size for j in range(size)]
        if form == "equal_texts":
            targets = [same[i][j] / sum(same[i]) for j in range(size)]
        on_film = nll(rows[i], targets, film[i])
        on_text = nll(columns[i], targets, text[i])
        if form in ("symmetric", "smoothed"):
            total += (on_film + on_text) / 2
        else:
            total += on_film + (on_text if text[i] else 0.0)
    return total / size


def kept(values):
    return [[value for value in row if value != NONE] for row in values.tolist()]


def problem(size, texts, wide, seed):
    """Logits, which texts are equal, and logits of up to `wide` false texts of each video."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.double)
    kinds = torch.randint(texts, (size,), generator=generator)
    false = 3 * draw(size, wide)
    gone = torch.rand(size, wide, generator=generator) < 0.4
    return 3 * draw(size, size), kinds[:, None] == kinds, false.masked_fill(gone, NONE)


problems = st.builds(
    problem, st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 9999)
)


@pytest.mark.parametrize("both", [False, True], ids=["film", "both"])
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None)
@given(given_problem=problems)
def test_a_loss_with_false_texts_equals_its_equation(form, both, given_problem):
    logits, equal, false = given_problem
    found = FORMS[form](logits, equal, false=FalsePairs(false, false if both else None))
    of_text = kept(false) if both else [[]] * len(logits)
    expected = restated(form, logits.tolist(), equal.tolist(), kept(false), of_text)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("both", [False, True], ids=["film", "both"])
@pytest.mark.parametrize("form", FORMS)
def test_videos_without_false_texts_have_the_loss_they_had(form, both):
    logits, equal, false = problem(5, 3, 2, 0)
    nothing = torch.full_like(false, NONE)
    found = FORMS[form](logits, equal, false=FalsePairs(nothing, nothing if both else None))
    torch.testing.assert_close(found, FORMS[form](logits, equal))


@pytest.mark.parametrize("both", [False, True], ids=["film", "both"])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_push_false_texts_away_and_are_those_of_finite_differences(form, both):
    logits, equal, false = problem(4, 3, 2, 1)
    real = false > NONE
    values = false.masked_fill(~real, 0).requires_grad_()
    logits.requires_grad_()

    def loss(logits, values):
        masked = values.masked_fill(~real, NONE)
        return FORMS[form](logits, equal, false=FalsePairs(masked, masked if both else None))

    assert torch.autograd.gradcheck(loss, (logits, values))
    loss(logits, values).backward()
    assert (values.grad[real] > 0).all()
    assert (values.grad[~real] == 0).all()


def test_the_sigmoid_bias_learns_from_false_texts_alone_too():
    loss, far = SigmoidLoss(), torch.full((2, 2), NONE)
    gradients = []
    for false in (far, torch.full((2, 2), 20.0)):
        loss.zero_grad()
        loss(torch.zeros(2, 2), torch.eye(2, dtype=torch.bool), FalsePairs(false)).backward()
        gradients.append(loss.bias.grad.item())
    assert math.isfinite(gradients[0])
    assert gradients[1] > gradients[0]


# --- in the alignment: levels, frames, own and all

B, T, P, DV, K, D, C = 5, 3, 4, 12, 6, 8, 2
TEXTS = ["a cat", "a dog", "a lamp", "a dog", "a clock and a cat"]
FALSE = padded(
    [["a lamp", "a plant"], [], ["a cat"], ["a dog", "a cat"], ["a clock and a lamp", "a cat"]]
)
LEVELS = ["low", "high", "cross"]
REDUCTIONS = ["film", "frame"]


@pytest.fixture(scope="module")
def films():
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    mask = torch.arange(T) < torch.tensor([[3], [1], [2], [3], [3]])
    return Aligned(draw(B, T, P, DV), draw(B, T, K, D), mask, draw(B, T, C, K, D))


def build(text_encoder, loss=info_nce, **given):
    torch.manual_seed(0)
    given = {"levels": LEVELS, "cross_layers": range(C), "embed_dim": 16, **given}
    alignment = MultiLevelAlignment(
        text_encoder, DV, D, loss=loss, temperature=Temperature(0.5), **given
    )
    return alignment.double()


def slow_losses(alignment, form, films, of, sides):
    """The losses by level: frame by frame, layer by layer, pair by pair."""
    words = dict.fromkeys([*TEXTS, *(text for row in FALSE for text in row if text)])
    sentence = dict(zip(words, alignment.text_encoder(list(words)), strict=True))

    def similarity(level, tokens, text):
        film = alignment.video_projections[level](tokens)
        words = alignment.text_projections[level](sentence[text])
        return (torch.cosine_similarity(film, words, dim=0) / 0.5).item()

    found = {}
    for level in LEVELS:
        tokens = {
            "low": films.frame_tokens[:, :, None],
            "high": films.query_outputs[:, :, None],
            "cross": films.crossed,
        }[level].mean(dim=3)
        losses = []
        for f in range(T) if alignment.reduction == "frame" else [None]:
            rows = [i for i in range(B) if f is None or films.mask[i, f]]
            for c in range(tokens.shape[2]):
                seen = {i: tokens[i, films.mask[i] if f is None else [f], c].mean(0) for i in rows}
                logits = [[similarity(level, seen[i], TEXTS[j]) for j in rows] for i in rows]
                same = [[TEXTS[i] == TEXTS[j] for j in rows] for i in rows]

                def wrong(i, among, level=level, seen=seen):
                    texts = [text for j in among for text in FALSE[j] if text]
                    return [similarity(level, seen[i], t) for t in texts if t != TEXTS[i]]

                own = [wrong(i, [i]) for i in rows]
                film = own if of == "own" else [wrong(i, rows) for i in rows]
                text = own if sides == "both" else [[]] * len(rows)
                losses.append(restated(form, logits, same, film, text))
        divisor = (
            len(losses) / (C if level == "cross" else 1) * (C + 1e-8 if level == "cross" else 1)
        )
        found[level] = sum(losses) / divisor
    return found


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("sides", ["film", "both"])
@pytest.mark.parametrize("of", ["own", "all"])
@pytest.mark.parametrize("form", FORMS)
def test_every_level_has_the_loss_written_out(text_encoder, films, form, of, sides, reduction):
    alignment = build(
        text_encoder, FORMS[form], hard_negatives=HardNegatives(of, sides), reduction=reduction
    )
    expected = slow_losses(alignment, form, films, of, sides)
    found = {level: loss.item() for level, loss in alignment(films, TEXTS, FALSE).items()}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("sides", ["film", "both"])
@pytest.mark.parametrize("form", FORMS)
def test_without_false_texts_losses_and_gradients_are_bit_for_bit_what_they_were(
    text_encoder, films, form, sides, reduction
):
    def two_arguments(logits, equal):  # the forms as they are without false texts
        return FORMS[form](logits, equal)

    found = []
    for loss in (two_arguments, FORMS[form]):
        alignment = build(
            text_encoder, loss, hard_negatives=HardNegatives("all", sides), reduction=reduction
        )
        alignment.zero_grad()
        losses = alignment(films, TEXTS, padded([[]] * B))
        torch.stack(list(losses.values())).sum().backward()
        found.append([*losses.values(), *(p.grad.clone() for p in alignment.parameters())])
    for before, after in zip(*found, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("of", ["own", "all"])
def test_a_false_text_that_is_the_films_own_changes_nothing(text_encoder, films, of):
    alignment = build(text_encoder, hard_negatives=HardNegatives(of, "both"))
    repeated = padded([[text] for text in TEXTS])
    expected = alignment(films, TEXTS)
    for level, loss in alignment(films, TEXTS, repeated).items():
        if of == "own":
            torch.testing.assert_close(loss, expected[level])
        else:  # those of others stand beside their true texts
            assert loss > expected[level]


@pytest.mark.parametrize("sides", ["film", "both"])
def test_training_tells_films_from_their_false_texts(text_encoder, films, sides):
    alignment = build(text_encoder, hard_negatives=HardNegatives("own", sides))
    true, wrong = ["w1", "w2", "w3", "w4", "w5"], [["u1"], ["u2"], ["u3"], ["u4"], ["u5"]]
    optimizer = torch.optim.Adam(alignment.parameters(), lr=1e-2)

    def ahead():
        right, false = (
            of_films(alignment.features(films, texts)) for texts in (true, [*chain(*wrong)])
        )
        return min(
            (film * (text - false[level][1])).sum(dim=1).min().item()
            for level, (film, text) in right.items()
        )

    before = ahead()
    for _ in range(40):
        optimizer.zero_grad()
        torch.stack(list(alignment(films, true, wrong).values())).sum().backward()
        optimizer.step()
    assert ahead() > max(before, 0.2)


def test_a_text_is_read_once_however_many_films_it_is_false_of(text_encoder, films):
    read: list[list[str]] = []

    class Counting(torch.nn.Module):
        width = text_encoder.width

        def forward(self, texts):
            read.append(list(texts))
            return text_encoder(texts)

    alignment = build(Counting())
    text_encoder.double()
    alignment(films, TEXTS, padded([["a bin"], ["a bin", "a cat"], [], [], ["a bin"]]))
    assert read == [[*TEXTS, "a bin", "a cat"]]


@pytest.mark.parametrize("setting", [{"of": "other"}, {"sides": "text"}])
def test_other_choices_are_refused(setting):
    name, value = next(iter(setting.items()))
    with pytest.raises(ConfigError, match=f"hard_negatives.{name} is '{value}'; choose"):
        HardNegatives(**setting)
