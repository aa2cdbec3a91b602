"""Clips of sound, and the queries that look at them."""

import torch
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from mmavlm.core.interfaces import TemporalAggregator, TextTokens
from mmavlm.model.temporal import ClipQFormer

QUERIES, HEARD, WIDTH, CLIPS = 3, 6, 8, 4
SIZES = {"width": WIDTH, "layers": 2, "heads": 2, "hidden_width": 16, "dropout": 0.0}


def build():
    torch.manual_seed(0)
    temporal = ClipQFormer(
        visual_width=HEARD, vocab_size=10, num_query_tokens=QUERIES, max_clip_positions=CLIPS,
        **SIZES,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in temporal.parameters():
            if parameter.ndim > 1:
                parameter.mul_(20)
    return temporal.eval()


def sounds(lengths):
    tokens = torch.randn(len(lengths), CLIPS, 5, HEARD, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(len(lengths), 0, dtype=torch.long)
    mask = torch.arange(CLIPS) < torch.tensor(lengths)[:, None]
    return tokens, TextTokens(nothing, nothing.bool()), mask


@torch.no_grad()
def test_it_computes_what_blip_2s_q_former_gives_for_clips_at_their_positions():
    temporal = build()
    assert isinstance(temporal, TemporalAggregator)
    config = Blip2QFormerConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        encoder_hidden_size=HEARD, cross_attention_frequency=1,
    )  # fmt: skip
    own = Blip2QFormerModel(config).eval()
    own.load_state_dict(temporal.time_qformer.state_dict())
    tokens, guide, mask = sounds([CLIPS, 2])
    state = temporal(tokens, guide, mask)
    for row, length in enumerate((CLIPS, 2)):
        keys = tokens[row, :length] + temporal.time_table.weight[:length, None]
        expected = own(
            temporal.time_queries, encoder_hidden_states=keys.flatten(0, 1)[None]
        ).last_hidden_state
        found = temporal.read(state)[row : row + 1]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert temporal.mask(state).all()


@torch.no_grad()
def test_a_film_without_sound_gives_no_real_token():
    temporal = build()
    state = temporal(*sounds([2, 0]))
    assert temporal.mask(state).tolist() == [[True], [False]]
    assert temporal.read(state).isfinite().all()


def test_at_full_width_it_has_video_llamas_counts():
    with torch.device("meta"):
        temporal = ClipQFormer(visual_width=1024, vocab_size=0)
        projector = torch.nn.Linear(768, 4096)
    parameters = [*temporal.parameters(), *projector.parameters()]
    assert sum(p.numel() for p in parameters) == 22_855_680
