"""Films watched from Python: the moments are the events of the command `watch`."""

import json

import numpy as np
import pytest
import torch

import mmavlm
from cameras import TRANSPORT_STREAM, CameraServer, served, transport_stream
from mmavlm import watch
from mmavlm.core.errors import ConfigError, DataError, VideoError

DUET = {"experiment": "duet_movies", "init.allow_random": True, "llm.width": 32}
TALKATIVE = {"max_new_tokens": 3, "repeat": True, "fps": 2}
RULE = {"threshold": 0, "pause_s": 1}
LATER = [{"time_s": 1.2, "text": "and now?"}]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return mmavlm.load(**DUET)


def talkative(model, film, query="what happens?", **more):
    return model.watch(film, query, speak=RULE, **TALKATIVE, **more)


def test_moments_are_the_events_of_the_command(model, make_clip, run, tmp_path):
    clip = make_clip()
    torch.manual_seed(0)
    settings = [f"{name}={value}" for name, value in {**DUET, **TALKATIVE}.items()]
    rule = [f"speak.{name}={value}" for name, value in RULE.items()]
    asked = ["query=what happens?", "queries=[{time_s: 1.2, text: and now?}]", "to=out"]
    assert run(watch, *settings, *rule, *asked, f"video={clip}") == 0
    events = [json.loads(line) for line in (tmp_path / "out/events.jsonl").open()]
    moments = [*talkative(model, clip, queries=LATER)]
    assert [moment.time_s for moment in moments] == [event["time_s"] for event in events]
    names = {"replied": "reply", "asked": "query", "removed": "taken_back"}
    for moment, event in zip(moments, events, strict=True):
        if event["event"] == "scored":
            assert moment.scores == pytest.approx(event["scores"], abs=1e-5)
        else:
            assert getattr(moment, names[event["event"]]) == event["text"]
    replies = [moment for moment in moments if moment.reply is not None]
    assert replies
    assert repr(replies[0]).startswith(f"<{replies[0].time_s:.1f} s: informative ")


def test_pictures_with_their_times_are_watched_and_asked_about_meanwhile(model):
    pictures = ((n / 2, np.full((8, 8, 3), 40 * n, np.uint8)) for n in range(4))
    watching = talkative(model, pictures, None)
    first = next(watching)
    watching.ask("is it dark?")
    rest = [*watching]
    assert (first.time_s, first.query) == (0.0, None)
    assert [m.query for m in rest if m.query is not None] == ["is it dark?"]
    assert rest[-1].time_s == 1.5
    assert repr(watching) == "<watching pictures, at 1.5 s>"


def test_two_films_watched_at_once_do_not_mix(model, make_clip):
    clips = make_clip("a.mp4"), make_clip("b.mp4")
    alone = [[m.total for m in talkative(model, clip)] for clip in clips]
    one, other = (talkative(model, clip) for clip in clips)
    both = [*zip(one, other, strict=False)]
    assert [m.total for m, _ in both] == pytest.approx(alone[0][: len(both)])
    assert [m.total for _, m in both] == pytest.approx(alone[1][: len(both)])


def test_a_film_that_is_left_is_closed_and_gives_no_more(model, make_clip):
    with talkative(model, make_clip(), queries=[{"time_s": 60, "text": "who?"}]) as watching:
        next(watching)
    assert [*watching] == []
    assert [said.text for said in watching.waiting] == ["who?"]


def test_a_camera_is_closed_when_its_moments_are(model):
    pieces = transport_stream(200, 25)
    with served(CameraServer(pieces, 25, TRANSPORT_STREAM)) as server:
        watching = model.watch(camera=server.address, query="what happens?", fps=5)
        assert repr(watching) == "<watching a camera, at 0.0 s>"
        assert server.asked == [], "it is opened with the first moment"
        with watching:
            scored = [moment for moment, _ in zip(watching, range(3), strict=False)]
        assert scored[0].query == "what happens?"
        assert scored[-1].scores.keys() == {"informative", "relevance"}
        assert server.left.wait(10)
    assert [*watching] == []


@pytest.mark.parametrize(("given", "settings", "error", "message"), [
    ("gone.mp4", {}, VideoError, "video gone.mp4 does not exist"),
    (None, {}, ConfigError, "give one of video=film.mp4 and camera"),
    ([], {"camera": "/dev/video0"}, ConfigError, "give one of a film, pictures"),
    (None, {"camera": 0}, ConfigError, "camera is 0; give a text"),
    ([], {"query": 3}, ConfigError, "query is 3; give a text"),
    ("CLIP", {"speak": {"threshold": None}}, ConfigError, "speak.threshold is not set"),
    ("CLIP", {"speak": {"treshold": 1}}, ConfigError, "treshold"),
    ("CLIP", {"fps": 0}, ConfigError, "fps must be above 0"),
    ("CLIP", {"query": " "}, ConfigError, "query is empty"),
    ("CLIP", {"to": "out"}, ConfigError, "it is for the command line alone"),
    ("CLIP", {"speak_as": "gone.json"}, DataError, "speak_as gone.json does not exist"),
])  # fmt: skip
def test_mistakes_are_told(model, make_clip, given, settings, error, message):
    film = make_clip() if given == "CLIP" else given
    with pytest.raises(error) as told:
        model.watch(film, **settings)
    assert message in str(told.value)


def test_a_model_without_heads_says_what_to_load(trained, make_clip):
    with pytest.raises(ConfigError, match=r"has no heads that score frames.*load a model of"):
        mmavlm.load(trained).watch(make_clip())


def test_a_model_of_the_duet_that_is_asked_says_that_it_watches(model, make_clip):
    with pytest.raises(ConfigError, match=r"in Python model.watch\(…\)"):
        model.ask(make_clip(), "what happens?")
