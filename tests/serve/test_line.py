"""The line, visits and limits behind a served model."""

import threading

import pytest

from mmavlm.core.errors import ConfigError, MmavlmError
from mmavlm.serve.limits import Limits, RefusedError
from mmavlm.serve.line import BusyError, Line
from mmavlm.serve.turns import InTurn
from mmavlm.serve.visits import Visits


def told(*events):
    yield from events


def test_a_closed_line_ends_what_is_served_and_what_waits():
    line, ended = Line(4), []

    def endless(_):
        try:
            while True:
                yield {"n": 0}
        finally:
            ended.append(True)

    first, second = InTurn(line, endless), InTurn(line, endless)
    assert [next(first), next(second)] == [{"n": 0}, {"waiting": 1}]
    line.close()
    for turn in (first, second, InTurn(line, endless)):
        (last,) = turn
        assert "the server was told to end" in last["error"]
    assert ended == [True], "closed at once, and not when it is collected"
    assert len(line) == 0


def test_all_come_in_the_order_in_which_they_stand():
    line, came = Line(8), []
    turns = [InTurn(line, lambda _, n=n: told({"n": n})) for n in range(6)]
    threads = [
        threading.Thread(target=lambda t=t: came.extend(e["n"] for e in t if "n" in e))
        for t in reversed(turns)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert came == [*range(6)]
    assert len(line) == 0


def test_a_full_line_takes_nobody_and_says_so():
    line = Line(1)
    first, second = line.enter(), line.enter()
    with pytest.raises(BusyError, match="2 questions are being answered or wait"):
        line.enter()
    assert line.wait(second, 0.01) == 1
    line.leave(first)
    assert line.wait(second, 0.01) == 0


def test_who_leaves_before_it_began_holds_nobody_up():
    line = Line(4)
    first = InTurn(line, lambda _: told({"n": 1}))
    second = InTurn(line, lambda _: told({"n": 2}))
    first.close()
    assert [*second] == [{"n": 2}]


def test_long_work_lets_those_who_wait_come_between():
    line, order = Line(4), []

    def long(turn):
        for number in range(3):
            order.append(f"long {number}")
            yield {}
            yield from turn.let_others()

    first = InTurn(line, long)
    next(first)
    second = InTurn(line, lambda _: told(order.append("short") or {}))
    thread = threading.Thread(target=lambda: [*second])
    thread.start()
    assert [event for event in first if event] in ([], [{"waiting": 1}])
    thread.join(10)
    assert order.index("short") < order.index("long 2")


@pytest.mark.parametrize(
    ("error", "said"),
    [(MmavlmError("no such film"), "no such film"), (ZeroDivisionError(), "its log says why")],
)
def test_an_error_ends_the_events_and_is_said(error, said):
    def work(_):
        yield {"n": 1}
        raise error

    line = Line(1)
    first, last = InTurn(line, work)
    assert first == {"n": 1}
    assert said in last["error"]
    assert len(line) == 0


def test_a_visit_that_is_silent_ends_and_its_films_are_deleted():
    now = [0.0]
    visits = Visits(Limits(keep_minutes=1, max_visits=2), clock=lambda: now[0])
    old, kept = visits.new(), visits.new()
    (old.folder / "a.mp4").write_bytes(b"film")
    for visit in (old, kept):
        visit.add("a.mp4", visit.folder / "a.mp4", "film", 1.0)
    with pytest.raises(RefusedError, match="2 others talk"):
        visits.new()
    now[0] = 50
    visits.get(kept.visit_id)
    now[0] = 70
    visits.new()
    assert not old.folder.exists()
    assert kept.folder.exists()
    with pytest.raises(RefusedError, match="this visit is over"):
        visits.get(old.visit_id)
    visits.close()
    assert not visits.root.exists()


def test_who_brought_nothing_gives_way_and_answers_of_one_request_need_no_place():
    visits = Visits(Limits(max_visits=2))
    first, second = visits.new(), visits.new()
    assert visits.new(brief=True).folder.exists()
    third = visits.new()
    assert [v.folder.exists() for v in (first, second, third)] == [False, True, True]
    visits.close()


def test_a_visitor_whose_answer_still_comes_is_not_silent():
    now = [0.0]
    visits = Visits(Limits(keep_minutes=1), clock=lambda: now[0])
    visit = visits.new()
    with visits.working(visit):
        now[0] = 500
        visits.sweep()
        assert visit.folder.exists()
    visits.sweep()
    assert visit.folder.exists()
    now[0] = 600
    visits.sweep()
    assert not visit.folder.exists()
    visits.close()


@pytest.mark.parametrize("given", [{"max_mb": 0}, {"waiting": -1}, {"keep_minutes": "x"}])
def test_limits_that_are_none_are_refused(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        Limits(**given)
