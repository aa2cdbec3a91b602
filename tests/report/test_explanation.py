import math
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from explanations import explanation
from PIL import Image

from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import PatchGrid
from mmavlm.model.otherwise import SHUFFLED, WITHOUT_FILM, Otherwise
from mmavlm.report import draw_explanation, save_explanation
from mmavlm.report.explanation import frame_edges, picture
from mmavlm.report.findings import findings
from mmavlm.report.places import heat_map, looked_at


def texts(svg):
    return {e.text.strip() for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")}


def saved(explained, tmp_path):
    """The texts of the picture as a file."""
    save_explanation(explained, tmp_path / "why.svg")
    return texts((tmp_path / "why.svg").read_text())


def test_a_picture_in_a_file_tells_question_answer_and_what_was_found(tmp_path):
    told = saved(explanation(change_when_grey=0.004), tmp_path)
    assert {"what is the genre?", "time in the film (s)", "memory slot", "query token"} <= told
    assert any("comedy (p = 0.607, truth: comedy)" in text for text in told)
    assert any("Nearly the same with every frame grey" in text for text in told)


def test_a_picture_of_a_page_has_its_colours_and_leaves_words_to_the_page():
    svg = draw_explanation(explanation())
    assert {"time in the film (s)", "memory slot", "query token"} <= texts(svg)
    assert not any("genre" in text or "comedy" in text for text in texts(svg))
    assert "what is the genre?" in texts(draw_explanation(explanation(), title=True))
    assert "#010203" not in svg
    assert "currentColor" in svg


def test_equal_explanations_give_equal_pictures():
    assert draw_explanation(explanation()) == draw_explanation(explanation())


def test_texts_of_a_picture_are_escaped(tmp_path):
    evil = "<script>alert('x')</script> & $\\frac{1$"
    assert evil in saved(explanation(prompt=evil, answer=evil, truth=evil), tmp_path)
    assert "<script" not in (tmp_path / "why.svg").read_text()


@pytest.mark.parametrize(("changes", "reach"), [(0.008, 0.5), (0.3, 0.5), (2.0, 2.3)])
def test_the_axis_of_changes_reaches_half_a_nat_or_to_the_largest(changes, reach):
    explained = explanation(changes=changes * torch.tensor([1.0, -0.5, 0.2]))
    (axes,) = [a for a in picture(explained).axes if "nats" in a.get_ylabel()]
    assert axes.get_ylim() == pytest.approx((-reach, reach))


def test_places_are_drawn_over_the_frames_of_the_most_looked_at_slots():
    slots = torch.tensor([[1.0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    patches = torch.full((6, 13), 0.001)
    patches[3, 1 + 4 * 2 + 1] = 0.6  # row 2, column 1 of the grid behind one class token
    patches[0, 0] = 0.3
    attention = torch.stack([patches[2 * s : 2 * s + 2].sum() for s in range(3)])
    planted = replace(
        explanation(),
        slots=slots,
        slot_attention=attention.expand(2, 4, 3),
        patch_attention=patches,
    )
    assert [frame for _, frame in looked_at(planted)][:2] == [3, 0]
    assert [slot for slot, _ in looked_at(planted)][:2] == [1, 0]
    heat = heat_map(planted, 3)
    assert heat.shape == (3, 4)
    assert np.unravel_index(heat.argmax(), heat.shape) == (2, 1)
    assert heat.max() == pytest.approx(0.6 * patches.numel())  # in shares of even attention
    assert heat_map(planted, 0).max() < 1, "the class token lies nowhere in the picture"
    assert any("slot 2" in text and "at 1.5 s" in text for text in _texts_of(planted))


def test_even_attention_is_drawn_pale():
    patches = torch.full((6, 13), 1 / 78)
    figure = picture(explanation(patch_attention=patches))
    heats = [
        image for axes in figure.axes for image in axes.images if image.get_cmap().name == "heat"
    ]
    assert heats
    assert all(float(image.norm(image.get_array()).max()) <= 0.25 + 1e-6 for image in heats)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch_grid": None}, "the encoder does not say how the 13 tokens"),
        ({"frames": None}, "it read cached features"),
    ],
)
def test_where_no_place_is_known_it_is_said_and_nothing_drawn(changes, said):
    unknown = replace(explanation(), **changes)
    assert any(said in sentence for sentence in findings(unknown))
    assert not any("slot 1 (" in text or "× even" in text for text in _texts_of(unknown))


def _texts_of(explained):
    return texts(draw_explanation(explained))


@pytest.mark.parametrize(
    ("grey", "stretch", "said"),
    [
        (0.004, 0.008, ["Nearly the same with every frame grey", "No stretch matters by itself"]),
        (-0.0999, 0.2, ["Nearly the same with every frame grey"]),
        (-0.1001, 0.2, ["1.11 times less probable"]),
        (1.5, 0.2, ["4.48 times more probable"]),
        (None, 0.2, []),
        (-1.5, 0.05, ["times less probable", "No stretch matters by itself"]),
    ],
)
def test_the_film_is_said_to_matter_where_a_grey_one_gives_another_probability(grey, stretch, said):
    changes = torch.tensor([0.0, -stretch, 0.01])
    told = findings(
        explanation(
            change_when_grey=grey,
            changes=changes,
            patch_attention=torch.ones(6, 12),
            patch_grid=PatchGrid(0, 3, 4),
        )
    )
    assert len(told) == len(said)
    assert all(part in sentence for part, sentence in zip(said, told, strict=True))


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
    one = replace(one, stretches=(), change_when_grey=None)
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


def test_findings_say_whether_the_film_was_needed():
    others = (
        Otherwise(WITHOUT_FILM, "Comedy", math.log(0.25)),
        Otherwise(SHUFFLED, "a drama", math.log(0.1)),
    )
    explained = replace(explanation(), answer="comedy", log_prob=math.log(0.5), otherwise=others)
    first, second = findings(explained)[:2]
    assert first == (
        "Without the film the model says the same (probability 0.25, of the film 0.5)."
    )
    assert second == (
        "With the frames shuffled the model says “a drama”; this answer has probability 0.1, of "
        "the film 0.5."
    )


def test_a_film_of_which_one_stretch_matters_is_not_said_to_matter_nothing():
    # grey frames may suggest the very answer that the stretch shows
    hidden = replace(explanation(), change_when_grey=-0.003, changes=torch.tensor([0.0, -6.0, 0.0]))
    told = " ".join(findings(hidden))
    assert "does not rest" not in told
    assert "yet hiding one stretch changes it by 6.000 nats" in told
    assert "does not rest" in " ".join(findings(replace(hidden, changes=torch.zeros(3))))


def test_a_long_or_empty_other_answer_is_told_shortly():
    others = (Otherwise(WITHOUT_FILM, "word " * 50, -1.0), Otherwise(SHUFFLED, " ", -1.0))
    told = findings(replace(explanation(), otherwise=others))
    assert len(told[0]) < 160
    assert "says “nothing”" in told[1]
