"""Pictures of a report for pages that take pixels alone."""

import numpy as np
import pytest
from explanations import explanation

from mmavlm.report import Confusion, SampleAnswer, Similarity
from mmavlm.report.pictures import (
    WIDTH_IN,
    confusion_picture,
    explanation_picture,
    largest,
    sample_picture,
    similarity_picture,
    strip,
)

WHITE = (255, 255, 255)
SHADES = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def sample(frames=3, **changes):
    settings = {
        "task": "genre", "video_id": "film", "prompt": "what is the genre?", "answers": ["horror"],
        "probabilities": [0.75], "truth": "horror",
        "frames": [np.full((40, 60, 3), shade, np.uint8) for shade in SHADES[:frames]],
    }  # fmt: skip
    return SampleAnswer(**{**settings, **changes})


def cosines(films=3, levels=("low", "high"), texts=None):
    texts = texts or [f"text {n}" for n in range(films)]
    words = np.array(texts)
    matrix = np.linspace(-1, 1, films * films, dtype=np.float32).reshape(films, films)
    names = [f"film {n}" for n in range(films)]
    return Similarity(names, texts, dict.fromkeys(levels, matrix), words[:, None] == words)


def test_frames_stand_side_by_side_in_their_order_with_white_between():
    joined = strip(sample().frames)
    assert joined.shape == (40, 3 * 60 + 2, 3)
    middles = [tuple(joined[20, 30 + 61 * n]) for n in range(3)]
    assert middles == list(SHADES)
    assert tuple(joined[20, 60]) == WHITE


def test_a_sample_shows_its_strip_above_its_words():
    shown = sample_picture(sample())
    middles = [tuple(shown[40, shown.shape[1] * part // 6]) for part in (1, 3, 5)]
    assert middles == list(SHADES)
    words = shown[-100:]
    assert words.min() < 100
    assert tuple(words[-1, -1]) == WHITE


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_few_frames_make_no_picture_that_is_wider_or_much_higher(frames):
    height, width, _ = sample_picture(sample(frames)).shape
    assert width == WIDTH_IN * 120
    assert height <= 400


@pytest.mark.parametrize(
    "changes",
    [
        {"answers": [], "probabilities": []},
        {"answers": [""], "probabilities": [1.0]},
        {"prompt": "$\\frac{1$ <b> " + "long " * 200, "truth": "", "answers": ["x" * 900]},
        {"references": ["horror", "terror"]},
    ],
)
def test_texts_of_any_kind_are_drawn(changes):
    assert sample_picture(sample(**changes)).shape[0] < 600


def test_a_right_answer_is_green_and_a_wrong_one_red():
    def colours(answer):
        words = sample_picture(sample(0, answers=[answer])).reshape(-1, 3).astype(int)
        return {
            "red": (words[:, 0] - words[:, 1]).max(),
            "green": (words[:, 1] - words[:, 0]).max(),
        }

    right, wrong = colours("horror"), colours("comedy")
    assert right["green"] > 80 > right["red"]
    assert wrong["red"] > 80 > wrong["green"]


def test_the_cells_of_a_confusion_are_as_dark_as_their_shares():
    counts = np.array([[8, 0, 0], [2, 2, 0]])
    shown = confusion_picture(Confusion("genre", ["horror", "comedy"], counts, left_out=3))
    dark = (shown.sum(axis=2) < 200).mean()
    even = confusion_picture(Confusion("genre", ["horror", "comedy"], np.zeros((2, 3), np.int64)))
    assert dark > (even.sum(axis=2) < 200).mean() + 0.05


def test_the_largest_classes_keep_their_counts_and_nothing_is_lost():
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 9, (7, 8))
    counts[3] += 40
    whole = Confusion("coin", [f"class {n}" for n in range(7)], counts, left_out=2)
    few = largest(whole, 3)
    kept = [int(name.split()[1]) for name in few.classes]
    assert 3 in kept
    assert kept == sorted(kept)
    assert np.array_equal(few.counts[:, :-1], counts[np.ix_(kept, kept)])
    assert np.array_equal(few.counts.sum(axis=1), counts[kept].sum(axis=1))
    assert few.counts.sum() + few.left_out == counts.sum() + 2
    assert "3 most frequent of 7 classes" in few.title
    assert largest(whole, 7) is whole


@pytest.mark.parametrize("films", [1, 2, 16])
@pytest.mark.parametrize("levels", [("low",), ("low", "high", "cross", "joint")])
def test_a_map_of_each_level_stands_beside_the_other(films, levels):
    height, width, _ = similarity_picture(cosines(films, levels)).shape
    assert height >= 4 * 120
    assert width >= len(levels) * 3 * 120


def test_texts_of_the_same_words_are_framed_with_each_other():
    def framed(texts):
        shown = similarity_picture(cosines(3, ("low",), texts)).astype(int)
        return ((shown[..., 0] > 200) & (shown[..., 2] < 90)).sum()

    assert framed(["a", "a", "b"]) > framed(["a", "b", "c"]) > 0


def test_similarities_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"low must have a row a film .*\(1, 2\), got \(2, 2\)"):
        Similarity(["film"], ["a", "b"], {"low": np.zeros((2, 2), np.float32)},
                   np.ones((1, 2), bool))  # fmt: skip


def test_an_explanation_is_the_picture_of_the_report():
    height, width, colours = explanation_picture(explanation()).shape
    assert (width, colours) == (9 * 120, 3)
    assert height > 400
