from dataclasses import replace

import pytest
from predicted import predicted

from mmavlm.core.errors import DataError
from mmavlm.metrics import captions, compare_predictions, paired_mcnemar

A = [predicted(i, ["yes", "no"] if i < 8 else ["no", "yes"]) for i in range(12)]
B = [predicted(i, ["no", "yes"] if i < 6 else ["yes"]) for i in range(2, 14)]


def named(found):
    return {f"{row.task}/{row.score}": row for row in found.differences}


def test_items_are_matched_by_id_whatever_their_order():
    found = compare_predictions(A, B)
    assert (found.common, found.only_in_a, found.only_in_b) == (10, 2, 2)
    assert compare_predictions(A[::-1], B[3:] + B[:3]) == found


def test_answers_that_changed_are_counted_as_their_rule_compares_them():
    a = [predicted(i, ["yes sir"], "yes", compare="first_word") for i in range(4)]
    b = [predicted(i, [text], "yes", compare="first_word")
         for i, text in enumerate(["yes sir", "YES madam", "no sir", ""])]  # fmt: skip
    assert compare_predictions(a, b).changed == 2
    assert compare_predictions(a, a).changed == 0
    ranked = [predicted(i, [], "yes", ranking=order) for i, order in enumerate(["ab", "ba"])]
    assert compare_predictions(ranked, [ranked[0], replace(ranked[1], ranking=ranked[0].ranking)]
                               ).changed == 1  # fmt: skip


def test_accuracy_is_compared_by_mcnemars_test_over_the_common_items():
    top1 = named(compare_predictions(A, B))["qa/top1"]
    right_a = [i < 8 for i in range(2, 12)]
    right_b = [i >= 6 for i in range(2, 12)]
    expected = paired_mcnemar(right_a, right_b)
    assert (top1.only_a, top1.only_b, top1.p_value) == pytest.approx(expected)
    assert (top1.a, top1.b, top1.difference) == pytest.approx((0.6, 0.6, 0))
    assert top1.low < 0 < top1.high
    assert (top1.test, top1.items) == ("McNemar", 10)


def test_top5_and_the_vote_of_a_videos_items_are_compared_too():
    found = named(compare_predictions(A, B))
    assert (found["qa/top5"].a, found["qa/top5"].b) == (1, 1)
    assert found["qa/video_top1"].items == 4
    alone = [replace(row, video_id=row.item_id) for row in A]
    assert "qa/video_top1" not in named(compare_predictions(alone, alone))


def test_votes_of_a_video_are_those_of_the_same_video_in_both_runs():
    a = [predicted(i, ["yes"] if i < 3 else ["no"]) for i in range(6)]
    b = [predicted(i, ["no"] if i < 3 else ["yes"]) for i in range(6)]
    vote = named(compare_predictions(a, b))["qa/video_top1"]
    assert (vote.only_a, vote.only_b) == (1, 1)


def test_rankings_are_compared_where_both_runs_have_them():
    a = [predicted(i, ["no"], ranking=["yes", "no"]) for i in range(6)]
    b = [predicted(i, ["no"], ranking=["no", "yes"]) for i in range(6)]
    found = named(compare_predictions(a, b))
    ranked = found["qa/rank_top1"]
    assert (ranked.difference, ranked.p_value) == pytest.approx((-1, 2 / 2**6))
    assert "qa/rank_top1" not in named(compare_predictions(a, [replace(r, ranking=[]) for r in b]))


def test_the_rule_of_the_rows_is_the_rule_of_the_comparison():
    a = [predicted(i, ["yes it is"], compare="first_word") for i in range(4)]
    b = [predicted(i, ["it is yes"], compare="first_word") for i in range(4)]
    assert named(compare_predictions(a, b))["qa/top1"].difference == -1


def captioned(number, text):
    return predicted(number, [text], f"a cat {number} sits", task="caption", compare="caption",
                     references=[f"the cat {number} is sitting"])  # fmt: skip


def test_captions_are_compared_by_a_permutation_test(monkeypatch):
    pytest.importorskip("pycocoevalcap", reason="needs the extra [captions]")
    monkeypatch.setattr(captions, "java", lambda: None)  # METEOR takes ten seconds to start
    a = [captioned(i, "a dog runs") for i in range(9)]
    b = [captioned(i, f"a cat {i} sits") for i in range(9)]
    found = named(compare_predictions(a, b, samples=500))
    cider = found["caption/cider_plain"]
    assert cider.difference > 0
    assert 0 < cider.low <= cider.difference <= cider.high
    assert cider.test == "permutation"
    # three videos of three items: one exchange in four is as large
    assert cider.p_value == pytest.approx(0.25, abs=0.06)
    assert {"caption/bleu4_plain", "caption/rouge_l_plain"} < set(found)


@pytest.mark.parametrize(
    ("b", "message"),
    [
        ([predicted(99, ["yes"])], "no item in common: 'i0' and 'i99'"),
        ([predicted(0, ["yes"], task="genre")], "different tasks, qa and genre"),
        ([predicted(0, ["yes"], "no")], "item 'i0' is not the same in both runs: truth is 'yes'"),
        ([predicted(0, ["yes"], compare="first_word")], "compare is 'whole' and 'first_word'"),
        ([predicted(0, ["yes"], references=["oui"])], "has other references in one run"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(b, message):
    with pytest.raises(DataError, match=message):
        compare_predictions(A, b)
