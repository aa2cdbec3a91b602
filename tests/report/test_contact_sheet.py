"""Contact sheets in a report."""

import re
from html import unescape

import numpy as np
import pytest

from mmavlm.report import ContactSheet, Report, SheetFrame, SheetQuestion, write_report


def picture(shade):
    return np.full((32, 48, 3), shade, np.uint8)


def page(tmp_path, sheet):
    write_report(tmp_path / "report.html", Report(title="stories", sheets=[sheet]))
    return (tmp_path / "report.html").read_text()


def test_frames_carry_the_numbers_of_the_questions_that_they_answer(tmp_path):
    frames = [SheetFrame(picture(80 * n), n / 2, "Hello!" if n == 1 else "") for n in range(3)]
    questions = [
        SheetQuestion("who", "Who?", "the man", "the man", True, [1, 2]),
        SheetQuestion("where", "Where?", "there", "here", False, [2], (0.5, 1.5)),
        SheetQuestion("free", "And?", "so", "thus", None),
    ]
    text = page(tmp_path, ContactSheet("film.mp4", frames, questions))
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    marks = [re.findall(r'class="mark( \w+)?">(\d)<', figure) for figure in figures]
    assert marks == [[], [(" right", "1")], [(" right", "1"), (" wrong", "2")]]
    assert ["Hello!" in figure for figure in figures] == [False, True, False]
    assert all("data:image/jpeg" in figure for figure in figures)
    assert "0.5 to 1.5 s" in text
    assert "✓ <bdi>the man" in text
    assert "✗ <bdi>there" in text


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=x>'])
def test_no_text_of_a_film_becomes_markup(tmp_path, text):
    question = SheetQuestion(text, text, text, text, False, [0])
    said = page(tmp_path, ContactSheet(text, [SheetFrame(picture(9), 0, text)], [question]))
    assert text not in said
    assert unescape(said).count(text) >= 6


def test_a_report_without_films_says_nothing_of_them(tmp_path):
    write_report(tmp_path / "report.html", Report(title="none"))
    assert "Films and what was answered" not in (tmp_path / "report.html").read_text()


def test_evidence_outside_the_frames_is_refused():
    question = SheetQuestion("who", "Who?", "a", "a", True, [1])
    with pytest.raises(ValueError, match=r"evidence \[1\] must be numbers of the 1 frames"):
        ContactSheet("film.mp4", [SheetFrame(picture(9), 0)], [question])
