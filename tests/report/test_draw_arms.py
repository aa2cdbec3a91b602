from xml.etree import ElementTree

from mmavlm.metrics.arms import Mean
from mmavlm.metrics.planted_bias import SCORES
from mmavlm.report import draw_arms


def means(*arms, bound=0.1):
    found = Mean({1: 0.4, 2: 0.6}, 0.5, 0.5 - bound, 0.5 + bound)
    return {arm: dict.fromkeys(SCORES, found) for arm in arms}


def test_every_arm_is_named_and_the_drawing_is_the_same_twice():
    svg = draw_arms(means("baseline", "two_levels"))
    texts = {"".join(node.itertext()).strip() for node in ElementTree.fromstring(svg).iter()}
    assert {"baseline", "two levels", "partner there"} <= texts
    assert svg == draw_arms(means("baseline", "two_levels"))


def test_one_seed_without_an_interval_is_drawn_too():
    assert "baseline" in draw_arms(means("baseline", bound=float("nan")))


def test_what_is_laid_over_an_arm_stands_below_it_and_each_arm_has_a_line_of_its_own():
    drawn = means("one", "one + x", "two", "two + y")
    groups = [{"one": "one", "one + x": "+ x"}, {"two": "two", "two + y": "+ y"}]
    texts = [
        "".join(node.itertext()).strip()
        for node in ElementTree.fromstring(draw_arms(drawn, groups)).iter()
        if node.tag.endswith("text")
    ]
    assert [text for text in texts if text in {"one", "+ x", "two", "+ y"}] == [
        "one", "+ x", "two", "+ y",
    ]  # fmt: skip
    dotted = [svg.count("stroke-dasharray") for svg in (draw_arms(drawn), draw_arms(drawn, groups))]
    assert dotted[1] == 2 * dotted[0]
