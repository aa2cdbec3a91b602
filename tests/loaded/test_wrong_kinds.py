"""What is no film, prompt, question or answer is named, and no error of Python's own is raised."""

import pytest

import mmavlm
from mmavlm.core.errors import CheckpointError, ConfigError, DataError


@pytest.fixture(scope="module")
def model(trained):
    return mmavlm.load(trained, device="cpu")


@pytest.mark.parametrize(
    ("film", "prompt", "said"),
    [
        (None, "who?", "film is None; give a text"),
        (3, "who?", "film is 3; give a text"),
        (["a.mp4", 3], "who?", "film is 3; give a text"),
        (object, "who?", "film is <class 'object'>; give a text"),
        ("a.mp4", None, "prompt is None; give a text"),
        ("a.mp4", ["who?", 5], "prompt is 5; give a text"),
        ("x" * 300, "who?", "no file can have so long a name"),
        ("", "who?", "film is empty; give a path"),
    ],
)
def test_what_is_no_film_and_no_prompt_is_named(model, film, prompt, said):
    with pytest.raises(ConfigError, match=said):
        model.ask(film, prompt)


def test_what_is_no_path_is_named_wherever_one_is_given(model, make_clip, tmp_path):
    answer = model.ask(make_clip(), "who?")
    for use in (
        lambda: mmavlm.load(5),
        lambda: mmavlm.load(b"name"),
        lambda: model.ask_along(["a.mp4"], "who?"),
        lambda: model.chat().show(None),
        lambda: model.explain(answer, stretches=0).save(None),
    ):
        with pytest.raises(ConfigError, match="give a path"):
            use()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file; give a folder"):
        model.explain(answer, stretches=0).save(tmp_path / "file")
    with pytest.raises(ConfigError, match="trust is 3; give a text"):
        mmavlm.load("x", trust=3)
    with pytest.raises(ConfigError, match="text is 5; give the answer"):
        model.explain(answer, 5)


@pytest.mark.parametrize("text", [None, 5, ["who?"]])
def test_what_is_no_question_is_named(model, text):
    talk = model.chat()
    with pytest.raises(DataError, match="a question is a text"):
        talk.say(text)
    with pytest.raises(DataError, match="a question is a text"):
        next(talk.stream(text))


@pytest.mark.parametrize("answer", ["comedy", None, []])
def test_what_is_no_answer_is_not_explained(model, answer):
    with pytest.raises(ConfigError, match="give what ask"):
        model.explain(answer)


def test_a_film_that_begins_with_a_tilde_is_shown(model, make_clip, tmp_path, monkeypatch):
    make_clip("~nobody.mp4")
    monkeypatch.chdir(tmp_path)
    assert model.chat().show("~nobody.mp4").chat.waiting[0].source == tmp_path / "~nobody.mp4"


@pytest.mark.parametrize(
    ("candidates", "said"),
    [
        ([], "no text, or an empty one"),
        (["a", " "], "no text, or an empty one"),
        (["a", "b", "a"], "'a' more than once"),
        ("a", r"candidates takes a list: candidates=\[a"),
        ([None], "are no texts"),
        ({"a": 1}, "are no texts"),
    ],
)
def test_candidates_that_leave_no_choice_are_refused(model, make_clip, candidates, said):
    clip = make_clip()
    for ask in (model.ask, model.ask_along):
        with pytest.raises(ConfigError, match=said):
            ask(clip, "who?", candidates=candidates)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fps": 1e9}, "stream_fps must be at most 1000"),
        ({"fps": 0}, "stream_fps must be above 0"),
        ({"fps": "often"}, "stream_fps must be a number, got 'often'"),
        ({"every_s": -1}, "every_s must be above 0"),
    ],
)
def test_a_rate_that_no_film_has_is_refused(model, make_clip, settings, said):
    with pytest.raises(ConfigError, match=said):
        model.ask_along(make_clip(), "who?", **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data.num_frames": 0}, "data.num_frames must be at least 1, got 0"),
        ({"data.num_frames": "many"}, "data.num_frames must be a whole number, got 'many'"),
        ({"stage.num_beams": 0}, "stage.num_beams must be at least 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(model, make_clip, settings, said):
    with pytest.raises(ConfigError, match=said):
        model.ask(make_clip(), "who?", **settings)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "the name of the model is empty; give a path"),
        ("folder/nope", "folder/nope does not exist; give the path"),
        ("folder", r"config.json cannot be read .*; give a folder written by"),
    ],
)
def test_a_model_that_is_not_there_is_told_as_what_was_meant(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises((CheckpointError, ConfigError), match=said):
        mmavlm.load(name)


def test_films_may_come_one_by_one_as_a_glob_gives_them(model, make_clip, tmp_path):
    names = [make_clip(name).name for name in ("a.mp4", "b.mp4")]
    answers = model.ask(tmp_path.glob("*.mp4"), (text for text in ["who?"]))
    assert sorted(answer.film.name for answer in answers) == names
