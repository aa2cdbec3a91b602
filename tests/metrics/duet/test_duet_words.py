"""What scores of watched films are called."""

import pytest
from duet_films import truth, watched

from mmavlm.metrics.duet.choosing import Chosen
from mmavlm.metrics.duet.dense_captions import COLUMNS
from mmavlm.metrics.duet.film_metrics import Grounding, Highlights, InSpanScore, Speaking
from mmavlm.metrics.duet.grounding import Cut
from mmavlm.metrics.duet.watched import HighlightTruth
from mmavlm.metrics.headline import every_score
from mmavlm.metrics.words import MEANINGS

FILM, TRUE = watched("q0", [0, 1, 1, 0], replies=((1, "a"),)), truth("q0", (1, 2, "a"))
CLIPS = HighlightTruth("q0", "v", 4.0, (0,), ((4, 4, 4),))


@pytest.mark.parametrize(
    ("metric", "taken"),
    [
        (Grounding(Chosen(Cut(0, 0.5))), (TRUE,)),
        (Highlights(Chosen(0)), (CLIPS,)),
        (Speaking(), (TRUE,)),
        (InSpanScore(), (TRUE, {})),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_score_is_told_in_words_within_its_bounds(metric, taken):
    more = taken[1:]
    metric.update([None if more else FILM], [taken[0]], *more)
    scores = every_score({f"task/{name}": value for name, value in metric.compute().items()})
    assert {score.kind for score in scores} <= MEANINGS.keys()
    assert all(score.low <= score.value <= score.high for score in scores if score.interval)
    assert all(score.items == 1 for score in scores)


def test_every_score_of_captions_is_told_in_words():
    assert MEANINGS.keys() >= set(COLUMNS)
