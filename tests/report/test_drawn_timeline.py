"""The timeline of a film that was watched."""

import numpy as np
import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.report import Moment, Report, Timeline, draw_timeline, save_timeline, write_report
from mmavlm.report.timeline import MOST_NUMBERED, MOST_POINTS, listed, picture

TIMES = [0.5 * n for n in range(8)]
MOMENTS = [
    Moment("said", 2.0, 2.0, "it rains <b>"),
    Moment("asked", 0.0, 0.0, "when does it rain?"),
    Moment("true", 1.5, 2.5, "rain"),
    Moment("taken back", 3.0, 3.0, "it rains"),
]


def line(**more):
    scores = {"informative": [n / 8 for n in range(8)], "relevance": [0.5] * 8, "own": [0.1] * 8}
    settings = {"moments": MOMENTS, "rule": "where informative exceeds 0.5", "threshold": 0.5}
    return Timeline("film.mp4", TIMES, scores, **{**settings, **more})


def test_numbers_of_the_list_are_those_in_the_picture_in_order_of_time():
    found = [(mark, moment.kind) for mark, moment in listed(line())]
    assert found == [("1", "asked"), ("", "true"), ("2", "said"), ("3", "taken back")]
    svg = draw_timeline(line())
    assert all(f">{mark}<" in svg for mark in ("1", "2", "3"))
    assert "threshold" in svg


def test_a_stretch_from_the_midst_of_a_film_is_as_wide_as_the_picture():
    moments = [Moment("asked", 3600.0, 3600.0, "what?"), Moment("true", 2.0, 4.0, "before it")]
    times = [3600 + time_s for time_s in TIMES]
    figure = picture(Timeline("hour", times, {"informative": [0.5] * 8}, moments))
    assert all(axes.get_xlim() == (3600.0, 3603.5) for axes in figure.axes)


@pytest.mark.parametrize("frames_s", [[0.0], [0.0, 10.0]])
def test_one_score_is_drawn_without_a_warning_also_if_the_next_frame_got_none(recwarn, frames_s):
    frames = np.zeros((len(frames_s), 8, 8, 3), np.uint8)
    draw_timeline(Timeline("photo", [0.0], {"own": [0.5]}, frames=frames, frames_s=frames_s))
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("threshold", [-1e9, 1.5, 1e300])
def test_a_threshold_that_no_score_meets_leaves_the_scores_as_they_are(threshold):
    (scores, _) = picture(line(threshold=threshold)).axes
    assert scores.get_ylim() == (-0.03, 1.03)
    assert "threshold" not in {one.get_label() for one in scores.lines}


def test_many_moments_have_no_numbers_and_all_are_listed():
    many = [Moment("said", float(n), float(n), "a") for n in range(MOST_NUMBERED + 1)]
    assert [mark for mark, _ in listed(line(moments=many))] == [""] * len(many)


def test_a_long_line_is_thinned_and_keeps_its_peaks():
    times = [0.5 * n for n in range(7200)]
    scores = [0.0] * 7200
    scores[4321] = 1.0
    figure = picture(Timeline("hour", times, {"informative": scores}))
    (drawn,) = [one for axes in figure.axes for one in axes.lines if one.get_label() != "threshold"]
    assert len(drawn.get_xdata()) <= MOST_POINTS
    at = int(np.argmax(drawn.get_ydata()))
    assert (drawn.get_xdata()[at], drawn.get_ydata()[at]) == (times[4321], 1.0)


def test_the_page_shows_frames_and_escapes_what_was_said(tmp_path):
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    shown = line(frames=frames, frames_s=[0.0, 1.0, 2.0])
    write_report(tmp_path / "report.html", Report(title="t", lead=["It spoke."], timelines=[shown]))
    page = (tmp_path / "report.html").read_text()
    assert "it rains &lt;b&gt;" in page
    assert "<b>" not in page
    assert "It spoke." in page
    assert "No test was run" not in page


def test_a_picture_is_written_by_the_ending_of_its_file(tmp_path):
    save_timeline(line(), tmp_path / "line.png")
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="end it with"):
        save_timeline(line(), tmp_path / "line.doc")


def test_a_head_has_a_score_at_each_frame():
    with pytest.raises(ValueError, match="8 frames, but informative has 1 scores"):
        Timeline("film", TIMES, {"informative": [1.0]})
