import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mmavlm.metrics import RetrievalRecall, retrieval_recall
from mmavlm.metrics import retrieval as module


def features(size: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(2, size, 6, generator=generator), dim=-1)


def names(size: int, texts: int) -> tuple[list[str], list[str]]:
    return [f"item {i}" for i in range(size)], [f"text {i % texts}" for i in range(size)]


def slow_recall(queries, candidates, texts, k: int) -> float:
    hits = 0
    for i, query in enumerate(queries):
        scores = (candidates @ query).tolist()
        best = max(score for score, text in zip(scores, texts, strict=True) if text == texts[i])
        ahead = [s for s, text in zip(scores, texts, strict=True) if text != texts[i] and s >= best]
        hits += len(ahead) < k
    return hits / len(texts)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 6), st.integers(0, 1000))
def test_recall_equals_sorting_by_hand(size, kinds, batch, seed):
    video, text = features(size, seed)
    ids, texts = names(size, kinds)
    metric = RetrievalRecall(ks=(1, 3))
    for start in range(0, size, batch):
        part = slice(start, start + batch)
        metric.update(video[part], text[part], ids[part], texts[part])
    values = metric.compute()
    for k in (1, 3):
        assert values[f"v2t_r{k}"] == pytest.approx(slow_recall(video, text, texts, k))
        assert values[f"t2v_r{k}"] == pytest.approx(slow_recall(text, video, texts, k))
    chance = sum(texts.count(text) / size for text in texts) / size
    assert values["chance_r1"] == pytest.approx(chance)
    assert values["count"] == size


def test_scoring_in_chunks_changes_nothing(monkeypatch):
    video, text = features(23, 0)
    keys = torch.arange(23) % 9
    expected = retrieval_recall(video, text, keys)
    monkeypatch.setattr(module, "_CHUNK", 4)
    assert retrieval_recall(video, text, keys) == expected


def test_features_that_are_all_alike_find_nothing():
    constant = F.normalize(torch.ones(40, 6), dim=-1)
    metric = RetrievalRecall()
    metric.update(constant, constant, *names(40, 40))
    values = metric.compute()
    assert [values[k] for k in ("v2t_r1", "v2t_r5", "t2v_r1", "t2v_r5")] == [0, 0, 0, 0]


def test_matching_features_find_everything():
    video, _ = features(20, 1)
    metric = RetrievalRecall()
    metric.update(video, video, *names(20, 20))
    values = metric.compute()
    assert values["v2t_r1"] == values["t2v_r1"] == 1


def test_a_film_with_the_same_text_is_a_hit():
    video = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    text = video[[1, 0, 2]]  # the first two films find each other's text
    metric = RetrievalRecall()
    metric.update(video, text, ["0", "1", "2"], ["a cat", "a cat", "a dog"])
    assert metric.compute()["v2t_r1"] == 1
    metric.reset()
    metric.update(video, text, ["0", "1", "2"], ["a cat", "a fish", "a dog"])
    assert metric.compute()["v2t_r1"] == pytest.approx(1 / 3)


def test_items_seen_twice_count_once():
    video, text = features(10, 2)
    ids, texts = names(10, 10)
    once, twice = RetrievalRecall(), RetrievalRecall()
    once.update(video, text, ids, texts)
    twice.update(video, text, ids, texts)
    twice.update(video[:4], text[:4], ids[:4], texts[:4])
    assert twice.compute() == once.compute()


def test_features_in_half_precision_are_taken():
    video, _ = features(5, 3)
    metric = RetrievalRecall()
    metric.update(video.bfloat16(), video.bfloat16(), *names(5, 5))
    assert metric.compute()["v2t_r1"] == 1


def test_without_items_recall_is_nan():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was called before the ``update``.*")
        values = RetrievalRecall().compute()
    assert values.pop("count") == 0
    assert set(values) == {"v2t_r1", "v2t_r5", "t2v_r1", "t2v_r5", "chance_r1"}
    assert all(value != value for value in values.values())


def test_features_of_different_shapes_are_refused():
    message = r"both be \(B,E\), got \(2, 3\) and \(2, 4\)"
    with pytest.raises(ValueError, match=message):
        RetrievalRecall().update(torch.ones(2, 3), torch.ones(2, 4), *names(2, 2))


def test_parts_of_different_lengths_are_refused():
    message = r"RetrievalRecall: one entry an item .*'video': 2, .*'item_ids': 3"
    with pytest.raises(ValueError, match=message):
        RetrievalRecall().update(torch.ones(2, 3), torch.ones(2, 3), *names(3, 2))


def test_recall_at_0_is_refused():
    with pytest.raises(ValueError, match=r"ks counts candidates from 1, got \[0\]"):
        RetrievalRecall(ks=(0,))
