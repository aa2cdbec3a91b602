"""Captions are scored as the library scores them on its own reference path."""

import math
import random

import pytest
import torch

pytest.importorskip("pycocoevalcap", reason="needs the extra [captions]")

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from mmavlm.core.errors import ConfigError
from mmavlm.metrics import CaptionScores, check_monitor, left_out, score_captions
from mmavlm.metrics import caption_words as words
from mmavlm.metrics import captions as module
from mmavlm.metrics.caption_statistics import bleu_of_sums

JAVA = words.java()
needs_java = pytest.mark.skipif(JAVA is None, reason="there is no java command")

REFERENCES = [
    ["A man is cutting an onion.", "someone's slicing onions", "the cook chops an onion"],
    ["two dogs don't play in the grass", "A dog is running, and barking!"],
    ["a woman rides a horse (brown)", "a girl is riding a horse", "horse riding"],
    ["a cat plays the piano", "A cat's playing a piano."],
]
CAPTIONS = [
    "a man is slicing an onion",
    "the dogs aren't playing in grass",
    "a horse",
    "a cat plays the piano",
]


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR takes ten seconds to start: tests say when they need Java."""
    monkeypatch.setattr(module, "java", lambda: None)


@pytest.fixture
def with_java(monkeypatch):
    monkeypatch.setattr(module, "java", lambda: JAVA)


def by_number(texts):
    return {i: [{"caption": text} for text in group] for i, group in enumerate(texts)}


@pytest.fixture(scope="module")
def reference_path():
    """COCO's evaluation as its authors run it: tokenizer, then each scorer."""
    tokenizer = PTBTokenizer()
    wanted = tokenizer.tokenize(by_number(REFERENCES))
    given = tokenizer.tokenize(by_number([text] for text in CAPTIONS))
    bleu, _ = Bleu(4).compute_score(wanted, given, verbose=0)
    whole, each = Meteor().compute_score(wanted, given)
    return each, {
        "cider": Cider().compute_score(wanted, given)[0],
        "meteor": whole,
        "bleu4": bleu[3],
        "rouge_l": Rouge().compute_score(wanted, given)[0],
    }


@needs_java
@pytest.mark.slow
def test_scores_are_those_of_the_librarys_reference_path(reference_path, with_java):
    each, expected = reference_path
    scores = score_captions(CAPTIONS, REFERENCES)
    assert {n: scores[n].value for n in expected} == pytest.approx(expected, rel=1e-9)
    assert all(value > 0 for value in expected.values())
    ours = scores["meteor"].score(scores["meteor"].statistics)
    assert ours.tolist() == pytest.approx(each, rel=1e-9)


def test_cider_of_two_items_equals_the_sum_done_by_hand():
    # Of two items, an n-gram of one alone weighs log 2, one of both 0. Item 1: the caption shares
    # "cat" of its two rare words "black", "cat" and no longer n-gram: cosine 1/(√2·1) for 1-grams.
    # The length penalty is exp(−1/72): 2 and 1 in 2-grams. Item 2 is its reference.
    captions, references = ["a black cat", "a dog"], [["a cat"], ["a dog"]]
    one_gram = (1 / math.sqrt(2)) * math.exp(-1 / 72)
    by_hand = [10 * one_gram / 4, 10 * (1 + 1) / 4]
    scored = score_captions(captions, references)["cider_plain"]
    assert scored.statistics[:, 0].tolist() == pytest.approx(by_hand)
    assert scored.value == pytest.approx(sum(by_hand) / 2)


def test_bleu_of_sums_equals_the_library_on_random_captions():
    draw = random.Random(0)
    for _ in range(20):
        captions = [" ".join(draw.choices("abc", k=draw.randint(0, 7))) for _ in range(6)]
        references = [
            [" ".join(draw.choices("abc", k=draw.randint(1, 7))) for _ in range(2)]
            for _ in captions
        ]
        wanted = dict(enumerate(references))
        given = {i: [text] for i, text in enumerate(captions)}
        expected, _ = Bleu(4).compute_score(wanted, given, verbose=0)
        scored = score_captions(captions, references)["bleu4_plain"]
        assert scored.value == pytest.approx(expected[3], rel=1e-6, abs=1e-12)
        assert scored.score is bleu_of_sums


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop!", "do n't stop"),
        ("the man's t-shirt, (1/2 clean)", "the man 's t-shirt 1/2 clean"),
        ("  A  café...\n", "a café"),
        ("", ""),
    ],
)
def test_plain_words_are_cut_as_in_the_treebank(text, expected):
    assert words.plain_words([text]) == [expected]


@needs_java
def test_captions_of_real_sets_are_cut_alike_with_and_without_java(real_data):
    from mmavlm.data.readers.malmm import read_references

    captions, _ = read_references(real_data / "msvd/annotation/coco_gt/cap_val.json")
    texts = [text for group in captions.values() for text in group]
    assert len(texts) > 4000
    assert words.plain_words(texts) == words.ptb_words(texts)


@needs_java
def test_a_line_end_within_a_caption_moves_no_other_caption():
    texts = ["a cat\u2028sits", "naïve\ncafé", "", "a ||| dog", "end"]
    assert words.ptb_words(texts) == ["a cat sits", "naïve café", "", "a | | | dog", "end"]


def test_without_java_the_published_scores_are_left_out_and_the_word_says_what_to_install():
    scores = score_captions(CAPTIONS, REFERENCES)
    assert set(scores) == {"cider_plain", "bleu4_plain", "rouge_l_plain"}
    assert "install Java 8 or newer" in left_out()
    assert "cider, meteor, bleu4, rouge_l are left out" in left_out()


def test_without_the_library_no_caption_is_scored_and_the_word_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "library", lambda: None)
    assert score_captions(CAPTIONS, REFERENCES) == {}
    assert "pip install 'mmavlm[captions]'" in left_out()
    with pytest.raises(ConfigError, match=r"stage\.monitor=val/cider_plain cannot be computed"):
        check_monitor("val/cider_plain")


def test_java_that_fails_costs_its_scores_and_no_more(monkeypatch, tmp_path, caplog):
    broken = tmp_path / "java"
    broken.write_text("#!/bin/sh\necho no runtime >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(module, "java", lambda: str(broken))
    monkeypatch.setattr(words, "java", lambda: str(broken))
    scores = score_captions(CAPTIONS, REFERENCES)
    assert set(scores) == {"cider_plain", "bleu4_plain", "rouge_l_plain"}
    assert "because Java failed: exit code 3; it said: no runtime" in caplog.text


def test_a_monitor_that_needs_java_is_refused_without_it():
    check_monitor("val/cider_plain")
    check_monitor("val/accuracy")
    with pytest.raises(ConfigError, match=r"stage\.monitor=val/caption/meteor .* install Java 8"):
        check_monitor("val/caption/meteor")


def feed(metric, order, size):
    for start in range(0, len(order), size):
        part = order[start : start + size]
        metric.update(
            [f"i{i}" for i in part],
            [f"v{i // 2}" for i in part],
            [CAPTIONS[i] for i in part],
            [REFERENCES[i] for i in part],
        )
    return metric.compute()


def test_order_batches_and_repeated_items_change_no_score_and_no_interval():
    expected = feed(CaptionScores(), [0, 1, 2, 3], 4)
    assert feed(CaptionScores(), [2, 0, 3, 1, 2, 0], 1) == expected
    assert expected["count"] == 4
    for name in ("cider_plain", "bleu4_plain", "rouge_l_plain"):
        low, value, high = (expected[f"{name}{end}"] for end in ("_low", "", "_high"))
        assert low <= value <= high
        assert low < high


def test_without_items_there_is_a_count_and_no_score():
    metric = CaptionScores()
    metric.update([], [], [], [])
    assert metric.compute() == {"count": 0.0}


def test_an_empty_caption_is_scored_and_scores_nothing():
    scores = score_captions(["", "a cat"], [["a dog"], ["a cat"]])
    assert scores["cider_plain"].statistics[0, 0] == 0
    assert torch.isfinite(scores["bleu4_plain"].score(scores["bleu4_plain"].statistics)).all()
