"""Every frame's patches, projected and pooled, beside LLaVA-OneVision's order of the two."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from small_films import STRATEGIES, VISUAL

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import PatchGrid, ReadsPatches, TemporalAggregator, TextTokens
from mmavlm.model.memory import Average, MergeAdjacent, TokenMerging
from mmavlm.model.temporal import EveryFrame, Wanted
from support import random_batch, rows_of, tiny_backbone

ROWS, COLUMNS, LLM = 6, 5, 10
PATCHES = PatchGrid(1, ROWS, COLUMNS)
BRANCH = ["temporal=every_frame", "temporal.stride=2"]


def build(**settings):
    torch.manual_seed(0)
    temporal = EveryFrame(visual_width=VISUAL, vocab_size=0, **settings)
    temporal.take_patches(PATCHES)
    return temporal, temporal.projector(LLM).eval()


def films(*lengths, seed=1):
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(lengths), max(lengths), PATCHES.stop, VISUAL, generator=draw)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return tokens, no_guide(len(lengths)), mask


def no_guide(count):
    nothing = torch.zeros(count, 0, dtype=torch.long)
    return TextTokens(nothing, nothing.bool())


def shown(parts, state):
    """The tokens (V,looks,K,Dl) that a language model sees."""
    temporal, projector = parts
    return projector(temporal.read(state)).unflatten(1, (-1, temporal.tokens_a_look()))


def weights(patches, fields, pool):
    """How much each of so many patches in a row counts in each field, by the equations."""
    counted = torch.zeros(fields, patches)
    for i in range(fields):
        if pool == "area":
            first, stop = i * patches // fields, -(-(i + 1) * patches // fields)
            counted[i, first:stop] = 1 / (stop - first)
        else:
            at = max((i + 0.5) * patches / fields - 0.5, 0)
            below, part = int(at), at - int(at)
            counted[i, below] += 1 - part
            counted[i, min(below + 1, patches - 1)] += part
    return counted


def as_published(projector, frame, stride, pool):
    """The tokens of one frame (P,C): all patches projected through both layers, then pooled."""
    hidden = F.gelu(frame[PATCHES.first :] @ projector[0].weight.T + projector[0].bias)
    projected = hidden @ projector[2].weight.T + projector[2].bias
    picture = projected.view(ROWS, COLUMNS, LLM)
    down, across = (weights(n, -(-n // stride), pool) for n in (ROWS, COLUMNS))
    return torch.einsum("ir,jc,rcd->ijd", down, across, picture).flatten(0, 1)


def test_it_is_an_aggregator_that_reads_patches():
    temporal, _ = build()
    assert isinstance(temporal, TemporalAggregator)
    assert isinstance(temporal, ReadsPatches)


@torch.no_grad()
@pytest.mark.parametrize(("stride", "pool"), [*product([1, 2, 3, 4, 5], ["area", "bilinear"])])
def test_tokens_are_those_of_projecting_first_and_pooling_then(stride, pool):
    parts = build(stride=stride, pool=pool)
    tokens, guide, mask = films(3, 3)
    seen = shown(parts, parts[0](tokens, guide, mask))
    for row, t in product(range(2), range(3)):
        expected = as_published(parts[1], tokens[row, t], stride, pool)
        torch.testing.assert_close(seen[row, t], expected, atol=1e-5, rtol=1e-5)


BOUNDS = [{}, *({"max_frames": n} for n in (1, 3, 20)), *({"memory": m} for m in STRATEGIES)]


@torch.no_grad()
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_stream_gives_at_each_frame_what_the_film_so_far_gives(bound):
    temporal, _ = parts = build(frames_at_once=2, **bound)
    tokens, guide, mask = films(7, 7)
    for t, state in enumerate(temporal.stream(guide, tokens.unbind(1))):
        so_far = temporal(tokens[:, : t + 1], guide, mask[:, : t + 1])
        torch.testing.assert_close(shown(parts, state), shown(parts, so_far), atol=1e-5, rtol=1e-5)
        assert temporal.mask(state) is None
        assert temporal.frames_of(state) == temporal.frames_of(so_far)
        assert shown(parts, state).shape[1] == temporal.looks_at(t + 1)


@torch.no_grad()
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("stepwise", [False, True])
def test_each_film_of_a_batch_gives_what_it_gives_alone(bound, stepwise):
    temporal, _ = parts = build(**bound)
    lengths = (7, 3, 1)
    tokens, guide, mask = films(*lengths)
    tokens[~mask] = 1e3  # padding may hold anything
    if stepwise:
        state = temporal.start(guide, tokens[:, 0])
        for t in range(mask.shape[1]):
            state = temporal.step(state, tokens[:, t], mask[:, t])
    else:
        state = temporal(tokens, guide, mask)
    together, real = shown(parts, state), temporal.mask(state)
    for row, length in enumerate(lengths):
        keep = slice(row, row + 1)
        alone = temporal(tokens[keep, :length], no_guide(1), mask[keep, :length])
        count = temporal.looks_at(length)
        expected = shown(parts, alone)[0]
        torch.testing.assert_close(together[row, :count], expected, atol=1e-5, rtol=1e-5)
        if real is not None:
            assert real[row].tolist() == [True] * count + [False] * (real.shape[1] - count)


@torch.no_grad()
@pytest.mark.parametrize("bound", [{}, {"memory": MergeAdjacent(2)}])
def test_views_of_one_film_see_the_same_of_it(bound):
    temporal, _ = parts = build(**bound)
    tokens, _, mask = films(4, 2)
    film_of = torch.tensor([1, 0, 0])
    together = temporal(tokens, no_guide(3), mask, film_of)
    apart = temporal(tokens[film_of], no_guide(3), mask[film_of])
    torch.testing.assert_close(shown(parts, together), shown(parts, apart))
    assert torch.equal(temporal.mask(together), temporal.mask(apart))
    assert temporal.frames_of(together) == temporal.frames_of(apart)


@torch.no_grad()
def test_frames_looked_at_are_those_frames_alone():
    temporal, _ = build()
    tokens, guide, mask = films(5, 2)
    state, looks = temporal.look(tokens, guide, mask, Wanted(1, middle=True, last=True))
    assert looks.frames.tolist() == [[0, 2, 4], [0, 1, 1]]
    rows = torch.arange(2)[:, None]
    assert torch.equal(looks.outputs, tokens[rows, looks.frames, PATCHES.first :])
    assert torch.equal(temporal.read(state), temporal.read(temporal(tokens, guide, mask)))


def test_at_full_width_it_has_the_published_shapes_and_counts():
    """SigLIP's 27 x 27 patches of width 1152, before Qwen2-7B: 49 tokens a frame."""
    with torch.device("meta"):
        temporal = EveryFrame(visual_width=1152, vocab_size=0)
        temporal.take_patches(PatchGrid(0, 27, 27))
        projector = temporal.projector(3584)
        assert projector(torch.empty(1, 2 * 729, 1152)).shape == (1, 2 * 49, 3584)
    assert temporal.tokens_a_look() == 49
    assert not [*temporal.parameters()]
    first, second = 1152 * 3584 + 3584, 3584 * 3584 + 3584
    assert sum(p.numel() for p in projector.parameters()) == first + second == 16_980_992


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"stride": 0}, "temporal.stride must be at least 1, got 0"),
        ({"stride": 2.5}, "temporal.stride must be a whole number, got 2.5"),
        ({"stride": 6}, r"temporal.stride=6 is the side of a field .* gives 6 x 5 of them"),
        ({"pool": "max"}, "temporal.pool is 'max'; choose area or bilinear"),
        ({"frames_at_once": 0}, "temporal.frames_at_once must be at least 1"),
        ({"max_frames": 4, "memory": Average()}, "choose one and set the other to null"),
        ({"memory": TokenMerging(3)}, "EveryFrame reads patches where they were"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        build(**settings)


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["fusion=prompt_to_visual"], "reads words through the Q-Former, but EveryFrame"),
        (["fusion=feature_channel"], "FeatureChannelFusion cannot stand with EveryFrame"),
        (["alignment.levels=[low,high,cross]"], "EveryFrame makes its tokens of patches"),
        (["alignment.text_encoder=null"], "alignment.text_encoder=null reads .* EveryFrame"),
    ],
)
def test_parts_that_cannot_stand_with_it_are_refused(overrides, word):
    with pytest.raises(InstantiationException, match=word):
        tiny_backbone(*BRANCH, *overrides)


BUILT = [[], ["temporal.pool=bilinear"], ["temporal.max_frames=2"], ["temporal.memory=${memory}"]]


@pytest.mark.parametrize("settings", BUILT)
def test_a_model_with_it_learns_answers_and_alignment(settings):
    model = tiny_backbone(*BRANCH, "alignment=info_nce", "aligned_frames=first_last", *settings)
    losses = model(random_batch((4, 2)))
    assert losses.keys() == {"text", "align_low", "align_high"}
    sum(losses.values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.vision.projector.parameters())


@torch.no_grad()
def test_a_batch_of_cached_features_gives_what_its_frames_give():
    model, batch = tiny_backbone(*BRANCH).eval(), random_batch((4, 2))
    cached = replace(batch, frames=None, features=model.vision.encode(batch.frames))
    seen, read = model.media_tokens(batch), model.media_tokens(cached)
    torch.testing.assert_close(seen.tokens, read.tokens)
    assert seen.tokens.shape[1] == model.vision.num_tokens(4) == 4 * 4
    assert seen.mask.sum(dim=1).tolist() == [16, 8]


@torch.no_grad()
def test_padding_of_a_shorter_film_changes_no_answer():
    model, batch = tiny_backbone(*BRANCH).eval(), random_batch((4, 2))
    together = model.rank(batch, ["comedy", "drama"])
    alone = model.rank(rows_of(batch, 1), ["comedy", "drama"])
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)
