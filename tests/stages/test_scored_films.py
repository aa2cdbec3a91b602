"""A test of watched films, set by set, by what was chosen on validation."""

import json

import pytest

from mmavlm.metrics.duet.choosing import Chosen
from mmavlm.metrics.duet.files import read_events
from mmavlm.metrics.duet.tasks import Seen, scored
from mmavlm.metrics.duet.watched import Event, EventTruth, HighlightTruth, Said, Watched
from mmavlm.stages.scored_films import score_films, write_films

SECONDS = 12
TIMES = tuple(map(float, range(SECONDS)))


def set_of(name):
    return name.partition("/")[0] if "/" in name else ""


def film(question, start, height=0.9, heads=("informative", "relevance")):
    curve = tuple(height if start <= t <= start + 2 else 0.1 for t in range(SECONDS))
    return Watched(question, float(SECONDS), TIMES, dict.fromkeys(heads, curve))


def truth(question, start, text="a dog"):
    event = Event(float(start), start + 2.0, text)
    return EventTruth(question, f"film of {question}", (event,), (Said(0.0, "when?"),))


def split(names, **more):
    """Films and truths of questions by name, each with its event somewhere."""
    places = {name: 2 + number % 5 for number, name in enumerate(names)}
    films = {name: film(name, start, **more) for name, start in places.items()}
    return films, [truth(name, start) for name, start in places.items()]


def films_and_truths(*prefixes):
    """Two splits of the sets of a mix, which are scored by tasks of their own."""
    films, truths = {}, {}
    for of in ("val", "test"):
        films[of], truths[of] = {}, {}
        for prefix, task in prefixes:
            watched, true = split([f"{prefix}{of}{n}" for n in range(4)])
            films[of] |= watched
            truths[of].setdefault(f"{prefix}{task}", []).extend(true)
    return films, truths


@pytest.mark.parametrize(
    ("task", "headline"), [("magqa", "speaking_f1"), ("grounding", "miou")], ids=str
)
def test_a_set_is_scored_by_its_task(task, headline):
    films, truths = films_and_truths(("", task))
    (result,) = score_films(films, truths, set_of).values()
    assert result.values[headline] == pytest.approx(1)
    assert (result.chosen.split, result.chosen.questions) == ("val", 4)
    assert "chosen on val" in result.how_chosen


def test_ratings_of_clips_are_scored_as_highlights():
    films, _ = films_and_truths(("", "magqa"))
    truths = {
        of: {"highlights": [HighlightTruth(name, f"film of {name}", 12.0, (1, 2), ((4, 4, 4),) * 2)
                            for name in films[of]]}
        for of in films
    }  # fmt: skip
    (result,) = score_films(films, truths, set_of).values()
    assert result.task == "highlights"
    assert result.how_chosen.startswith("window=")


def test_sets_of_a_mix_are_scored_and_written_each_as_if_it_stood_alone(tmp_path):
    sets = (("asks/", "magqa"), ("finds/", "grounding"))
    films, truths = films_and_truths(*sets)
    results = score_films(films, truths, set_of)
    assert {name: result.task for name, result in results.items()} == {
        "asks": "speaking", "finds": "grounding"
    }  # fmt: skip
    write_films(tmp_path, truths, results, set_of)
    for name, result in results.items():
        alone = {
            of: Seen([f for key, f in films[of].items() if set_of(key) == name],
                     read_events(tmp_path / f"truth_{of}_{name}.jsonl"))
            for of in films
        }  # fmt: skip
        assert scored(result.task, alone["test"], alone["val"]) == result
        written = json.loads((tmp_path / f"duet_{name}.json").read_text())
        assert written == json.loads(json.dumps(result.summary))
        assert not result.pairs.unasked


def test_what_cannot_be_scored_is_named_and_the_rest_is_scored(caplog):
    films, truths = films_and_truths(("a/", "magqa"), ("b/", "magqa"), ("c/", "magqa"))
    truths["test"]["c/grounding"] = truths["test"]["c/magqa"][:2]  # a set of two tasks
    truths["val"]["b/magqa"] = truths["val"]["b/magqa"] + truths["test"]["b/magqa"][:1]
    assert score_films(films, truths, set_of).keys() == {"a"}
    assert "the test of b is not scored by task=speaking: 1 films are in val_truth" in caplog.text
    assert "the test of c is of several tasks and not scored: grounding, speaking" in caplog.text


@pytest.mark.parametrize("missing", ["films", "truths"])
def test_without_a_validation_nothing_is_chosen(missing, caplog):
    films, truths = films_and_truths(("", "magqa"))
    if missing == "films":
        films["val"] = {}
    else:
        del truths["val"]
    assert score_films(films, truths, set_of) == {}
    assert "no setting can be chosen" in caplog.text


def test_a_head_that_the_model_does_not_have_leaves_the_rest_of_the_run(caplog):
    films, truths = films_and_truths(("", "magqa"))
    films["test"], _ = split(films["test"], heads=("relevance",))
    assert score_films(films, truths, set_of) == {}
    assert "no scores of the head 'informative'" in caplog.text


def test_questions_that_do_not_count_as_others_are_named(caplog):
    films, truths = films_and_truths(("", "magqa"))
    films["test"].pop("test0")
    truths["test"]["magqa"].pop()
    (result,) = score_films(films, truths, set_of).values()
    assert "were not watched, and count as wrong (1): test0" in caplog.text
    assert "the truth does not have, and are left out (1): test3" in caplog.text
    assert result.summary["missing"] == ["test0"]
    assert isinstance(result.chosen, Chosen)
