"""Speaking when something happens, and answers while their evidence is seen."""

import pytest
import torch
from duet_films import truth, watched
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.speaking import SpeakingRule
from mmavlm.metrics.duet.answers_in_span import ToJudge, to_judge
from mmavlm.metrics.duet.choosing import Chosen
from mmavlm.metrics.duet.film_metrics import InSpanScore, Speaking
from mmavlm.metrics.duet.films import paired
from mmavlm.metrics.duet.matching import delays_s, matches, repeats
from mmavlm.metrics.duet.speaking import choose_rule, times_spoken
from mmavlm.metrics.duet.watched import Event

halves = st.integers(0, 40).map(lambda n: n / 2)


@given(st.lists(st.tuples(halves, st.integers(0, 6)), max_size=7),
       st.lists(halves, max_size=9).map(sorted), st.sampled_from([0.0, 0.5, 1.0]))  # fmt: skip
def test_no_matching_of_replies_and_events_is_larger(spans, times, tolerance):
    events = [Event(start, start + length) for start, length in spans]
    pairs = matches(events, times, tolerance)
    fits = [
        [event.start_s - tolerance <= t <= event.end_s + tolerance for t in times]
        for event in events
    ]
    assert all(fits[event][reply] for event, reply in pairs)
    assert len({e for e, _ in pairs}) == len({r for _, r in pairs}) == len(pairs)
    if events and times:
        largest = maximum_bipartite_matching(csr_matrix(fits), perm_type="column")
        assert len(pairs) == (largest >= 0).sum()
    else:
        assert not pairs


def test_instants_are_matched_in_order_of_time():
    events = [Event(5.0, 5.0), Event(4.0, 4.0)]
    assert matches(events, [4.5, 4.6], 1.0) == [(1, 0), (0, 1)]


def test_the_second_before_and_after_an_instant_are_within_it():
    assert len(matches([Event(2.0, 2.0)], [3.0000000001], 1.0)) == 1
    assert len(matches([Event(2.0, 2.0)], [3.01], 1.0)) == 0
    assert len(matches([Event(2.0, 2.0)], [0.99], 1.0)) == 0


def test_delays_are_from_an_events_start_to_the_next_reply_before_another_event():
    events = [Event(9.0, 11.0), Event(2.0, 2.0), Event(5.0, 5.0)]
    assert delays_s(events, [1.2, 1.8, 7, 10]) == [2, 1]
    assert delays_s(events, []) == []


def test_texts_that_were_there_before_are_repeats():
    assert repeats(["A dog", "a  dog ", "a cat", "a dog"]) == 2
    assert repeats([]) == 0


EVENTS = ((2, 2), (5, 5), (9, 11))
REPLIES = ((1.2, "a"), (1.8, "A "), (7, "c"), (10, "b"))


def scored(metric, films, truths):
    both = paired(films, truths)
    metric.update(both.watched, both.truths)
    return metric.compute()


def test_the_numbers_of_a_talk_are_those_worked_out_by_hand():
    film = watched("q0", [0] * 12, replies=REPLIES)
    values = scored(Speaking(every_s=[3, 4]), [film], [truth("q0", *EVENTS)])
    # 1.2 is to the event at 2, 10 to the last; 1.8 comes second, and 7 is to none
    assert values["speaking_precision"] == pytest.approx(2 / 4)
    assert values["speaking_recall"] == pytest.approx(2 / 3)
    assert values["speaking_f1"] == pytest.approx(4 / 7)
    assert (values["delay_s"], values["answered"]) == (1.5, pytest.approx(2 / 3))
    assert (values["duplicates"], values["replies_per_minute"]) == (0.25, pytest.approx(20))
    # every 3 s: 3, 6, 9 and 12, of which three match; every 4 s: 4 and 8 of three
    assert (values["constant_every_s"], values["constant_f1"]) == (3, pytest.approx(6 / 7))
    assert (values["count"], values["missing"]) == (1, 0)


def test_sums_are_over_films_and_a_film_not_watched_has_events_and_no_reply():
    films = [watched("q0", [0] * 12, replies=REPLIES)]
    truths = [truth("q0", *EVENTS), truth("q1", (3, 3))]
    values = scored(Speaking(every_s=[3, 4]), films, truths)
    assert values["speaking_recall"] == pytest.approx(2 / 4)
    assert values["speaking_f1"] == pytest.approx(4 / 8)
    assert (values["speaking_f1_low"], values["speaking_f1_high"]) == (0, pytest.approx(4 / 7))
    assert values["missing"] == 1
    # the other film lasts 3 s at least, and a reply at 3 is to its event
    assert values["constant_f1"] == pytest.approx(8 / 9)


def test_what_is_said_where_nothing_happens_costs_precision_alone():
    films = [watched(f"q{n}", [0] * 12, replies=REPLIES) for n in (0, 1)]
    values = scored(Speaking(every_s=[3, 4]), films, [truth("q0", *EVENTS), truth("q1")])
    assert values["speaking_precision"] == pytest.approx(2 / 8)
    assert values["speaking_recall"] == pytest.approx(2 / 3)
    assert values["constant_f1"] == pytest.approx(6 / 11)  # every 3 s, four times in either film


def test_a_model_that_never_speaks_has_an_f1_of_0():
    values = scored(Speaking(), [watched("q0", [0] * 12)], [truth("q0", *EVENTS)])
    assert (values["speaking_f1"], values["speaking_precision"]) == (0, 0)
    assert 0 < values["constant_f1"] <= 1


def test_a_rule_speaks_where_its_heads_sum_to_more_and_pauses_after():
    film = watched("q", [0.1, 0.9, 0.8, 0.2, 0.9], informative=(0.5, 0.0, 0.0, 0.0, 0.2))
    assert times_spoken(SpeakingRule(0.5, heads=("relevance",)), film) == [1, 2, 4]
    assert times_spoken(SpeakingRule(0.5, 2, ("relevance",)), film) == [1, 4]
    assert times_spoken(SpeakingRule(0.55, 0, ("relevance", "informative")), film) == [0, 1, 2, 4]
    assert times_spoken(SpeakingRule(0.5), film) == []


def test_the_rule_with_the_largest_f1_on_validation_is_chosen_and_carried_to_the_test():
    scores = (0.0, 0.2, 0.9, 0.6, 0.2, 0.9, 0.2)
    film, of_film = watched("q0", [0] * 7, informative=scores), truth("q0", (2, 2), (5, 5))
    chosen = choose_rule([film], [of_film], split="val", thresholds=[0.1, 0.5, 0.95],
                         pauses_s=[0, 2])  # fmt: skip
    assert chosen == Chosen(SpeakingRule(0.5, 2), "val", "speaking_f1", 1.0, 1)
    values = scored(Speaking(chosen), [film], [of_film])
    assert values["speaking_f1"] == 1
    assert "duplicates" not in values  # a rule says no words
    by_default = choose_rule([film], [of_film], split="val")
    assert by_default.value == 1
    summed = choose_rule([film], [of_film], split="val", by="sum")
    assert (summed.setting.by, summed.value) == ("sum", 1)
    with pytest.raises(ConfigError, match="never on those of the test"):
        choose_rule([film], [of_film], split="test")


def test_the_rule_chosen_is_the_best_of_metrics_computed_one_by_one():
    generator = torch.Generator().manual_seed(0)
    films = [
        watched(f"q{n}", [0] * 20, informative=tuple(torch.rand(20, generator=generator).tolist()))
        for n in range(3)
    ]
    truths = [truth(f"q{n}", (4 + n, 4 + n), (12, 14)) for n in range(4)]
    grid = {"thresholds": [0.3, 0.6, 0.8], "pauses_s": [0, 3]}
    chosen = choose_rule(films, truths, split="val", **grid)
    values = [
        scored(Speaking(Chosen(SpeakingRule(t, p)), every_s=[5]), films, truths)["speaking_f1"]
        for t in grid["thresholds"]
        for p in grid["pauses_s"]
    ]
    assert chosen.value == pytest.approx(max(values))


def test_a_rule_on_a_head_without_scores_is_refused():
    with pytest.raises(DataError, match="no scores of the head 'informative', but of relevance"):
        choose_rule([watched("q0", [0])], [truth("q0", (0, 0))], split="val")


ANSWERS = truth("q0", (2, 4, "a dog"), (6, 8, "a cat"))
TALK = ((1, "a dog"), (3, "dog"), (4, "dog"), (7, "x"), (9, "a cat"))


def test_only_what_is_said_while_evidence_is_seen_is_judged_and_equal_texts_once():
    film = watched("q0", [0] * 10, replies=TALK)
    both = paired([film], [ANSWERS, truth("q1", (0, 5, "a bird"))])
    assert to_judge(both.watched, both.truths) == {
        ToJudge("when?", "a dog", "dog"): "q0",
        ToJudge("when?", "a cat", "x"): "q0",
    }


def test_in_span_scores_are_those_worked_out_by_hand():
    both = paired([watched("q0", [0] * 10, replies=TALK)], [ANSWERS, truth("q1", (0, 5, "a bird"))])
    verdicts = {ToJudge("when?", "a dog", "dog"): 5.0, ToJudge("when?", "a cat", "x"): None}
    metric = InSpanScore()
    metric.update(both.watched, both.truths, verdicts)
    values = metric.compute()
    # (5 + 1)/2 of the first question, whose second answer has no verdict; 1 of the second question
    assert values["in_span_score"] == pytest.approx((3 + 1) / 2)
    assert (values["in_span_score_low"], values["in_span_score_high"]) == (1, 3)
    assert values["answered_in_span"] == pytest.approx(2 / 3)
    assert (values["replies"], values["distinct_replies"]) == (2.5, 2)
    assert (values["unjudged"], values["missing"], values["count"]) == (1, 1, 2)


def test_a_judge_that_begins_at_0_is_held_to_the_published_scale():
    film = watched("q0", [0] * 10, replies=((3, "dog"), (3.5, "a dog")))
    verdicts = {ToJudge("when?", "a dog", "dog"): 0.0, ToJudge("when?", "a dog", "a dog"): 4.0}
    metric = InSpanScore()
    metric.update([film], [truth("q0", (2, 4, "a dog"))], verdicts)
    assert metric.compute()["in_span_score"] == (1 + 4) / 2


def test_a_reply_is_judged_by_the_question_asked_last():
    film = watched("q0", [0] * 10, replies=((3, "a"), (7, "b")))
    asked = truth("q0", (2, 4, "x"), (6, 8, "y"), queries=((0, "when?"), (5, "and now?")))
    assert [case.question for case in to_judge([film], [asked])] == ["when?", "and now?"]
