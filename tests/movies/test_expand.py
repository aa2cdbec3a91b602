import json

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.movies.generators import Grammar, TextGenerator, TextRequest, TextResult, ask
from mmavlm.movies.stories.expand import expand
from mmavlm.movies.stories.plan import Plot, SceneOutline, Shot, Shots, check_plot, check_scenes
from mmavlm.movies.stories.world import World, check_shots, key


class Recorded:
    """A generator that keeps what the grammar was asked."""

    fingerprint = "recorded"

    def __init__(self):
        self.requests = []

    def complete(self, request):
        self.requests.append(request)
        return Grammar().complete(request)


class Scripted:
    """A generator that answers with given texts in turn."""

    fingerprint = "scripted"

    def __init__(self, *texts):
        self.texts, self.requests = list(texts), []

    def complete(self, request):
        self.requests.append(request)
        return TextResult(self.texts.pop(0))


REQUEST = TextRequest("plot", "Write a plot.", {"chapters": 1}, {}, seed=3)


def plot_text():
    return Grammar().complete(REQUEST).text


@pytest.fixture
def stage():
    """A plot, its world, and a scene in a place where the first thing lies."""
    plot = Plot.model_validate_json(plot_text())
    first = plot.things[0]
    names = tuple(person.name for person in plot.people[:2])
    scene = SceneOutline(title="a", content="b", location=first.location, people=names)
    world = World.of(plot)
    world.open(scene)
    return world, scene, key(first.thing)


def test_eleven_by_eleven_by_eleven_are_1331_frames():
    recorded = Recorded()
    story = expand(recorded, (11, 11, 11))
    assert len(story.moments) == len(story.log) == 1331
    assert len(recorded.requests) == 1 + 11 + 121
    assert [row["frame"] for row in story.log] == list(range(1331))
    assert story.log[-1] | {"chapter": 10, "scene": 10, "shot": 10} == story.log[-1]


def test_the_same_seed_tells_the_same_story_and_another_seed_another():
    def told(seed):
        return [m.frame.model_dump_json() for m in expand(Grammar(), (2, 2, 4), seed=seed).moments]

    assert told("5") == told("5")
    assert told("5") != told("6")


def test_chapters_are_told_without_a_word_of_the_others():
    recorded = Recorded()
    story = expand(recorded, (3, 2, 3))
    outlines = [json.dumps(c.model_dump(mode="json")) for c in story.plot.chapters]
    for request in recorded.requests[1:]:
        (chapter,) = request.context["plot"]["chapters"]
        assert json.dumps(chapter) in outlines
    shots = [request for request in recorded.requests if request.task == "shots"]
    assert [r.context["plot"]["chapters"][0]["title"][:6] for r in shots] == [
        "Part 1", "Part 1", "Part 2", "Part 2", "Part 3", "Part 3",
    ]  # fmt: skip


def test_everybody_looks_the_same_through_a_film_of_one_style():
    story = expand(Grammar(), (3, 3, 4), seed="2")
    looks = {}
    for moment in story.moments:
        for actor in moment.frame.actors:
            assert looks.setdefault(actor.person.name, actor.person) == actor.person
    assert story.plot.style.tone


def test_frames_show_what_the_log_says():
    for moment in expand(Grammar(), (2, 3, 6), seed="4").moments:
        frame, row = moment.frame, moment.row
        assert frame.location == row["location"]
        for actor in frame.actors:
            held = [t for t, at in row["things"].items() if at["held_by"] == actor.person.phrase]
            assert held == ([actor.holds.phrase] if actor.holds else [])
            assert row["people"][actor.person.phrase]["location"] == frame.location
        lying = {t for t, at in row["things"].items() if at["lies"] == frame.location}
        assert lying == {thing.phrase for thing in frame.things}


def test_a_scene_of_one_frame_cannot_be_told():
    with pytest.raises(ConfigError, match=r"fan_out=2,2,1 cannot be told.*2 or more"):
        expand(Grammar(), (2, 2, 1))


def test_the_grammar_writes_no_other_tasks():
    with pytest.raises(ConfigError, match="writes plot, scenes, shots, not judge"):
        Grammar().complete(TextRequest("judge", "", {}, {}, seed=0))
    assert isinstance(Grammar(), TextGenerator)


@pytest.mark.parametrize(
    ("shot", "complaint"),
    [
        ({"actor": "Nobody", "action": "stand"}, "Nobody is not in the scene"),
        ({"action": "take"}, "take needs thing"),
        ({"action": "stand", "line": "Hello."}, "stand has no line"),
        ({"action": "talk"}, "talk needs a line"),
        ({"action": "give", "thing": "{thing}"}, "give needs to"),
        ({"action": "put", "thing": "{thing}"}, "does not hold the"),
        ({"action": "take", "thing": "pink hippo"}, "there is no pink hippo"),
        ({"action": "ask", "thing": "{thing}", "to": "{actor}", "line": "Hm."}, "another one of"),
    ],
)
def test_the_world_refuses_what_cannot_be(stage, shot, complaint):
    world, scene, thing = stage
    named = {"actor": scene.people[0], "thing": thing}
    filled = {k: v.format(**named) for k, v in shot.items()}
    shot = Shot(**{"actor": scene.people[0], "expression": "happy", **filled})
    assert complaint in world.refusal(shot, scene, opening=False)


def test_a_hand_holds_one_thing_and_gives_what_it_holds(stage):
    world, scene, thing = stage
    one, two = scene.people
    take = Shot(actor=one, action="take", thing=thing, expression="happy")
    assert "must come later" in world.refusal(take, scene, opening=True)
    assert world.refusal(take, scene, opening=False) is None
    world.act(take, scene, 1)
    assert world.hand(one) == thing
    assert "must lie here and the hand be free" in world.refusal(take, scene, opening=False)
    world.act(Shot(actor=one, action="give", thing=thing, to=two, expression="sad"), scene, 2)
    assert (world.hand(one), world.hand(two)) == (None, thing)


def test_a_third_shot_alike_is_refused(stage):
    world, scene, _ = stage
    shots = Shots(shots=(Shot(actor=scene.people[0], action="sit", expression="happy"),) * 3)
    with pytest.raises(ValueError, match=r"shot 3: .* has done sit in 2 shots in a row"):
        check_shots(shots, world, scene, 3)
    with pytest.raises(ValueError, match="2 shots are asked for, got 3"):
        check_shots(shots, world, scene, 2)


def test_plots_and_scenes_that_contradict_themselves_are_refused():
    plot = Plot.model_validate_json(plot_text())
    with pytest.raises(ValueError, match="2 chapters are asked for, got 1"):
        check_plot(plot, 2)
    twins = plot.model_copy(update={"people": (plot.people[0], plot.people[0])})
    with pytest.raises(ValueError, match="names must be different"):
        check_plot(twins, 1)
    elsewhere = plot.model_copy(update={"locations": plot.locations[:1]})
    with pytest.raises(ValueError, match="not among the locations"):
        check_plot(elsewhere, 1)
    written = Grammar().complete(
        TextRequest("scenes", "", {"plot": plot.model_dump(mode="json"), "count": 1,
                                   "world": World.of(plot).summary()}, {}, seed=0)
    )  # fmt: skip
    scenes = json.loads(written.text)
    scenes["scenes"][0]["people"] = ["Nobody", "Noone"]
    from mmavlm.movies.stories.plan import Scenes

    with pytest.raises(ValueError, match="must be different ones of"):
        check_scenes(Scenes.model_validate(scenes), plot, 1)


def test_an_answer_that_does_not_fit_is_sent_back_with_the_reason():
    generator = Scripted("sorry, no", '{"title": "x"}', f"Here it is:\n```json\n{plot_text()}\n```")
    assert ask(generator, REQUEST, Plot) == Plot.model_validate_json(plot_text())
    last = generator.requests[-1].messages
    assert [m["role"] for m in last] == ["system", "user"] + ["assistant", "user"] * 2
    assert last[2]["content"] == "sorry, no"
    assert "overview: Field required" in last[5]["content"]


def test_answers_that_never_fit_end_in_an_error_that_names_them():
    with pytest.raises(DataError, match=r"plot: none of 2 answers of scripted can be used.*'no'"):
        ask(Scripted("no", "no"), REQUEST, Plot, repairs=1)


def test_an_answer_that_fits_is_kept_and_one_that_does_not_is_not(tmp_path):
    with pytest.raises(DataError):
        ask(Scripted("no"), REQUEST, Plot, repairs=0, keep=tmp_path)
    assert list(tmp_path.iterdir()) == []
    first = ask(Scripted(plot_text()), REQUEST, Plot, keep=tmp_path)
    assert ask(Scripted(), REQUEST, Plot, keep=tmp_path) == first
