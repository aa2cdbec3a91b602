import pytest
import torch
from hydra.errors import InstantiationException
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from mmavlm.core.interfaces import TemporalAggregator, TextTokens
from mmavlm.model.temporal import VideoQFormer, Wanted
from mmavlm.model.temporal.time_qformer import TimeTable
from support import tiny_backbone

QUERIES, VISUAL, WIDTH, ROWS = 3, 6, 8, 4
SIZES = {"width": WIDTH, "layers": 2, "heads": 2, "hidden_width": 16, "dropout": 0.1}


def build(**settings):
    torch.manual_seed(0)
    given = {"num_query_tokens": QUERIES, "max_frame_positions": ROWS, **SIZES, **settings}
    temporal = VideoQFormer(visual_width=VISUAL, vocab_size=10, **given)
    with torch.no_grad():  # so small a model attends to all alike, with the weights it starts from
        for parameter in temporal.parameters():
            if parameter.ndim > 1:
                parameter.mul_(20)
    return temporal


@pytest.fixture(scope="module")
def temporal():
    return build().eval()


def films(lengths, seed=0):
    tokens = torch.randn(len(lengths), max(lengths), 5, VISUAL,
                         generator=torch.Generator().manual_seed(seed))  # fmt: skip
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    nothing = torch.zeros(len(lengths), 0, dtype=torch.long)
    return tokens, TextTokens(nothing, nothing.bool()), mask


def read(temporal, tokens, guide, mask):
    return temporal.read(temporal(tokens, guide, mask))


def test_it_is_a_temporal_aggregator(temporal):
    assert isinstance(temporal, TemporalAggregator)


@torch.no_grad()
def test_it_computes_what_two_of_blip_2s_q_formers_give_one_behind_the_other(temporal):
    def own(part, seen, frequency):
        config = Blip2QFormerConfig(
            hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
            encoder_hidden_size=seen, cross_attention_frequency=frequency,
        )  # fmt: skip
        model = Blip2QFormerModel(config).eval()
        model.load_state_dict(part.state_dict())
        return model

    image, video = own(temporal.image_qformer, VISUAL, 2), own(temporal.time_qformer, WIDTH, 1)
    tokens, guide, mask = films([3])
    seen = [
        image(temporal.image_queries, encoder_hidden_states=tokens[:, t]).last_hidden_state
        + temporal.time_table.weight[t]
        for t in range(3)
    ]
    expected = video(
        temporal.time_queries, encoder_hidden_states=torch.cat(seen, dim=1)
    ).last_hidden_state
    torch.testing.assert_close(read(temporal, tokens, guide, mask), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(4, 2), (7, 3, 1), (ROWS, ROWS + 1)])
def test_each_film_of_a_batch_gives_what_it_gives_alone(temporal, lengths):
    tokens, guide, mask = films(lengths)
    together = read(temporal, tokens, guide, mask)
    for row, length in enumerate(lengths):
        keep = slice(row, row + 1)
        some = TextTokens(guide.ids[keep], guide.mask[keep])
        alone = read(temporal, tokens[keep, :length], some, mask[keep, :length])
        torch.testing.assert_close(together[keep], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_stream_gives_at_each_frame_what_the_film_so_far_gives(temporal):
    tokens, guide, mask = films((7, 7))
    for t, state in enumerate(temporal.stream(guide, tokens.unbind(1))):
        so_far = read(temporal, tokens[:, : t + 1], guide, mask[:, : t + 1])
        torch.testing.assert_close(temporal.read(state), so_far, atol=1e-5, rtol=1e-5)
    assert t == 6


@torch.no_grad()
def test_looks_are_what_the_film_so_far_gives(temporal):
    tokens, guide, mask = films((7, 4))
    state, looks = temporal.look(tokens, guide, mask, Wanted(2, middle=True, last=True))
    assert looks.frames.tolist() == [[0, 1, 3, 6], [0, 1, 2, 3]]
    for row, frames in enumerate(looks.frames.tolist()):
        for column, frame in enumerate(frames):
            keep, length = slice(row, row + 1), frame + 1
            some = TextTokens(guide.ids[keep], guide.mask[keep])
            expected = read(temporal, tokens[keep, :length], some, mask[keep, :length])[0]
            found = looks.outputs[row, column]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(temporal.read(state), looks.outputs[:, -1], atol=1e-5, rtol=1e-5)
    first, looks = temporal.look(tokens, guide, mask, Wanted(2))
    assert first is None
    assert looks.outputs.shape == (2, 2, QUERIES, WIDTH)


def test_a_film_longer_than_the_table_is_spread_over_it():
    table = TimeTable(ROWS, WIDTH)
    longer = table(torch.tensor([2 * ROWS - 1, ROWS]), 2 * ROWS - 1)
    torch.testing.assert_close(longer[0, ::2], table.weight)
    between = (table.weight[:-1] + table.weight[1:]) / 2
    torch.testing.assert_close(longer[0, 1::2], between)
    torch.testing.assert_close(longer[1, :ROWS], table.weight)
    assert TimeTable(1, WIDTH)(torch.tensor([3]), 3).shape == (1, 3, WIDTH)


@torch.no_grad()
def test_the_order_of_frames_matters(temporal):
    tokens, guide, mask = films((4,))
    before, after = (read(temporal, t, guide, mask) for t in (tokens, tokens.flip(1)))
    assert (before - after).abs().max() > 1e-3


def test_every_trained_part_gets_gradient_and_a_frozen_image_q_former_none():
    for trained in (True, False):
        temporal = build(train_image_qformer=trained).train()
        read(temporal, *films((4, 2))).square().sum().backward()
        image = [*temporal.image_qformer.parameters(), temporal.image_queries]
        assert all((p.grad is not None) == trained for p in image)
        assert all(p.grad is not None for p in temporal.time_qformer.parameters())
        assert temporal.time_table.weight.grad.abs().sum(1).bool().all()
        assert temporal.image_qformer.training == trained
        assert temporal.time_qformer.training


def test_at_full_width_it_has_video_llamas_shapes_and_counts():
    with torch.device("meta"):
        temporal = VideoQFormer(visual_width=1408, vocab_size=0, train_image_qformer=False)
        tokens = torch.empty(2, 8, 257, 1408)
        state = temporal(tokens, TextTokens(torch.empty(2, 0), None), torch.ones(2, 8).bool())
        assert state.outputs.shape == (2, 8, 32, 768)
        assert temporal.read(state).shape == (2, 32, 768)
        projector = nn.Linear(768, 4096)
    counts = [sum(p.numel() for p in part.parameters()) for part in
              (temporal.time_qformer, temporal.time_table, projector)]  # fmt: skip
    assert counts == [18_905_088, 24_576, 3_149_824]
    trained = sum(p.numel() for p in temporal.parameters() if p.requires_grad)
    assert trained + counts[2] == 22_104_064


@pytest.mark.parametrize("overrides", [["fusion=prompt_to_visual"], ["fusion=bidirectional"]])
def test_a_fusion_that_reads_the_guide_is_refused(overrides):
    with pytest.raises(
        InstantiationException, match=r"reads words through the Q-Former, but VideoQFormer"
    ):
        tiny_backbone("temporal=video_qformer", *overrides)


def test_an_alignment_behind_single_layers_is_refused():
    with pytest.raises(
        InstantiationException, match=r"level cross .* choose alignment.levels=\[low,high\]"
    ):
        tiny_backbone("temporal=video_qformer", "alignment.levels=[low,high,cross]")
