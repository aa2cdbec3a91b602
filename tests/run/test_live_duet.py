"""A model that watches a film as it runs: what it hears, scores, says and remembers."""

import threading
from itertools import pairwise

import pytest
import torch
from hydra.utils import instantiate

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.generation import Generation
from mmavlm.core.speaking import SpeakingRule
from mmavlm.data.live import LiveFrame
from mmavlm.metrics.duet.watched import Said
from mmavlm.movies.duet_set import DuetSettings, make_duet_set
from mmavlm.run.build import build_backbone
from mmavlm.run.live_duet import Asked, Habits, LiveDuet, Missed, Removed, Replied, Scored
from mmavlm.stages.watched_frames import as_watched
from support import composed
from waits import Waits

WAYS = {"frames": "experiment=duet_movies", "memory": "experiment=duet_movies_memory"}
SHORT = Generation(num_beams=1, num_answers=1, max_new_tokens=4, min_new_tokens=2)
ALWAYS, NEVER = SpeakingRule(-1.0), SpeakingRule(9.0)
SMALL = ["data.num_frames=8", "llm.width=32"]


@pytest.fixture(scope="module", params=WAYS)
def model(request):
    torch.manual_seed(0)
    return build_backbone(composed(WAYS[request.param], *SMALL, "data.root=.")).eval()


def film(model, frames=6, start=0, missed=0):
    size = model.vision.encoder.image_size
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (20, 3, size, size), dtype=torch.uint8, generator=generator)
    return [LiveFrame(n / 2, pictures[n], missed if n else 0) for n in range(start, start + frames)]


def duet(model, rule=NEVER, **habits):
    return LiveDuet(model, Habits(rule, SHORT, **habits))


def kinds(events):
    return [type(event).__name__ for event in events]


def close(one, other):
    return [(type(e).__name__, e.time_s, getattr(e, "text", None)) for e in one] == [
        (type(e).__name__, e.time_s, getattr(e, "text", None)) for e in other
    ]


def test_every_frame_is_scored_by_every_head(model):
    events = [*duet(model).watch(film(model), [Said(0.0, "what happens?")])]
    assert kinds(events) == ["Asked", *["Scored"] * 6]
    for event, given in zip(events[1:], film(model), strict=True):
        assert event.time_s == given.time_s
        assert event.scores.keys() == {"informative", "relevance"}
        assert event.total == event.scores["informative"]


@pytest.mark.parametrize("times", ["null", "turn", "frame"])
@pytest.mark.parametrize("way", WAYS)
def test_scores_are_those_of_the_film_in_one_go(tmp_path, way, times):
    make_duet_set(tmp_path, DuetSettings(films=10, size=32))
    given = [f"data.root={tmp_path}", "data.batch_size=1", f"llm.stream_times={times}"]
    config = composed(WAYS[way], *SMALL, *given)
    data, net = instantiate(config.data), build_backbone(config).eval()
    data.image_size = net.vision.encoder.image_size
    data.setup("fit")
    batch = as_watched(next(iter(data.val_dataloader())))
    with torch.no_grad():
        read = net.read_streams(batch)
        expected = net.require_heads().scores(read.hidden)
    order = sorted(range(len(read.frames)), key=lambda n: read.frames[n].frame)
    times = batch.timestamps_s[0].tolist()
    frames = [LiveFrame(t, frame) for t, frame in zip(times, batch.frames[0], strict=True)]
    queries, shown = [], 0
    for turn in batch.conversations[0].turns:
        if turn.role == "stream":
            shown = turn.parts[-1].frames[1]
        else:
            queries.append(Said(times[shown], turn.text))
    events = [*LiveDuet(net, Habits(NEVER, SHORT)).watch(frames, queries)]
    scores = [[*event.scores.values()] for event in events if isinstance(event, Scored)]
    torch.testing.assert_close(torch.tensor(scores), expected[order], atol=1e-4, rtol=1e-4)


def test_a_query_is_read_before_the_first_frame_that_is_not_earlier_and_two_in_order(model):
    queries = [Said(0.7, "one?"), Said(0.8, "two?"), Said(1.0, "three?")]
    events = [*duet(model).watch(film(model, 4), queries)]
    assert kinds(events) == ["Scored", "Scored", "Asked", "Asked", "Asked", "Scored", "Scored"]
    assert [e.text for e in events if isinstance(e, Asked)] == ["one?", "two?", "three?"]


def test_queries_typed_while_it_speaks_are_read_before_the_next_frame(model):
    one, heard = duet(model, ALWAYS, repeat=True), []
    for event in one.watch(film(model, 3), [Said(0.0, "what?")]):
        heard.append(event)
        if isinstance(event, Replied) and event.time_s == 0.0:
            typing = [threading.Thread(target=one.ask, args=(t,)) for t in ("and now?", "why?")]
            for thread in typing:
                thread.start()
                thread.join()
    assert kinds(heard)[:7] == ["Asked", "Scored", "Replied", "Asked", "Asked", "Scored", "Replied"]
    assert [e.text for e in heard if isinstance(e, Asked)] == ["what?", "and now?", "why?"]


def test_what_is_typed_when_the_film_ends_is_answered(model):
    one, heard = duet(model), []
    for event in one.watch(film(model, 2)):
        heard.append(event)
        if isinstance(event, Scored) and event.time_s == 0.5:
            one.ask("what was that?")
    assert kinds(heard) == ["Scored", "Scored", "Asked", "Replied"]


def test_a_film_left_at_any_event_goes_on_as_if_it_had_not_been_left(model):
    queries = [Said(0.0, "what?"), Said(1.0, "and now?"), Said(99.0, "never?")]
    frames = film(model, 4, missed=1)
    undisturbed = duet(model, ALWAYS, repeat=True, keep_replies=False)
    expected = [*undisturbed.watch(frames, queries)]
    assert [said.text for said in undisturbed.waiting] == ["never?"]
    assert {*kinds(expected)} == {"Asked", "Scored", "Missed", "Replied", "Removed"}
    one, coming, heard = duet(model, ALWAYS, repeat=True, keep_replies=False), iter(frames), []
    given = queries
    while True:
        event = next(iter(one.watch(coming, given)), None)
        if event is None:
            break
        heard.append(event)
        given = ()
    told = [e for e in heard if not isinstance(e, Removed)]
    assert close(told, [e for e in expected if not isinstance(e, Removed)])
    scores = [[*e.scores.values()] for events in (heard, expected) for e in events
              if isinstance(e, Scored)]  # fmt: skip
    torch.testing.assert_close(torch.tensor(scores[:4]), torch.tensor(scores[4:]))


def test_a_reply_like_the_last_one_is_not_given_again(model):
    events = [*duet(model, ALWAYS, keep_replies=True).watch(film(model, 5), [Said(0.0, "what?")])]
    given = [e.text for e in events if isinstance(e, Replied)]
    assert given
    assert all(a != b for a, b in pairwise(given))
    for event in events:
        if isinstance(event, Removed):
            assert event.why in ("repeats the last reply", "empty")


def test_replies_that_are_not_kept_leave_the_scores_as_they_were(model):
    silent = [*duet(model).watch(film(model), [Said(0.0, "what?")])]
    talks = [*duet(model, ALWAYS, keep_replies=False, repeat=True).watch(
        film(model), [Said(0.0, "what?")])]  # fmt: skip
    assert any(isinstance(e, Removed) for e in talks)
    a, b = ([[*e.scores.values()] for e in events if isinstance(e, Scored)]
            for events in (silent, talks))  # fmt: skip
    torch.testing.assert_close(torch.tensor(a), torch.tensor(b), atol=1e-5, rtol=1e-5)


def test_a_window_bounds_what_is_remembered(model):
    one, pictures = duet(model, window=60), film(model)
    frames = (LiveFrame(float(n), pictures[n % 6].frame) for n in range(60))
    events = one.watch(frames, [Said(0.0, "what?")])
    held = [one.num_tokens for event in events if isinstance(event, Scored)]
    assert len(held) == 60
    assert max(held) <= 60


def test_a_window_that_one_reply_fills_is_refused_before_a_film_is_seen():
    with pytest.raises(ConfigError, match="window=4 has no room for a reply of max_new_tokens=4"):
        Habits(NEVER, SHORT, window=4)
    assert Habits(NEVER, SHORT, window=5).window == 5


def test_what_is_no_frame_of_its_size_is_refused_and_the_film_goes_on(model):
    one = duet(model)
    small = LiveFrame(0.0, torch.zeros(3, 2, 2, dtype=torch.uint8))
    for wrong in (small, (0.0, small.frame), None):
        with pytest.raises(DataError, match=r"expected a LiveFrame of \(3, .*given_frames"):
            [*one.watch([wrong])]
    assert kinds(one.watch(film(model, 2))) == ["Scored", "Scored"]


def test_what_is_no_text_is_refused_where_it_is_asked(model):
    with pytest.raises(DataError, match=r"holds '\\udcff', which is no sign of a text"):
        duet(model).ask("what is \udcff?")


def test_missed_frames_are_told(model):
    events = [*duet(model).watch(film(model, 2, missed=3))]
    assert events[1] == Missed(0.5, 3)


def test_frames_or_queries_out_of_order_are_refused(model):
    with pytest.raises(DataError, match=r"a frame at 0\.5 s follows one at 0\.5 s"):
        [*duet(model).watch([film(model)[1]] * 2)]
    with pytest.raises(DataError, match="a query at 1 s follows one at 2 s"):
        [*duet(model).watch(film(model), [Said(2.0, "a"), Said(1.0, "b")])]
    with pytest.raises(DataError, match="is empty"):
        duet(model).ask(" ")


def test_a_film_without_frames_ends_without_a_word(model):
    assert [*duet(model, ALWAYS).watch([])] == []


def test_a_head_that_there_is_none_of_is_refused(model):
    with pytest.raises(ConfigError, match=r"speak\.heads names novelty; this model's heads are"):
        duet(model, SpeakingRule(0.5, heads=("novelty",)))


def test_nothing_waits_for_the_device_but_the_scores_of_each_frame(model, monkeypatch):
    one, asked = duet(model), []
    frames, tolist = film(model), torch.Tensor.tolist
    [*one.watch(frames[:2], [Said(0.0, "what?")])]
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: asked.append(1) or tolist(t))
    with Waits() as waits:
        assert len([*one.watch(frames[2:])]) == 4
    assert waits.found == []
    assert len(asked) == 4
