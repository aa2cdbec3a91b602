from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from explanations import explanation
from PIL import Image

from mmavlm.errors import ConfigError
from mmavlm.report import draw_explanation, save_explanation
from mmavlm.report.explanation import frame_edges


def texts(svg):
    return {e.text.strip() for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")}


def test_a_picture_tells_question_answer_and_seconds_in_the_colours_of_the_page():
    svg = draw_explanation(explanation())
    assert {"what is the genre?", "time in the film (s)", "memory slot", "query token"} <= texts(
        svg
    )
    assert any("comedy (p = 0.607, truth: comedy)" in text for text in texts(svg))
    assert "#010203" not in svg
    assert "currentColor" in svg


def test_equal_explanations_give_equal_pictures():
    assert draw_explanation(explanation()) == draw_explanation(explanation())


def test_texts_of_a_picture_are_escaped():
    evil = "<script>alert('x')</script> & $\\frac{1$"
    svg = draw_explanation(explanation(prompt=evil, answer=evil, truth=evil))
    assert "<script" not in svg
    assert evil in texts(svg)


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": None},
        {"stretches": (), "changes": torch.zeros(0)},
        {"times_s": torch.zeros(6)},
        {"truth": ""},
        {"prompt": "why " * 200},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_picture_is_drawn_of_what_there_is(changes):
    full = explanation()
    svg = draw_explanation(replace(full, **changes))
    assert "image" in svg
    assert "time in the film (s)" in texts(svg)
    assert ("Δ log p (nats)" in texts(svg)) == ("stretches" not in changes)


def test_a_single_picture_is_a_film_of_one_frame():
    one = explanation(frames=1, slots=1, stretches=1, changes=torch.zeros(0))
    one = replace(one, stretches=())
    assert "memory slot" in texts(draw_explanation(one))


def test_frames_meet_halfway_between_their_times():
    assert frame_edges(np.array([0.0, 1.0, 3.0])).tolist() == [-0.5, 0.5, 2.0, 4.0]
    assert frame_edges(np.array([2.0])).tolist() == [1.5, 2.5]
    assert (np.diff(frame_edges(np.zeros(4))) > 0).all()


def test_a_picture_is_written_whole_in_the_kind_its_ending_says(tmp_path):
    save_explanation(explanation(), tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as image:
        assert image.size[0] > 1000
    save_explanation(explanation(), tmp_path / "why.svg")
    ElementTree.fromstring((tmp_path / "why.svg").read_text())
    with pytest.raises(ConfigError, match=r"why\.docx; end it with \.png, \.svg or \.pdf"):
        save_explanation(explanation(), tmp_path / "why.docx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["why.png", "why.svg"]
