"""A step that learns from some frames of a film, drawn."""

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError
from mmavlm.model.heads import label_weights
from mmavlm.model.llm.stream_rows import FrameAt, frames_shown, last_of_streams
from mmavlm.movies.duet_set import DuetSettings, make_duet_set
from mmavlm.run.build import build_backbone
from mmavlm.stages import Duet, OptimizerRecipe
from mmavlm.stages.drawn_frames import drawn, factors_of, shares
from mmavlm.stages.watched_frames import labels_of_frames
from support import composed

WEIGHTS = st.lists(st.sampled_from([0.0, 0.1, 1.0, 30.0]), min_size=1, max_size=12)


@given(WEIGHTS, st.integers(1, 5), st.integers(0, 2**31))
def test_so_many_are_drawn_of_those_that_weigh_something(weights, count, seed):
    weights = torch.tensor(weights, dtype=torch.float64)
    torch.manual_seed(seed)
    share = shares(weights, count)
    picked = drawn(share)
    assert picked.sum() == min(count, (weights > 0).sum())
    assert not picked[weights == 0].any()
    assert picked[share == 1].all()
    below = share < 1
    ratio = share[below & (weights > 0)] / weights[below & (weights > 0)]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_each_is_drawn_as_often_as_its_share_says():
    share = shares(torch.tensor([0.0, 1.0, 2.0, 3.0, 50.0], dtype=torch.float64), 3)
    torch.manual_seed(0)
    often = torch.stack([drawn(share) for _ in range(4000)]).double().mean(dim=0)
    torch.testing.assert_close(often, share, atol=0.03, rtol=0)


def test_weights_are_expected_to_stay_as_they_are():
    frames = [FrameAt(talk, 1, n) for talk in (0, 1) for n in range(9)]
    weights = torch.rand(18, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    found = torch.stack([factors_of(frames, weights, 2) * weights for _ in range(2000)])
    torch.testing.assert_close(found.mean(dim=0).float(), weights, atol=0.1, rtol=0)
    assert ((found > 0).sum(dim=1) == 2 * (2 + 1)).all()  # two of each film, and its last


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_duet_set(tmp_path_factory.mktemp("duet"), DuetSettings(films=10, size=32))


@pytest.fixture(scope="module")
def learning(films):
    """A stage that reads a memory, and a batch to learn from."""
    settings = ["experiment=duet_movies_memory", "data.num_frames=12", "data.batch_size=2",
                "data.sample_fps=1", "llm.width=32", f"data.root={films}"]  # fmt: skip
    config = composed(*settings)
    torch.manual_seed(0)
    stage = Duet(build_backbone(config), OptimizerRecipe())
    data = instantiate(config.data)
    data.image_size = 64
    data.setup("fit")
    return stage, next(iter(data.train_dataloader()))


@pytest.fixture
def counted(learning, monkeypatch):
    """The stage and its batch, and how many rows its LLM has read, call by call."""
    stage, batch = learning
    rows = []
    hook = stage.backbone.llm.model.register_forward_pre_hook(
        lambda _, __, given: rows.append(len(given["inputs_embeds"])), with_kwargs=True
    )
    yield stage, batch, rows
    stage.frames_a_film = None
    hook.remove()


def test_there_are_as_many_rows_as_were_asked_for_and_all_by_default(counted):
    stage, batch, rows = counted
    frames = frames_shown(batch.conversations)
    with torch.no_grad():
        for count in (None, 1, 2, 100):
            stage.frames_a_film = count
            stage.losses(batch)
    everything = len(batch) + len(frames) - len(last_of_streams(frames))
    assert rows == [everything, len(batch) * 2, len(batch) * 3, everything]


def test_the_loss_is_expected_to_be_that_of_all_frames(counted):
    stage, batch, _ = counted
    with torch.no_grad():
        whole = stage.losses(batch)
        stage.frames_a_film = 2
        torch.manual_seed(0)
        found = [stage.losses(batch) for _ in range(60)]
    heads = torch.stack([losses["heads"] for losses in found])
    assert heads.std() > 0
    error = heads.std() / len(found) ** 0.5
    assert abs(heads.mean() - whole["heads"]) < 4 * error < 0.2 * whole["heads"]
    for losses in found:
        torch.testing.assert_close(losses["text"], whole["text"])


def test_words_and_heads_keep_their_gradient(counted):
    stage, batch, _ = counted
    stage.frames_a_film = 1
    losses = stage.losses(batch)
    output = stage.backbone.llm.model.get_output_embeddings().weight
    for term, weight in (("text", output), ("heads", stage.heads.layers["informative"].weight)):
        (gradient,) = torch.autograd.grad(losses[term], weight, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_with_all_frames_the_loss_is_that_of_the_heads(learning):
    stage, batch = learning
    with torch.no_grad():
        read = stage.backbone.read_streams(batch)
        labels = labels_of_frames(batch, read.frames, stage.heads.names)
        expected = stage.heads.loss(read.hidden, labels, balanced=True)
        torch.testing.assert_close(stage.losses(batch)["heads"], expected)
    assert label_weights(labels, balanced=True).sum() == pytest.approx(1)


def test_where_one_row_holds_all_frames_none_are_drawn(films):
    backbone = build_backbone(composed("experiment=duet_movies", f"data.root={films}"))
    with pytest.raises(ConfigError, match=r"with EveryFrame one row holds all frames .* null"):
        Duet(backbone, OptimizerRecipe(), frames_a_film=2)
