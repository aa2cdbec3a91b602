"""Scores of frames beside their labels."""

import pytest
import torch

from mmavlm.metrics.duet.labelled_frames import LabelledFrames

NAMES = ["a/0", "a/1", "b/0"]
SCORES, LABELS = torch.tensor([0.1, 0.7, 0.3]), torch.tensor([0, 1, 1])


def test_each_frame_keeps_its_score_and_label_however_often_it_is_seen():
    metric = LabelledFrames()
    metric.update(NAMES, SCORES, LABELS)
    metric.update(NAMES[1:], SCORES[1:], LABELS[1:])
    scores, labels = metric.compute()
    found = sorted(zip(scores.tolist(), labels.tolist(), strict=True))
    assert found == sorted(zip(SCORES.tolist(), LABELS.tolist(), strict=True))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_a_frame_there_is_nothing():
    scores, labels = LabelledFrames().compute()
    assert (len(scores), len(labels)) == (0, 0)


def test_a_frame_without_a_label_of_its_own_is_refused():
    with pytest.raises(ValueError, match="LabelledFrames: one entry an item"):
        LabelledFrames().update(NAMES, SCORES, LABELS[:2])
