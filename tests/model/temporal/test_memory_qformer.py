import copy
from functools import partial

import pytest
import torch
from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import TemporalAggregator, TextTokens
from mmavlm.model.memory import (
    Average,
    EpisodicCompressor,
    Fifo,
    KeepAll,
    MergeAdjacent,
    TokenMerging,
)
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal import MemoryQFormer, Wanted

WIDTH, VISUAL, VOCAB, QUERIES, LAYERS, HEADS = 24, 16, 50, 4, 3, 4
STRATEGIES = [
    MergeAdjacent(3), Fifo(3), Fifo(0), Average(), KeepAll(),
    EpisodicCompressor(3, unit="position"), TokenMerging(3, across="time"),
]  # fmt: skip


def build(memory=None, *, dropout=0.0, **kwargs):
    torch.manual_seed(0)
    qformer = partial(
        QFormer, width=WIDTH, layers=LAYERS, heads=HEADS, hidden_width=40, dropout=dropout,
        max_text_tokens=16, init_std=0.3,
    )  # fmt: skip
    memory = memory or MergeAdjacent(3)
    return MemoryQFormer(
        qformer=qformer, visual_memory=memory, query_memory=memory, visual_width=VISUAL,
        vocab_size=VOCAB, num_query_tokens=QUERIES, **kwargs,
    ).eval()  # fmt: skip


def prompt_of(lengths, width=5):
    torch.manual_seed(1)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    return TextTokens(torch.randint(1, VOCAB, mask.shape), mask)


def merge(bank, counts, length):
    """M+1 → M at each position of each row, on (B,S,N,D) and (B,S,N), with plain loops."""
    if bank.shape[1] <= length:
        return bank, counts
    tokens, sizes = bank[:, :-1].clone(), counts[:, :-1].clone()
    for b in range(bank.shape[0]):
        for n in range(bank.shape[2]):
            x, c = bank[b, :, n], counts[b, :, n]
            k = int(torch.cosine_similarity(x[:-1], x[1:], dim=-1).argmax())
            mean = (x[k] * c[k] + x[k + 1] * c[k + 1]) / (c[k] + c[k + 1])
            tokens[b, :, n] = torch.cat([x[:k], mean[None], x[k + 2 :]])
            sizes[b, :, n] = torch.cat([c[:k], (c[k] + c[k + 1])[None], c[k + 2 :]])
    return tokens, sizes


def slow_loop(model, frame_tokens, prompt, length):
    """The published loop, with a bank a layer, compressed after each frame."""
    qformer, batch = model.qformer, len(frame_tokens)
    text = qformer.embeddings.word_embeddings(prompt.ids)
    text = text + qformer.embeddings.position_embeddings.weight[: text.shape[1]]
    start = torch.cat([model.query_tokens.expand(batch, -1, -1), text], dim=1)
    mask = torch.cat([torch.ones(batch, QUERIES, dtype=torch.bool), prompt.mask], dim=1)
    visual, query = None, [None] * LAYERS
    for t in range(frame_tokens.shape[1]):
        frame = frame_tokens[:, t]
        hidden = qformer.embeddings.layernorm(start)
        for i, layer in enumerate(qformer.layers):
            inputs = hidden
            past = [query[i][0].flatten(1, 2)] if query[i] else []
            slots = query[i][0].shape[1] if query[i] else 0
            keys = torch.cat([*past, hidden], dim=1)
            hidden = attend(layer.attention, hidden, keys, mask.repeat(1, slots + 1))
            q = hidden[:, :QUERIES]
            if layer.crossattention is not None:
                seen = [visual[0].flatten(1, 2)] if visual else []
                q = attend(layer.crossattention, q, torch.cat([*seen, frame], dim=1), None)
            q = feed_forward(layer.intermediate_query, layer.output_query, q)
            x = feed_forward(layer.intermediate, layer.output, hidden[:, QUERIES:])
            hidden = torch.cat([q, x], dim=1)
            query[i] = bank(query[i], inputs.detach(), length)
        visual = bank(visual, frame.detach(), length)
    return hidden[:, :QUERIES]


def bank(state, entry, length):
    entry, count = entry[:, None], torch.ones(len(entry), 1, entry.shape[1])
    if state is None:
        return entry, count
    return merge(torch.cat([state[0], entry], 1), torch.cat([state[1], count], 1), length)


def attend(block, hidden, keys, mask):
    a = block.attention
    q, k, v = a.query(hidden), a.key(keys), a.value(keys)
    heads = []
    for h in range(HEADS):
        s = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
        scores = q[..., s] @ k[..., s].transpose(1, 2) / (WIDTH // HEADS) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        heads.append(scores.softmax(-1) @ v[..., s])
    return block.output.LayerNorm(block.output.dense(torch.cat(heads, -1)) + hidden)


def feed_forward(intermediate, output, x):
    return output.LayerNorm(output.dense(torch.nn.functional.gelu(intermediate.dense(x))) + x)


def test_the_loop_equals_the_published_one_written_out():
    model, prompt = build(), prompt_of([5, 2])
    frames = torch.randn(2, 9, 6, VISUAL)
    state = model(frames, prompt, torch.ones(2, 9, dtype=torch.bool))
    torch.testing.assert_close(
        model.read(state), slow_loop(model, frames, prompt, 3), atol=1e-5, rtol=1e-4
    )


def test_gradients_equal_those_of_the_published_loop():
    model, prompt = build().double(), prompt_of([5, 2])
    other = copy.deepcopy(model)
    frames, mask = torch.randn(2, 7, 6, VISUAL).double(), torch.ones(2, 7, dtype=torch.bool)
    direction = torch.randn(2, QUERIES, WIDTH)  # a LayerNorm's output has a constant norm
    (model(frames, prompt, mask).video_tokens * direction).sum().backward()
    (slow_loop(other, frames, prompt, 3) * direction).sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        if theirs.grad is None:  # the text's last feed-forward reaches no query
            assert ours.grad is None or not ours.grad.any(), name
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("memory", STRATEGIES, ids=lambda m: f"{type(m).__name__}{m.length}")
def test_streaming_gives_the_tokens_of_the_whole_film(memory):
    model, prompt = build(memory), prompt_of([5, 2])
    frames, mask = torch.randn(2, 8, 6, VISUAL), torch.ones(2, 8, dtype=torch.bool)
    state = model.start(prompt, frames[:, 0])
    for t in range(8):
        state = model.step(state, frames[:, t], mask[:, t])
    whole = model.read(model(frames, prompt, mask))
    torch.testing.assert_close(model.read(state), whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("memory", STRATEGIES, ids=lambda m: f"{type(m).__name__}{m.length}")
def test_rows_of_different_length_equal_each_row_alone(memory):
    model, prompt = build(memory), prompt_of([5, 3, 1])
    frames, lengths = torch.randn(3, 9, 6, VISUAL), [9, 5, 1]
    mask = torch.arange(9)[None] < torch.tensor(lengths)[:, None]
    together = model(frames, prompt, mask).video_tokens
    for b, length in enumerate(lengths):
        text = int(prompt.mask[b].sum())
        alone = TextTokens(prompt.ids[b : b + 1, :text], prompt.mask[b : b + 1, :text])
        tokens = model(frames[b : b + 1, :length], alone, torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(together[b], tokens.video_tokens[0], atol=2e-5, rtol=1e-4)


def test_padding_frames_change_nothing_bit_for_bit():
    model, prompt = build(), prompt_of([5, 2])
    frames = torch.randn(2, 6, 6, VISUAL)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    noisy = frames.clone()
    noisy[1, 4:] = 100.0
    one, two = (model(f, prompt, mask).video_tokens for f in (frames, noisy))
    assert torch.equal(one, two)


def test_trace_ends_with_the_tokens_of_the_whole_film_and_carries_gradient_from_each_frame():
    model, prompt = build(), prompt_of([5, 2])
    frames = torch.randn(2, 5, 6, VISUAL, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    _, looks = model.look(frames, prompt, mask, Wanted(5))
    trace = looks.outputs
    assert trace.shape == (2, 5, QUERIES, WIDTH)
    last = model(frames, prompt, mask).video_tokens
    torch.testing.assert_close(trace[:, -1], last, atol=1e-5, rtol=1e-4)
    trace.sum().backward()
    assert (frames.grad[0].abs().sum((1, 2)) > 0).all()
    assert not frames.grad[1, 3:].any()


@pytest.mark.parametrize("backprop_frames", [1, 2, 4])
def test_as_many_last_frames_carry_gradient_as_asked_for(backprop_frames):
    model, prompt = build(backprop_frames=backprop_frames), prompt_of([5, 2])
    frames = torch.randn(2, 4, 6, VISUAL, requires_grad=True)
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    model(frames, prompt, mask).video_tokens.square().sum().backward()
    moved = (frames.grad.abs().sum((2, 3)) > 0).tolist()
    first = 4 - backprop_frames
    assert moved[0] == [t >= first for t in range(4)]
    assert moved[1] == [first - 1 <= t < 3 for t in range(4)]


def transformers_qformer():
    config = InstructBlipQFormerConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=40, max_position_embeddings=16, encoder_hidden_size=VISUAL,
        initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(3)
    return InstructBlipQFormerModel(config).eval()


@pytest.mark.parametrize("memory", [Fifo(0), KeepAll(), MergeAdjacent(20)])
def test_one_frame_equals_transformers_qformer_on_the_same_weights(memory):
    reference, model = transformers_qformer(), build(memory)
    model.qformer.load_state_dict(reference.state_dict(), strict=True)
    prompt, frames = prompt_of([5, 2]), torch.randn(2, 1, 6, VISUAL)
    expected = reference(
        input_ids=prompt.ids,
        attention_mask=torch.cat([torch.ones(2, QUERIES), prompt.mask], dim=1),
        query_embeds=model.query_tokens.expand(2, -1, -1),
        encoder_hidden_states=frames[:, 0],
    ).last_hidden_state[:, :QUERIES]
    ours = model(frames, prompt, torch.ones(2, 1, dtype=torch.bool)).video_tokens
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-5)
    without_memory = model.qformer(model.query_tokens.expand(2, -1, -1), prompt, frames[:, 0])
    torch.testing.assert_close(without_memory, expected, atol=2e-6, rtol=1e-5)


def test_memory_changes_what_the_queries_say():
    prompt, frames = prompt_of([5, 2]), torch.randn(2, 6, 6, VISUAL)
    mask = torch.ones(2, 6, dtype=torch.bool)
    outputs = [build(memory)(frames, prompt, mask).video_tokens for memory in STRATEGIES]
    for i, one in enumerate(outputs):
        for other in outputs[:i]:
            assert not torch.allclose(one, other)


def test_it_is_a_temporal_aggregator():
    assert isinstance(build(), TemporalAggregator)


def test_a_prompt_beyond_the_position_table_names_both_lengths():
    model, frames = build(), torch.randn(1, 2, 6, VISUAL)
    with pytest.raises(ConfigError, match=r"17 tokens .* position table 16"):
        model(frames, prompt_of([17], width=17), torch.ones(1, 2, dtype=torch.bool))


def test_settings_below_one_are_refused():
    with pytest.raises(ConfigError, match=r"temporal.backprop_frames must be at least 1, got 0"):
        build(backprop_frames=0)
    with pytest.raises(ConfigError, match=r"qformer.width 24 is not a multiple of qformer.heads 5"):
        QFormer(visual_width=4, vocab_size=5, width=24, heads=5)
