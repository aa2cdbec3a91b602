"""Heads that score frames."""

import pytest
import torch
import torch.nn.functional as F

from mmavlm.core.errors import ConfigError
from mmavlm.core.streams import IGNORED
from mmavlm.model.heads import FrameHeads, label_tensor

NAMES = ("informative", "relevance")


def made(frames=12, seed=0):
    torch.manual_seed(seed)
    heads = FrameHeads(NAMES, 8)
    labels = torch.randint(0, 2, (frames, 2))
    labels[::3, 0] = IGNORED
    return heads, torch.randn(frames, 8), labels


def test_the_loss_is_one_mean_over_the_labels_of_all_heads():
    heads, hidden, labels = made()
    found = [
        F.cross_entropy(layer(hidden[n : n + 1]), labels[n : n + 1, s])
        for s, layer in enumerate(heads.layers.values())
        for n in range(len(hidden))
        if labels[n, s] != IGNORED
    ]
    torch.testing.assert_close(heads.loss(hidden, labels), torch.stack(found).mean())


def test_balanced_both_labels_of_a_head_weigh_the_same():
    heads, hidden, labels = made()
    labels[:, 1] = IGNORED
    known = labels[:, 0] != IGNORED
    each = F.cross_entropy(heads.layers["informative"](hidden), labels[:, 0].clamp(min=0),
                           reduction="none")  # fmt: skip
    means = [each[known & (labels[:, 0] == value)].mean() for value in (0, 1)]
    expected = torch.stack(means).mean()
    torch.testing.assert_close(heads.loss(hidden, labels, balanced=True), expected)


def test_every_head_that_has_labels_learns_and_no_other():
    heads, hidden, labels = made()
    labels[:, 1] = IGNORED
    heads.loss(hidden, labels).backward()
    assert heads.layers["informative"].weight.grad.abs().sum() > 0
    assert heads.layers["relevance"].weight.grad.abs().sum() == 0


def test_without_a_label_the_loss_is_0_and_has_a_gradient():
    heads, hidden, labels = made()
    loss = heads.loss(hidden, torch.full_like(labels, IGNORED), balanced=True)
    loss.backward()
    assert loss.item() == 0
    assert all(float(p.grad.abs().sum()) == 0 for p in heads.parameters())


def test_a_score_is_the_probability_of_1():
    heads, hidden, _ = made()
    expected = torch.stack([F.softmax(layer(hidden), -1)[:, 1] for layer in heads.layers.values()])
    torch.testing.assert_close(heads.scores(hidden), expected.T)


def test_calibrated_scores_are_others_in_the_same_order():
    heads, hidden, labels = made(frames=200)
    before, loss = heads.scores(hidden), heads.loss(hidden, labels)
    heads.calibrate("relevance", 3.0, -2.0)
    after = heads.scores(hidden)
    expected = (heads.margins(hidden)[:, 1] / 3 - 2).sigmoid()
    torch.testing.assert_close(after[:, 1], expected)
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.equal(after[:, 1].argsort(), before[:, 1].argsort())
    assert torch.equal(heads.loss(hidden, labels), loss)


def test_calibration_is_nothing_that_an_optimizer_trains():
    heads, *_ = made()
    assert {name for name, _ in heads.named_parameters()} == {f"layers.{n}.weight" for n in NAMES}
    assert {*heads.fitted} <= {*dict(heads.named_buffers())}


def test_a_frame_without_a_label_of_a_head_is_ignored():
    labels = label_tensor(NAMES, [{"relevance": 1}, {}, {"informative": 0}], torch.device("cpu"))
    assert labels.tolist() == [[IGNORED, 1], [IGNORED, IGNORED], [0, IGNORED]]
    assert label_tensor(NAMES, [], torch.device("cpu")).shape == (0, 2)


@pytest.mark.parametrize("names", [[], ["relevance", "relevance"]])
def test_heads_without_names_of_their_own_are_refused(names):
    with pytest.raises(ConfigError, match="a name of its own"):
        FrameHeads(names, 8)
