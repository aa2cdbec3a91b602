"""What is no film, prompt, question or answer is named, and no error of Python's own is raised."""

import pytest

import mmavlm
from mmavlm.core.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def model(trained):
    return mmavlm.load(trained, device="cpu")


@pytest.mark.parametrize(
    ("film", "prompt"), [(None, "who?"), (3, "who?"), ("a.mp4", None), ("a.mp4", 5)]
)
def test_what_is_no_film_and_no_prompt_is_named(model, film, prompt):
    wrong = film if not isinstance(film, str) else prompt
    with pytest.raises(ConfigError, match=f"is {wrong}; give a text"):
        model.ask(film, prompt)


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
