import math
import random
from collections import defaultdict

import pytest

from mmavlm.core.errors import DataError
from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction
from mmavlm.metrics.planted_bias import SCORES, bias_scores

PAIRS = {"plant": "bin", "clock": "mirror"}
PARTNER = PAIRS | {companion: anchor for anchor, companion in PAIRS.items()}


def pair_of(item_id):
    name = item_id.rpartition("_")[2]
    return name if name in PAIRS else PARTNER[name]


def asked(film, name, shown, said):
    there = name in shown
    likely = "likely" if PARTNER[name] in shown else "unlikely"
    return Prediction(
        item_id=f"film{film}_{name}",
        video_id=f"film{film}.mp4",
        task=f"{'present' if there else 'absent'}_{likely}",
        prompt="is it there?",
        truth="yes" if there else "no",
        answers=[Answer(said, -1.0)],
        ranking=[],
        references=["yes" if there else "no"],
    )


def answered(answer, films=40, seed=0):
    """Predictions for films with random objects; `answer` takes (name, shown)."""
    draw = random.Random(seed)
    rows = []
    for film in range(films):
        shown = {name for name in PARTNER if draw.random() < 0.5}
        rows += [asked(film, name, shown, answer(name, shown)) for name in PARTNER]
    return rows


def values(rows):
    return {
        n: float(s.score(s.statistics.sum(dim=0))) for n, s in bias_scores(rows, pair_of).items()
    }


def by_hand(rows):
    """The scores, one question after another."""
    said = {row.item_id: row.answers[0].text for row in rows}
    share = defaultdict(list)
    for row in rows:
        yes = said[row.item_id] == "yes"
        share["accuracy"].append(said[row.item_id] == row.truth)
        share["yes_ratio"].append(yes)
        if row.truth == "no":
            share[f"false_yes_{row.task.partition('_')[2]}"].append(yes)
        if row.task == "present_unlikely":
            film, _, name = row.item_id.rpartition("_")
            share["both"].append(yes and said[f"{film}_{PARTNER[name]}"] == "no")
    means = {name: sum(cases) / len(cases) for name, cases in share.items()}
    means["habit"] = means["false_yes_likely"] - means["false_yes_unlikely"]
    means["calibration_error"] = abs(means["accuracy"] - math.exp(-1))  # all are as sure
    return means


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_a_count_by_hand(seed):
    draw = random.Random(seed)
    rows = answered(lambda name, shown: draw.choice(["yes", "no", "maybe"]), seed=seed)
    found = values(rows)
    assert found.keys() == SCORES.keys()
    assert found == pytest.approx(by_hand(rows))


def test_a_model_that_answers_by_habit_alone_says_yes_where_the_partner_is():
    found = values(answered(lambda name, shown: "yes" if PARTNER[name] in shown else "no"))
    assert (found["false_yes_likely"], found["false_yes_unlikely"], found["habit"]) == (1, 0, 1)
    assert found["both"] == 0


def test_a_model_that_looks_has_no_habit():
    found = values(answered(lambda name, shown: "yes" if name in shown else "no"))
    assert (found["accuracy"], found["both"], found["habit"]) == (1, 1, 0)


def test_a_model_that_always_says_yes_has_no_habit_but_false_answers():
    found = values(answered(lambda name, shown: "Yes, there is."))
    assert (found["yes_ratio"], found["both"], found["habit"]) == (1, 0, 0)
    assert found["false_yes_likely"] == 1


def test_a_question_of_another_set_is_refused():
    row = asked(0, "plant", {"plant"}, "yes")
    with pytest.raises(DataError, match="item 'film0_plant' of task 'genre' is no answered"):
        bias_scores([Prediction(**{**vars(row), "task": "genre"})], pair_of)
