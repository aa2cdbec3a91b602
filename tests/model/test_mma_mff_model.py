"""The restatement of MMA-MFF's equations: what must hold of it whatever the weights are."""

import pytest
import torch
import torch.nn.functional as F

import mma_mff_model
from lavis_model import linear, looks
from mma_mff_model import alignment_losses, attention, leaves, llm_inputs, watch


@pytest.fixture(scope="module")
def theirs():
    return mma_mff_model.state_dict("cross_attention")


def frames_of(theirs, *lengths):
    """Films of chance query outputs, and what stands for their texts."""
    generator = torch.Generator().manual_seed(2)
    shape = theirs["query_tokens"].shape[1:]

    def queries():
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    films = [[(queries(), {0: queries(), 2: queries()}) for _ in range(t)] for t in lengths]
    ids = torch.randint(0, 11, (len(films), 5), generator=generator)
    return films, (ids, torch.arange(5) < torch.tensor([[2], [5], [3]])[: len(films)])


@pytest.mark.parametrize(
    ("length", "middle", "frames"),
    [(1, True, [0]), (2, True, [0, 1]), (3, True, [0, 1, 2]), (6, True, [0, 3, 5]),
     (1, False, [0]), (2, False, [0, 1]), (6, False, [0, 5])],
)  # fmt: skip
def test_a_loss_is_the_mean_over_a_set_of_frames(theirs, length, middle, frames):
    weights = leaves(theirs)
    films, texts = frames_of(theirs, length, length, length)

    def losses(films):
        return torch.stack(alignment_losses(weights, films, texts, layers=[0, 2], middle=middle))

    alone = [losses([[film[t]] for film in films]) for t in frames]
    torch.testing.assert_close(losses(films), torch.stack(alone).mean(dim=0))


def test_a_film_without_a_frame_of_a_role_is_left_out_of_that_loss(theirs):
    weights = leaves(theirs)
    films, (ids, mask) = frames_of(theirs, 4, 2, 1)

    def high(films, rows):
        return alignment_losses(weights, films, (ids[rows], mask[rows]), layers=[0])[0]

    first = high([[film[0]] for film in films], [0, 1, 2])
    last = high([[film[-1]] for film in films[:2]], [0, 1])
    middle = high([[films[0][2]]], [0])
    torch.testing.assert_close(high(films, [0, 1, 2]), (first + last + middle) / 3)


def test_a_layer_without_cross_attention_counts_in_the_divisor(theirs):
    films, texts = frames_of(theirs, 3, 3, 3)
    (_, with_it), (_, without) = (
        alignment_losses(leaves(theirs), films, texts, layers=layers)
        for layers in ([0, 1, 2], [0, 2])
    )
    torch.testing.assert_close(with_it * 3, without * 2)


def test_padding_of_texts_changes_nothing(theirs):
    films, (ids, mask) = frames_of(theirs, 3, 3, 3)
    padded = torch.where(mask, ids, 7), mask
    wider = F.pad(ids, (0, 4), value=3), F.pad(mask, (0, 4), value=False)
    losses = [
        torch.stack(alignment_losses(leaves(theirs), films, texts, layers=[0, 2]))
        for texts in ((ids, mask), padded, wider)
    ]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])


def test_what_is_banked_carries_no_gradient_and_is_seen_nonetheless(theirs):
    film = torch.randn(6, 3, 64, 64).double().requires_grad_()
    weights, prompt = leaves(theirs), torch.tensor([4, 5, 6])
    outputs, crossed = list(looks(weights, film, prompt, 2))[3]
    (gradient,) = torch.autograd.grad((outputs + crossed[2]).pow(2).sum(), film)
    assert [bool(frame.any()) for frame in gradient] == [False, False, False, True, False, False]
    changed = film.detach().clone()
    changed[0] += 1
    assert not torch.allclose(list(looks(weights, changed, prompt, 2))[3][0], outputs)


def test_over_equal_keys_attention_does_not_depend_on_the_query(theirs):
    weights = leaves(theirs)
    queries, key = torch.randn(4, 32).double(), torch.randn(32).double()
    name = "attention_fusion.in_proj"
    value = weights[f"{name}_weight"].chunk(3)[2] @ key + weights[f"{name}_bias"].chunk(3)[2]
    expected = linear(weights, "attention_fusion.out_proj", value[None]).expand(4, -1)
    keys = key.expand(4, -1)
    torch.testing.assert_close(attention(weights, queries, keys), expected)


@pytest.mark.parametrize("fusion", mma_mff_model.FUSIONS)
def test_single_precision_is_near_double(fusion):
    state = mma_mff_model.state_dict(fusion)
    films, prompts = [torch.randn(3, 3, 64, 64)], [torch.tensor([4, 5, 6])]
    single, double = (
        llm_inputs(weights, watch(weights, films, prompts, 2))
        for weights in (leaves(state, torch.float32), leaves(state))
    )
    assert single.dtype == torch.float32
    assert single.shape == (1, 4 + (fusion == "sequence_dimension"), 32)
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=1e-5)


def test_what_modules_share_is_one_leaf():
    """So its gradient is the sum over all the places that it is used in."""
    weights = leaves(mma_mff_model.state_dict())
    layers = "Qformer.bert.encoder.layer.{}.clip4qformer.text_projection"
    assert weights[layers.format(0)] is weights[layers.format(3)]
    words = "word_embeddings.weight"
    assert weights[f"clip_text_embedding.{words}"] is weights[f"Qformer.bert.embeddings.{words}"]
