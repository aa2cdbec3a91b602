"""LLaMA-VID's context and content tokens, beside the equations of the paper."""

import logging
import math
from functools import partial

import pytest
import torch
from hydra.errors import InstantiationException
from small_films import QUERIES, VISUAL, VOCAB, WIDTH

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import PatchGrid, TemporalAggregator, TextTokens
from mmavlm.model.memory import Average, EpisodicCompressor, Fifo, KeepAll, MergeAdjacent
from mmavlm.model.qformer import QFormer
from mmavlm.model.temporal import ContextContent, Wanted, WordsContent
from mmavlm.model.temporal.token_projector import TokenProjector
from support import composed, random_batch, tiny_backbone

SIDE = 6
PATCHES = PatchGrid(1, SIDE, SIDE)
QFORMER = partial(
    QFormer, width=WIDTH, layers=3, heads=4, hidden_width=40, dropout=0.0, max_text_tokens=16,
    init_std=0.3,
)  # fmt: skip
BRANCH = ["temporal=context_content"]


def build(**settings):
    torch.manual_seed(0)
    temporal = ContextContent(
        qformer=QFORMER, visual_width=VISUAL, vocab_size=VOCAB, num_query_tokens=QUERIES, **settings
    )
    temporal.take_patches(PATCHES)
    return temporal.eval()


def words(**settings):
    torch.manual_seed(0)
    temporal = WordsContent(
        visual_width=VISUAL, vocab_size=VOCAB, width=WIDTH, layers=2, heads=4, hidden_width=40,
        max_text_tokens=16, **settings,
    )  # fmt: skip
    with torch.no_grad():  # so small a model attends to all alike, with the weights it starts from
        for parameter in temporal.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    temporal.take_patches(PATCHES)
    return temporal.eval()


READERS = [build, words]


def films(*lengths, seed=1):
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(lengths), max(lengths), PATCHES.stop, VISUAL, generator=draw)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return tokens, guides(len(lengths), seed), mask


def guides(count, seed=1):
    draw = torch.Generator().manual_seed(seed)
    real = torch.arange(5) < torch.randint(1, 6, (count, 1), generator=draw)
    return TextTokens(torch.randint(1, VOCAB, (count, 5), generator=draw), real)


def of_row(guide, row):
    return TextTokens(guide.ids[row : row + 1], guide.mask[row : row + 1])


def rows_that_read(temporal, frame, guide):
    """Query outputs, or words, that read one frame (P,C) under one guide."""
    if isinstance(temporal, WordsContent):
        ids = guide.ids[guide.mask][None]
        projected = temporal.bert_projection(frame[None])
        return temporal.bert(ids, encoder_hidden_states=projected).last_hidden_state[0]
    queries = temporal.query_tokens.expand(1, -1, -1)
    return temporal.qformer(queries, guide, temporal.norm(frame[None]))[0]


def as_the_paper_has_it(temporal, frame, guide, grid):
    """The tokens of one frame (P,C) under one guide, equation by equation."""
    x = frame[PATCHES.first :]
    seen = rows_that_read(temporal, frame, guide)
    q = seen @ temporal.query.weight.T + temporal.query.bias
    k = x @ temporal.key.weight.T + temporal.key.bias
    scores = torch.exp(q @ k.T / math.sqrt(VISUAL))
    s = scores / scores.sum(dim=1, keepdim=True)
    context = sum((s @ x).unbind(0)) / len(seen)
    picture = x.view(SIDE, SIDE, VISUAL)
    edges = [(i * SIDE // grid, -(-(i + 1) * SIDE // grid)) for i in range(grid)]
    content = [picture[a:b, c:d].mean(dim=(0, 1)) for a, b in edges for c, d in edges]
    return torch.stack([context, *content])


@pytest.mark.parametrize("reader", READERS)
def test_it_is_a_temporal_aggregator(reader):
    assert isinstance(reader(), TemporalAggregator)


@torch.no_grad()
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("content", "grid"), [(None, SIDE), ("mean", 1), (1, 1), (3, 3), (4, 4)])
def test_tokens_are_those_of_the_equations(reader, content, grid):
    """A grid of 4 does not divide the 6 rows of patches: places overlap, and none is left out."""
    temporal = reader(content=content)
    tokens, guide, mask = films(3, 3)
    read = temporal.read(temporal(tokens, guide, mask)).unflatten(1, (3, -1))
    assert read.shape[2] == temporal.num_queries == 1 + grid**2
    for row in range(2):
        for t in range(3):
            expected = as_the_paper_has_it(temporal, tokens[row, t], of_row(guide, row), grid)
            torch.testing.assert_close(read[row, t], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("reader", READERS)
def test_the_question_changes_the_context_and_not_the_content(reader):
    temporal = reader(content=2)
    tokens, guide, mask = films(3)
    one, other = (temporal(tokens, g, mask) for g in (guide, guides(1, seed=7)))
    one, other = (temporal.read(state).unflatten(1, (3, -1)) for state in (one, other))
    assert ((one - other)[:, :, 0].abs().amax(dim=-1) > 1e-4).all()
    assert torch.equal(one[:, :, 1:], other[:, :, 1:])


@torch.no_grad()
@pytest.mark.parametrize("memory", [None, MergeAdjacent(3)])
@pytest.mark.parametrize("reader", READERS)
def test_a_second_question_computes_no_second_set_of_keys(reader, memory):
    temporal = reader(memory=memory)
    tokens, _, mask = films(4, 2)
    asked, film_of = guides(4), torch.tensor([1, 0, 0, 1])
    counted = []
    hook = lambda part, inputs: counted.append(len(inputs[0].flatten(0, -3)))  # noqa: E731
    of_film = temporal.bert_projection if reader is words else (
        temporal.qformer.layers[0].crossattention.attention.key
    )  # fmt: skip
    for part in (temporal.key, of_film):
        part.register_forward_pre_hook(hook)
    state = temporal(tokens, asked, mask, film_of)
    together, real = temporal.read(state), temporal.mask(state)
    assert counted == [8, 8]  # frames (or slots) of two films, padding included
    apart = temporal(tokens[film_of], asked, mask[film_of])
    torch.testing.assert_close(together, temporal.read(apart), atol=1e-5, rtol=1e-5)
    assert torch.equal(real, temporal.mask(apart))


MEMORIES = [MergeAdjacent(3), MergeAdjacent(1), Fifo(3), Fifo(0), Average(), KeepAll(),
            EpisodicCompressor(3)]  # fmt: skip
BOUNDS = [{}, *({"max_frames": n} for n in (1, 3, 4, 20)), *({"memory": m} for m in MEMORIES)]


@torch.no_grad()
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_stream_gives_at_each_frame_what_the_film_so_far_gives(bound):
    temporal = build(frames_at_once=2, **bound)
    tokens, guide, mask = films(9, 9)
    for t, state in enumerate(temporal.stream(guide, tokens.unbind(1))):
        so_far = temporal(tokens[:, : t + 1], guide, mask[:, : t + 1])
        read = temporal.read(state)
        torch.testing.assert_close(read, temporal.read(so_far), atol=1e-5, rtol=1e-5)
        assert temporal.mask(state) is temporal.mask(so_far) is None
        assert read.shape[1] == temporal.looks_at(t + 1) * temporal.num_queries


@torch.no_grad()
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("stepwise", [False, True])
def test_each_film_of_a_batch_gives_what_it_gives_alone(bound, stepwise):
    temporal, lengths = build(**bound), (9, 4, 1)
    tokens, guide, mask = films(*lengths)
    tokens[~mask] = torch.nan  # padding may hold anything
    tokens = tokens.nan_to_num(1e3)
    if stepwise:
        state = temporal.start(guide, tokens[:, 0])
        for t in range(mask.shape[1]):
            state = temporal.step(state, tokens[:, t], mask[:, t])
    else:
        state = temporal(tokens, guide, mask)
    together, real = temporal.read(state).unflatten(1, (-1, 2)), temporal.mask(state)
    for row, length in enumerate(lengths):
        alone = temporal(
            tokens[row : row + 1, :length], of_row(guide, row), mask[row : row + 1, :length]
        )
        expected = temporal.read(alone)[0].unflatten(0, (-1, 2))
        count = temporal.looks_at(length)
        torch.testing.assert_close(together[row, :count], expected, atol=1e-5, rtol=1e-5)
        if real is not None:
            assert real[row].tolist() == [True] * count + [False] * (real.shape[1] - count)


@torch.no_grad()
@pytest.mark.parametrize("bound", [{"max_frames": 6}, {"memory": MergeAdjacent(5)}])
def test_what_is_held_of_a_long_film_is_bounded(bound):
    temporal = build(**bound)
    frame, guide, _ = films(1)
    held = 0
    for state in temporal.stream(guide, (frame[:, 0] for _ in range(100))):
        outputs = sum(piece.outputs.shape[1] for piece in state.pieces)
        slots = 0 if state.visual_bank is None else state.visual_bank.tokens.shape[1]
        held = max(held, outputs, slots)
    assert held <= 9
    assert temporal.read(state).shape[1] <= 12


@torch.no_grad()
def test_long_films_are_read_at_the_least_doubled_stride_that_fits():
    temporal = build(max_frames=4)
    tokens, guide, mask = films(11)
    read = temporal.read(temporal(tokens, guide, mask))
    spaced = temporal.read(temporal(tokens[:, ::4], guide, mask[:, ::4]))
    torch.testing.assert_close(read, spaced, atol=1e-6, rtol=1e-6)


def test_what_becomes_of_long_films_is_said_once(caplog):
    temporal = build(max_frames=17)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            temporal(*films(18))
    assert [r.message for r in caplog.records] == [
        "films of more than temporal.max_frames=17 frames: every 2. frame is read"
    ]


@torch.no_grad()
@pytest.mark.parametrize("bound", [{}, {"max_frames": 2}, {"memory": MergeAdjacent(2)}])
def test_frames_looked_at_are_those_frames_alone(bound):
    temporal = build(**bound)
    tokens, guide, mask = films(5, 2)
    state, looks = temporal.look(tokens, guide, mask, Wanted(1, middle=True, last=True))
    assert looks.frames.tolist() == [[0, 2, 4], [0, 1, 1]]
    for row in range(2):
        for column, t in enumerate(looks.frames[row]):
            expected = as_the_paper_has_it(temporal, tokens[row, t], of_row(guide, row), 1)
            torch.testing.assert_close(looks.outputs[row, column], expected, atol=1e-5, rtol=1e-5)
    whole = temporal.read(temporal(tokens, guide, mask))
    torch.testing.assert_close(temporal.read(state), whole)
    assert temporal.look(tokens, guide, mask, Wanted(2))[0] is None


@pytest.mark.parametrize("frozen", ["train_qformer", "train_context"])
def test_a_frozen_part_gets_no_gradient_and_stays_in_eval_mode(frozen):
    temporal = build(**{frozen: False}).train()
    projector = temporal.projector(12)
    projector(temporal.read(temporal(*films(2)))).square().sum().backward()
    of_reader = [*temporal.qformer.parameters(), temporal.query_tokens, *temporal.norm.parameters()]
    context = [
        p for part in (temporal.query, temporal.key, projector.context) for p in part.parameters()
    ]
    unused = {id(p) for n, p in temporal.named_parameters() if n in unread(temporal)}
    for name, parts in (("train_qformer", of_reader), ("train_context", context)):
        assert all((p.grad is not None) == (frozen != name) for p in parts if id(p) not in unused)
    assert temporal.qformer.training == (frozen != "train_qformer")
    assert all(p.grad is not None for p in projector.content.parameters())


def unread(temporal):
    """The text's own path through the last layer, which no query reads."""
    last = f"qformer.encoder.layer.{len(temporal.qformer.layers) - 1}"
    return {n for n, _ in temporal.named_parameters()
            if n.startswith((f"{last}.intermediate.", f"{last}.output."))}  # fmt: skip


@pytest.mark.parametrize("kind", ["mlp2x_gelu", "linear", "identity"])
def test_context_and_content_are_projected_apart(kind):
    torch.manual_seed(0)
    width = VISUAL if kind == "identity" else 10
    projector = TokenProjector(VISUAL, width, 3, kind)
    looks = torch.randn(2, 12, VISUAL)
    out = projector(looks)
    for k in range(12):
        part = projector.context if k % 3 == 0 else projector.content
        torch.testing.assert_close(out[:, k], part(looks[:, k]))


def test_at_full_width_it_has_llama_vids_shapes_and_counts():
    with torch.device("meta"):
        temporal = ContextContent(qformer=QFormer, visual_width=1408, vocab_size=30523)
        temporal.take_patches(PatchGrid(1, 16, 16))
        projector = temporal.projector(4096)
        guide = TextTokens(torch.zeros(3, 9, dtype=torch.long), torch.ones(3, 9).bool())
        tokens = torch.empty(2, 8, 257, 1408)
        seen = temporal.see(tokens, guide, torch.tensor([0, 1, 1]))
        assert seen.shape == (3, 8, 2, 1408)
        assert projector(seen.flatten(1, 2)).shape == (3, 16, 4096)
    counts = [sum(p.numel() for p in part.parameters()) for part in
              (temporal.query, temporal.key, projector.context, projector.content)]  # fmt: skip
    square, out = 1408 * 1408 + 1408, 1408 * 4096 + 4096
    assert counts == [768 * 1408 + 1408, square, out, out + 4096 * 4096 + 4096]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"content": "grid"}, "temporal.content must be a whole number, got 'grid'"),
        ({"content": 0}, "temporal.content must be at least 1, got 0"),
        ({"content": 7}, r"temporal.content=7 is the side of a grid, .* 6 x 6 patches"),
        ({"max_frames": 0}, "temporal.max_frames must be at least 1"),
        ({"max_frames": 4, "memory": Average()}, "choose one and set the other to null"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        build(**settings)


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["fusion=prompt_to_visual"], "PromptToVisual cannot stand with ContextContent"),
        (["fusion=feature_channel"], "FeatureChannelFusion cannot stand with ContextContent"),
        (["alignment.levels=[low,high,cross]"], r"choose alignment.levels=\[low,high\]"),
        (["alignment.text_encoder=null"], "alignment.text_encoder=null reads .* ContextContent"),
        (["temporal.projector=mlp"], "temporal.projector='mlp' is unknown; choose one of"),
        (["temporal.projector=identity", "llm.width=32"], "patches of width 64, .* reads 32"),
        (["memory=token_merging", "temporal.memory=${memory}"], "token_merging merges tokens"),
    ],
)  # fmt: skip
def test_parts_that_cannot_stand_with_it_are_refused(overrides, word):
    with pytest.raises(InstantiationException, match=word):
        tiny_backbone(*BRANCH, *overrides)


def test_a_frozen_bert_gets_no_gradient_and_stays_in_eval_mode():
    temporal = words(train_bert=False, dropout=0.1).train()
    temporal.read(temporal(*films(2))).square().sum().backward()
    frozen = [*temporal.bert.parameters(), *temporal.bert_projection.parameters()]
    assert all(p.grad is None for p in frozen)
    assert not temporal.bert.training
    assert temporal.key.weight.grad is not None


BUILT = [[], ["temporal.max_frames=2"], ["temporal.memory=${memory}"],
         ["temporal=context_content_bert"]]  # fmt: skip


@pytest.mark.parametrize("settings", BUILT)
def test_a_model_with_it_learns_answers_and_alignment(settings):
    model = tiny_backbone(*BRANCH, "alignment=info_nce", "aligned_frames=first_last", *settings)
    assert isinstance(model.vision.norm, torch.nn.Identity)
    losses = model(random_batch((4, 2)))
    assert losses.keys() == {"text", "align_low", "align_high"}
    sum(losses.values()).backward()
    assert model.vision.temporal.key.weight.grad.abs().sum() > 0
    assert model.vision.projector.context.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("temporal", ["context_content", "context_content_bert", "every_frame"])
def test_patches_are_read_as_the_encoder_gives_them_unless_one_says_otherwise(temporal):
    vision = composed(f"temporal={temporal}").vision
    assert (vision.norm_eps, vision.position_init) == (None, "none")
    settings = ["vision.norm_eps=1e-5", "vision.position_init=sinusoids"]
    vision = composed(f"temporal={temporal}", *settings).vision
    assert (vision.norm_eps, vision.position_init) == (1e-5, "sinusoids")


def test_patches_of_cached_features_are_told_by_their_number():
    assert PatchGrid.square(257) == PatchGrid(1, 16, 16)
    assert PatchGrid.square(256) == PatchGrid(0, 16, 16)
    assert PatchGrid.square(577) == PatchGrid(1, 24, 24)
    assert PatchGrid.square(261) is None
