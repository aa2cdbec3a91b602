import json
import threading

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.movies.generators import TextRequest, TextResult
from mmavlm.movies.judge import Failed, Outcome, collect, judge_answers, judge_pairs
from mmavlm.movies.overlap import OverlapJudge
from mmavlm.movies.verdicts import (
    ASPECTS,
    Answered,
    AnsweredTwice,
    Case,
    PairVerdict,
    ScoreVerdict,
    ShortVerdict,
)

TRUTH = "the man in the red shirt"
GOOD = Case("Who takes it?", TRUTH, ours=TRUTH, other="a dog")
BAD = Case("Who takes it?", TRUTH, ours="a dog", other=TRUTH)
EVEN = Case("Who takes it?", TRUTH, ours="a cat", other="a dog")
TWICE = AnsweredTwice(("Who takes it?", "It is taken by whom?"), TRUTH, (TRUTH, TRUTH))


class Judge:
    """Gives `verdict`, or what `of` makes of the request, and counts what it is asked."""

    fingerprint = "a judge"

    def __init__(self, verdict=None, of=None):
        self.of = of or (lambda request: verdict)
        self.asked = []

    def complete(self, request):
        self.asked.append(request)
        verdict = self.of(request)
        return TextResult(verdict if isinstance(verdict, str) else json.dumps(verdict))


def first_is_best():
    return Judge({"better": "first", "first": 4.8, "second": 2})


def test_who_wins_in_both_orders_has_won():
    found = judge_pairs(OverlapJudge(), [GOOD, GOOD, BAD, EVEN])
    assert [outcome.sign for outcome in found] == [1, 1, -1, 0]
    assert found[0] == Outcome(1, ours=5, other=0)


def test_swapping_the_sides_swaps_every_outcome():
    cases = [GOOD, BAD, EVEN, Case("Who?", TRUTH, "the man in red", "a man in the shirt")]
    swapped = [Case(c.question, c.reference, ours=c.other, other=c.ours) for c in cases]
    for judge in (OverlapJudge(), first_is_best()):
        there, back = judge_pairs(judge, cases), judge_pairs(judge, swapped)
        assert [Outcome(-o.sign, o.other, o.ours) for o in there] == back


def test_a_judge_that_prefers_a_place_sees_ties_only():
    found = judge_pairs(first_is_best(), [GOOD, BAD])
    assert found == [Outcome(0, pytest.approx(3.4), pytest.approx(3.4))] * 2


def test_verdicts_are_kept_and_equal_requests_are_made_once(tmp_path):
    judge = first_is_best()
    first = judge_pairs(judge, [GOOD, EVEN, GOOD], keep=tmp_path)
    assert len(judge.asked) == 4
    assert judge_pairs(judge, [EVEN, GOOD], keep=tmp_path) == [first[1], first[0]]
    assert len(judge.asked) == 4


@pytest.mark.parametrize("workers", [1, 3])
def test_a_judge_that_is_stopped_goes_on_without_a_repeated_request(tmp_path, workers):
    cases = [Answered(f"Who is {number}?", TRUTH, "a dog") for number in range(12)]

    def until_it_is_stopped(request):
        if "7" in request.context["question"]:
            raise KeyboardInterrupt
        return {"correct": False, "score": 1}

    stopped = Judge(of=until_it_is_stopped)
    with pytest.raises(KeyboardInterrupt):
        judge_answers(stopped, cases, keep=tmp_path, workers=workers)
    for thread in threading.enumerate():  # what was under way is kept, too
        if thread is not threading.current_thread() and "ThreadPool" in thread.name:
            thread.join()
    paid = {request.digest for request in stopped.asked if "7" not in request.context["question"]}
    again = Judge({"correct": False, "score": 1})
    assert judge_answers(again, cases, keep=tmp_path) == [ShortVerdict(correct=False, score=1)] * 12
    asked = {request.digest for request in again.asked}
    assert len(again.asked) == 12 - len(paid)
    assert not asked & paid


def test_a_verdict_that_cannot_be_had_discards_no_other_and_is_asked_for_again(tmp_path):
    cases = [Answered(f"Who is {number}?", TRUTH, "a dog") for number in range(3)]
    good = {"correct": True, "score": 5}
    judge = Judge(of=lambda r: "no idea" if "1" in r.context["question"] else good)
    one, failed, three = judge_answers(judge, cases, keep=tmp_path)
    assert one == three == ShortVerdict(correct=True, score=5)
    assert isinstance(failed, Failed)
    assert "judge_short: none of 4 answers of a judge can be used" in failed.error
    later = Judge(good)
    assert judge_answers(later, cases, keep=tmp_path) == [one] * 3
    assert len(later.asked) == 1


@pytest.mark.parametrize(
    "verdict",
    [
        "",
        "yes",
        "[" * 10_000,
        '{"correct": true, "score": ' * 500,
        '{"correct": true}',
        {"correct": True, "score": 5.5},
        {"correct": True, "score": -1},
        '{"correct": true, "score": NaN}',
        '{"correct": true, "score": Infinity}',
        {"correct": "perhaps", "score": 3},
        {"correct": True, "score": "high"},
        {"correct": True, "score": [4]},
        {"correct": True, "score": 4, "file": "/etc/passwd"},
        {"correct": None, "score": 3},
        '{"correct": true, "score": 4} {"correct": false, "score": 0}',
        '{"correct": true, "score": 4, "score\ud800": 1}',
        '{"correct": \x00true, "score": 4}',
    ],
)
def test_a_hostile_verdict_is_a_failure_with_a_reason(verdict, tmp_path):
    judge = Judge(verdict)
    (failed,) = judge_answers(judge, [Answered("Who?", TRUTH, "a dog")], keep=tmp_path)
    assert isinstance(failed, Failed)
    assert "can be used" in failed.error
    assert len(judge.asked) == 4  # and no more, so that no judge keeps a run for ever
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["\ud800", "\x00", "}{", "<|im_end|>", "a" * 100_000, ""])
def test_any_answer_can_be_judged(text, tmp_path):
    for judge in (Judge({"correct": False, "score": 0}), OverlapJudge()):
        (verdict,) = judge_answers(judge, [Answered("Who?", TRUTH, text)], keep=tmp_path)
        assert verdict == ShortVerdict(correct=False, score=0)


def test_words_around_a_verdict_are_no_mistake():
    judge = Judge('Sure!\n```json\n{"correct": true, "score": 4.8}\n```')
    (verdict,) = judge_answers(judge, [Answered("Who?", TRUTH, TRUTH)])
    assert verdict == ShortVerdict(correct=True, score=4.8)


def test_a_kept_verdict_that_is_broken_is_named(tmp_path):
    asked = [Answered("Who?", TRUTH, "a dog")]
    judge_answers(Judge({"correct": True, "score": 1}), asked, keep=tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text('{"correct": tr')
    with pytest.raises(DataError, match=rf"{kept.name} was kept and is broken.*Remove it"):
        judge_answers(Judge({"correct": True, "score": 1}), asked, keep=tmp_path)


def test_a_judge_that_cannot_be_reached_stops_the_run():
    def nobody(request):
        raise DataError("it did not answer")

    with pytest.raises(DataError, match="did not answer"):
        judge_answers(Judge(of=nobody), [Answered("Who?", TRUTH, "a dog")])


def test_each_aspect_is_asked_in_its_own_words():
    asked = [Answered("Who?", TRUTH, "a dog").request(a) for a in ASPECTS if a != "consistency"]
    asked.append(TWICE.request())
    assert len({request.instruction for request in asked}) == len(ASPECTS)
    assert len({request.task for request in asked}) == len(ASPECTS)
    for request in asked:
        assert TRUTH in request.messages[1]["content"]


def test_words_in_common_give_five_to_the_reference_itself():
    judge = OverlapJudge()
    same = [Answered("Who?", TRUTH, TRUTH)]
    for aspect in ASPECTS:
        asked = [TWICE] if aspect == "consistency" else same
        (verdict,) = judge_answers(judge, asked, aspect)
        assert verdict.score == 5


def test_only_the_temporal_score_minds_the_order_of_words():
    judge = OverlapJudge()
    turned = [Answered("What happens?", "he takes it then gives it", "gives it then he takes it")]
    (detail,) = judge_answers(judge, turned, "detail")
    (temporal,) = judge_answers(judge, turned, "temporal")
    assert detail.score == 5
    assert temporal.score == pytest.approx(5 * 3 / 6)  # three words keep their order


def test_answers_that_disagree_are_inconsistent():
    one_wrong = AnsweredTwice(TWICE.questions, TRUTH, (TRUTH, "a dog"))
    verdicts = judge_answers(OverlapJudge(), [TWICE, one_wrong], "consistency")
    assert [verdict.score for verdict in verdicts] == [5, 0]


def test_verdicts_come_in_the_order_of_the_requests(tmp_path):
    answers = [Answered(f"{n}?", TRUTH, "a dog") for n in range(20)]
    judge = Judge(of=lambda r: {"score": int(r.context["question"][:-1]) / 4})
    requests = [answer.request("detail") for answer in answers]
    steps = []
    found = collect(
        judge, requests, ScoreVerdict, workers=4, progress=lambda *step: steps.append(step)
    )
    assert [verdict.score for verdict in found] == [n / 4 for n in range(20)]
    assert steps == [(n, 20) for n in range(1, 21)]


def test_the_overlap_judge_writes_no_stories():
    for task in ("plot", "judge_", "judge_taste"):
        with pytest.raises(ConfigError, match=f"does not write {task}"):
            OverlapJudge().complete(TextRequest(task, "", {}, {}, seed=0))


def test_nothing_to_judge_is_nothing_found():
    assert judge_pairs(OverlapJudge(), []) == []
    assert collect(OverlapJudge(), [], PairVerdict) == []
