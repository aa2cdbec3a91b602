import pytest
import torch
from torch.nn import functional as F

from mmavlm.core.errors import ConfigError
from mmavlm.model.alignment import (
    Aligned,
    FirstK,
    MultiLevelAlignment,
    SigmoidLoss,
    Temperature,
    equal_texts_info_nce,
    info_nce,
)
from mmavlm.model.alignment.levels import mean_of, of_films, pool

B, N_FRAMES, P, DV, K, D = 5, 3, 4, 12, 6, 8
TEXTS = [
    "what is shown a cat",
    "what is shown a dog",
    "who talks a cat",
    "a b",
    "what is shown a cat",
]


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(B, N_FRAMES, P, DV, generator=generator)
    outputs = torch.randn(B, N_FRAMES, K, D, generator=generator)
    mask = torch.arange(N_FRAMES) < torch.tensor([[3], [1], [2], [3], [3]])
    return Aligned(tokens, outputs, mask), TEXTS


def build(text_encoder, **settings) -> MultiLevelAlignment:
    torch.manual_seed(0)
    return MultiLevelAlignment(text_encoder, DV, D, **{"embed_dim": 16, **settings})


def test_level_losses_equal_the_equation_written_out(text_encoder, inputs):
    films, texts = inputs
    tokens, outputs, mask = films.frame_tokens, films.query_outputs, films.mask
    alignment = build(text_encoder, temperature=Temperature(0.1))
    losses = alignment(films, texts)
    sentences = text_encoder(texts)
    for level, source in (("low", tokens), ("high", outputs)):
        videos = [
            torch.stack(
                [source[b, f, n] for f in range(mask[b].sum()) for n in range(source.shape[2])]
            )
            for b in range(B)
        ]
        f_v = [alignment.video_projections[level](video.mean(dim=0)) for video in videos]
        f_t = [alignment.text_projections[level](sentence) for sentence in sentences]
        expected = 0.0
        for i in range(B):
            scores = [F.cosine_similarity(f_v[i], t, dim=0) / 0.1 for t in f_t]
            expected -= (scores[i].exp() / sum(score.exp() for score in scores)).log() / B
        torch.testing.assert_close(losses[level], expected)


def test_features_are_of_unit_norm_and_those_the_loss_is_made_of(text_encoder, inputs):
    alignment = build(text_encoder, temperature=Temperature(0.07))
    losses = alignment(*inputs)
    for level, (video, text) in of_films(alignment.features(*inputs)).items():
        assert video.shape == text.shape == (B, 16)
        torch.testing.assert_close(video.norm(dim=1), torch.ones(B))
        torch.testing.assert_close(text.norm(dim=1), torch.ones(B))
        torch.testing.assert_close(losses[level], info_nce(video @ text.T / 0.07))


def test_padded_frames_change_neither_features_nor_gradients(text_encoder, inputs):
    films, texts = inputs
    tokens, outputs, mask = films.frame_tokens, films.query_outputs, films.mask
    poisoned = [torch.where(mask[:, :, None, None], x, torch.nan) for x in (tokens, outputs)]
    gradients = []
    for source in ((tokens, outputs), poisoned):
        alignment = build(text_encoder)
        alignment.zero_grad()
        torch.stack(list(alignment(Aligned(*source, mask), texts).values())).sum().backward()
        gradients.append([p.grad.clone() for p in alignment.parameters()])
    for expected, actual in zip(*gradients, strict=True):
        assert torch.equal(expected, actual)


def test_a_row_has_the_same_features_alone_as_in_a_batch(text_encoder, inputs):
    films, texts = inputs
    tokens, outputs, mask = films.frame_tokens, films.query_outputs, films.mask
    alignment = build(text_encoder)
    together = of_films(alignment.features(*inputs))
    for b in range(B):
        real = mask[b]
        row = Aligned(tokens[b : b + 1, real], outputs[b : b + 1, real], mask[b : b + 1, real])
        alone = of_films(alignment.features(row, [texts[b]]))
        for level in alignment.levels:
            torch.testing.assert_close(alone[level][0][0], together[level][0][b])
            torch.testing.assert_close(alone[level][1][0], together[level][1][b])


@pytest.mark.parametrize("level", ["low", "high"])
def test_one_level_alone_looks_at_its_own_source_only(text_encoder, inputs, level):
    films, texts = inputs
    tokens, outputs, mask = films.frame_tokens, films.query_outputs, films.mask
    alignment = build(text_encoder, levels=[level])
    losses = alignment(films, texts)
    other = (tokens, outputs + 1) if level == "low" else (tokens + 1, outputs)
    assert list(losses) == [level]
    assert torch.equal(alignment(Aligned(*other, mask), texts)[level], losses[level])


def test_equal_texts_reach_the_loss(text_encoder, inputs):
    seen = []

    def loss(logits, equal):
        seen.append(equal)
        return equal_texts_info_nce(logits, equal)

    build(text_encoder, loss=loss)(*inputs)
    expected = torch.tensor([[a == b for a in TEXTS] for b in TEXTS])
    assert len(seen) == 2
    assert all(torch.equal(equal, expected) for equal in seen)


def test_every_part_learns(text_encoder, inputs):
    alignment = build(
        text_encoder, loss=SigmoidLoss(), temperature=Temperature(0.1, learnable=True)
    )
    names = {name for name, _ in alignment.named_parameters()}
    assert {"temperature.log_scale", "loss.bias", "text_encoder.embed.weight"} <= names
    torch.stack(list(alignment(*inputs).values())).sum().backward()
    assert [n for n, p in alignment.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_training_draws_films_and_their_texts_together(text_encoder, inputs):
    films, _ = inputs
    texts = ["one", "two", "three", "four", "five"]
    alignment = build(text_encoder)
    optimizer = torch.optim.Adam(alignment.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.stack(list(alignment(films, texts).values())).sum().backward()
        optimizer.step()
    for video, text in of_films(alignment.features(films, texts)).values():
        assert (video @ text.T).argmax(dim=1).tolist() == list(range(B))


def test_similarities_keep_single_precision_under_autocast(text_encoder, inputs):
    alignment = build(text_encoder, temperature=Temperature(0.01))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = alignment(*inputs)
        features = of_films(alignment.features(*inputs))
    for level, (video, text) in features.items():
        assert video.dtype == text.dtype == losses[level].dtype == torch.float32
        torch.testing.assert_close(losses[level], info_nce(video @ text.T * 100))


def test_pool_means_over_tokens_of_real_frames_in_single_precision():
    tokens = torch.full((1, 2, 4096, 1), 1.0, dtype=torch.bfloat16)
    tokens[0, 0, ::2] = 1.0078125
    mean = pool(mean_of(tokens), torch.tensor([[True, False]]))
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(1.00390625, abs=1e-7)


def test_three_frames_and_two_levels_are_the_default(text_encoder):
    alignment = build(text_encoder)
    assert alignment.frames == FirstK(3)
    assert alignment.levels == ("low", "high")


@pytest.mark.parametrize("levels", [[], ["middle"], ["low", "low"], ["high", "text"]])
def test_other_levels_are_refused(text_encoder, levels):
    with pytest.raises(ConfigError, match=r"alignment.levels is .*name one or more of .*each once"):
        build(text_encoder, levels=levels)
