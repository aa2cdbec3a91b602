import math

import pytest
import torch
from torch.nn import functional as F

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import MemoryState
from mmavlm.model.fusion import (
    Bidirectional,
    CrossAttentionFusion,
    FeatureChannelFusion,
    Fusion,
    NoFusion,
    PromptToVisual,
    QueryToVisual,
    Seen,
    SequenceDimensionFusion,
)
from mmavlm.model.fusion.attention import CrossAttention
from mmavlm.weights.pretrained import laid_over

B, T, P, DV, L, D, K, S, A = 2, 3, 5, 32, 4, 16, 6, 7, 12
LEARNED = [PromptToVisual, QueryToVisual, Bidirectional]
PUBLISHED = {
    "cross_attention": CrossAttentionFusion,
    "feature_channel": FeatureChannelFusion,
    "sequence_dimension": SequenceDimensionFusion,
}


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    before = noise(B, T, P, DV), noise(B, L, D), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    filled = torch.arange(S) < torch.tensor([[S], [2]])
    after = noise(B, K, D), seen(noise(B, S, P, DV), filled, noise(B, A))
    return before, after


def seen(bank, filled, aligned=None):
    counts = filled.float()[:, :, None].expand(-1, -1, P)
    return Seen(MemoryState(bank, counts, filled.sum(1)), aligned)


def slow_attention(block: CrossAttention, tokens, context, mask):
    """softmax(q·k/√d)·v of one row, head by head, position by position."""
    q, k, v = block.query(tokens), block.key(context[mask]), block.value(context[mask])
    width = tokens.shape[1] // block.heads
    read = torch.empty_like(tokens)
    for head in range(block.heads):
        part = slice(head * width, (head + 1) * width)
        for n in range(len(tokens)):
            weights = torch.stack([q[n, part] @ key / math.sqrt(width) for key in k[:, part]])
            read[n, part] = F.softmax(weights, dim=0) @ v[:, part]
    return tokens + block.output(read)


def test_prompt_to_visual_equals_attention_written_out(inputs):
    (tokens, embeds, mask), _ = inputs
    fusion = PromptToVisual(DV, D, heads=4).eval()
    fused = fusion.before(tokens, embeds, mask)
    for b in range(B):
        for t in range(T):
            expected = slow_attention(fusion.attention, tokens[b, t], embeds[b], mask[b])
            torch.testing.assert_close(fused[b, t], expected)


def test_query_to_visual_equals_attention_written_out(inputs):
    _, (queries, given) = inputs
    bank, mask = given.bank.tokens, given.bank.counts[:, :, 0] > 0
    fusion = QueryToVisual(DV, D, heads=4).eval()
    fused = fusion.after(queries, given)
    for b in range(B):
        context = bank[b].flatten(0, 1)
        real = mask[b].repeat_interleave(P)
        expected = slow_attention(fusion.attention, queries[b], context, real)
        torch.testing.assert_close(fused[b], expected)


@pytest.mark.parametrize("kind", LEARNED)
def test_streaming_one_frame_at_a_time_fuses_as_the_whole_film(inputs, kind):
    (tokens, embeds, mask), _ = inputs
    fusion = open_gates(kind(DV, D)).eval()
    streamed = [fusion.before(tokens[:, t : t + 1], embeds, mask) for t in range(T)]
    torch.testing.assert_close(torch.cat(streamed, dim=1), fusion.before(tokens, embeds, mask))


@pytest.mark.parametrize("kind", [PromptToVisual, Bidirectional])
def test_masked_prompt_tokens_change_nothing(inputs, kind):
    (tokens, embeds, mask), _ = inputs
    fusion = open_gates(kind(DV, D)).eval()
    altered = torch.where(mask[..., None], embeds, 1e3)
    assert torch.equal(fusion.before(tokens, embeds, mask), fusion.before(tokens, altered, mask))
    assert not torch.equal(fusion.before(tokens, embeds, mask), tokens)


@pytest.mark.parametrize("kind", [QueryToVisual, Bidirectional])
def test_empty_slots_change_nothing_and_slot_order_does_not_matter(inputs, kind):
    _, (queries, given) = inputs
    bank, mask = given.bank.tokens, given.bank.counts[:, :, 0] > 0
    fusion = open_gates(kind(DV, D)).eval()
    fused = fusion.after(queries, given)
    altered = torch.where(mask[:, :, None, None], bank, 1e3)
    assert torch.equal(fused, fusion.after(queries, seen(altered, mask)))
    backwards = fusion.after(queries, seen(bank.flip(1), mask.flip(1)))
    torch.testing.assert_close(fused, backwards)
    assert not torch.equal(fused, queries)


@pytest.mark.parametrize("training", [True, False])
def test_bidirectional_starts_as_the_unfused_model_bit_for_bit(inputs, training):
    before, after = inputs
    fusion = Bidirectional(DV, D).train(training)
    assert torch.equal(fusion.before(*before), before[0])
    assert torch.equal(fusion.after(*after), after[0])


def test_closed_gates_receive_gradient_and_open(inputs):
    before, after = inputs
    fusion = Bidirectional(DV, D)
    (fusion.before(*before).square().sum() + fusion.after(*after).square().sum()).backward()
    for gate in (fusion.prompt_to_visual.gate, fusion.query_to_visual.gate):
        assert gate.grad.abs().item() > 0


@pytest.mark.parametrize("kind", LEARNED)
def test_every_parameter_of_an_open_fusion_receives_gradient(inputs, kind):
    before, after = inputs
    fusion = open_gates(kind(DV, D))
    (fusion.before(*before).square().sum() + fusion.after(*after).square().sum()).backward()
    without = [name for name, p in fusion.named_parameters() if p.grad is None]
    assert without == []


def test_prompt_embeddings_receive_gradient(inputs):
    (tokens, embeds, mask), _ = inputs
    embeds.requires_grad_()
    PromptToVisual(DV, D).before(tokens, embeds, mask).square().sum().backward()
    reached = embeds.grad.abs().sum(dim=-1) > 0
    assert torch.equal(reached, mask)


def test_dropout_acts_in_training_alone(inputs):
    (tokens, embeds, mask), _ = inputs
    fusion = PromptToVisual(DV, D, dropout=0.5)
    assert not torch.equal(fusion.before(tokens, embeds, mask), fusion.before(tokens, embeds, mask))
    fusion.eval()
    assert torch.equal(fusion.before(tokens, embeds, mask), fusion.before(tokens, embeds, mask))


@pytest.mark.parametrize("kind", [Fusion, NoFusion])
def test_no_fusion_is_the_identity_without_parameters(inputs, kind):
    before, after = inputs
    fusion = NoFusion(DV, D) if kind is NoFusion else Fusion()
    assert fusion.before(*before) is before[0]
    assert fusion.after(*after) is after[0]
    assert list(fusion.parameters()) == []


@pytest.mark.parametrize(("kind", "place"), [(PromptToVisual, "after"), (QueryToVisual, "before")])
def test_a_one_sided_fusion_leaves_the_other_place_alone(inputs, kind, place):
    arguments = inputs[place == "after"]
    assert getattr(kind(DV, D), place)(*arguments) is arguments[0]


@pytest.mark.parametrize(
    ("kind", "heads", "width"),
    [
        (PromptToVisual, 5, DV),
        (QueryToVisual, 5, D),
        (Bidirectional, 32, D),
        (PromptToVisual, 0, DV),
    ],
)
def test_heads_that_do_not_divide_the_width_are_refused(kind, heads, width):
    message = f"fusion.heads is {heads}, which does not divide the width {width} .*choose a divisor"
    with pytest.raises(ConfigError, match=message):
        kind(DV, D, heads=heads)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_fusion_needs_an_aligned_feature_and_says_what_to_choose(name):
    message = rf"fusion={name} reads the feature .* choose alignment=mma_code.*or fusion=none"
    with pytest.raises(ConfigError, match=message):
        PUBLISHED[name](DV, D)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_fusion_learns_whole_and_hands_gradient_to_the_aligned_feature(inputs, name):
    _, (queries, given) = inputs
    given.aligned.requires_grad_()
    fusion = PUBLISHED[name](DV, D, A)
    projector = fusion.projector(D, 10)
    out = fusion.after(queries, given)
    assert out.shape[1] == fusion.num_tokens(K)
    projector(out).square().sum().backward()
    assert [n for n, p in fusion.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert (given.aligned.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_fusion_treats_each_row_as_if_alone(inputs, name):
    _, (queries, given) = inputs
    fusion = PUBLISHED[name](DV, D, A).eval()
    together = fusion.after(queries, given)
    alone = [fusion.after(queries[b : b + 1], Seen(None, given.aligned[b : b + 1])) for b in (0, 1)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_attention_to_equal_keys_reads_the_same_whatever_the_query(inputs):
    """The published cross-attention has K equal keys: its output knows nothing of the queries."""
    _, (queries, given) = inputs
    fusion = CrossAttentionFusion(DV, D, A).eval()
    fusion.norm = torch.nn.Identity()
    share = fusion.mix.sigmoid()
    read = (fusion.after(queries, given) - (1 + share) * queries) / (1 - share)
    torch.testing.assert_close(read, read[:, :1].expand_as(read))
    other = (fusion.after(-queries, given) + (1 + share) * queries) / (1 - share)
    torch.testing.assert_close(read, other)


def test_the_sequence_fusion_leaves_the_query_outputs_as_they_are(inputs):
    _, (queries, given) = inputs
    out = SequenceDimensionFusion(DV, D, A).after(queries, given)
    assert torch.equal(out[:, :K], queries)


def test_a_narrower_projection_is_laid_over_the_first_columns():
    torch.manual_seed(0)
    wide, narrow = FeatureChannelFusion(DV, D, A).projector(D, 10), torch.nn.Linear(D, 10)
    further = wide.weight[:, D:].clone()
    wide.load_state_dict(laid_over(wide, narrow.state_dict()))
    assert torch.equal(wide.weight[:, :D], narrow.weight)
    assert torch.equal(wide.weight[:, D:], further)
    assert torch.equal(wide.bias, narrow.bias)
    wide.load_state_dict(laid_over(wide, narrow.half().state_dict()))
    assert torch.equal(wide.weight[:, D:], further)  # not rounded to the file's precision
    whole = wide.state_dict()
    assert laid_over(wide, whole) is whole
    assert laid_over(narrow, whole) is whole


def open_gates(fusion: Fusion) -> Fusion:
    for name, parameter in fusion.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(0.5)
    return fusion
