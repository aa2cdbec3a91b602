import base64
import hashlib
import io
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
import torch
from explanations import explanation
from PIL import Image

from mmavlm.metrics.headline import Score
from mmavlm.report import (
    Confusion,
    Curve,
    PlayedFilm,
    Report,
    SampleAnswer,
    Table,
    write_report,
)

EVIL = "<script>alert('x')</script> & \"y\" $\\frac{1$"
VOID = {"meta", "img", "br", "wbr", "link", "input"}


class Page(HTMLParser):
    """The elements and texts of a page; fails on tags that do not nest."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def sample(**changes):
    frames = [np.full((48, 64, 3), shade, np.uint8) for shade in (0, 128, 255)]
    settings = {
        "task": "genre", "video_id": "film", "prompt": "what is the genre?", "frames": frames,
        "answers": ["horror", "comedy"], "probabilities": [0.75, 0.25], "truth": "horror",
    }  # fmt: skip
    return SampleAnswer(**{**settings, **changes})


OURS = (files("mmavlm.report") / "report.js").read_text(encoding="utf-8")
FILM = PlayedFilm("film", b"an mp4", 2.0, 4.5, whole=False)


def scripts(html):
    return re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)


def full_report(text="text"):
    return Report(
        title=text,
        scores=[Score(f"{text}/top1", 0.61, 0.52, 0.70, 100, 0.25)],
        facts={"command": text, text: text},
        curves=[Curve(f"{text} loss", [0, 1], [1.0, 0.5], text)],
        confusions=[Confusion(text, [text, "b"], torch.tensor([[3, 1, 0], [0, 0, 0]]))],
        samples=[
            sample(
                task=text,
                video_id=text,
                prompt=text,
                answers=[text, ""],
                truth=text,
                film=replace(FILM, name=text),
            )
        ],
        explanations=[explanation(task=text, video_id=text, prompt=text, answer=text, truth=text)],
        tables=[
            Table(text, [text, "value"], [[text, "1"]], note=text),
            Table(text, [text, "value"], [[text, "1"]], links=["0/report.html"], main=True),
        ],
        config_yaml=f"a: {text}\n",
    )


def written(tmp_path, report):
    path = tmp_path / "report.html"
    write_report(path, report)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_every_text_is_escaped(tmp_path):
    html = written(tmp_path, full_report(EVIL))
    page = Page(html)
    assert scripts(html) == [OURS]
    assert page.texts.count(EVIL) >= 10
    assert EVIL not in html


def test_the_page_fetches_nothing(tmp_path):
    html = written(tmp_path, full_report())
    page = Page(html)
    assert not {"link", "iframe", "object"} & set(page.tags)
    fetched = [v for _, name, v in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith(("data:", "#")) or value == "0/report.html" for value in fetched)
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html
    assert "://" not in re.sub(r' xmlns(:\w+)?="[^"]*"', "", html)


def test_no_script_but_our_own_may_run(tmp_path):
    html = written(tmp_path, full_report(EVIL))
    (script,) = scripts(html)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert f"script-src 'sha256-{digest}'" in policy.split("; ")
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_a_film_lies_in_the_page_once_and_is_pointed_to_from_elsewhere(tmp_path):
    twice = [sample(film=FILM), sample(video_id="other", film=FILM), sample(video_id="none")]
    page = Page(written(tmp_path, Report(title="t", samples=twice)))
    (uri,) = [value for tag, name, value in page.attributes if (tag, name) == ("video", "src")]
    assert base64.b64decode(uri.removeprefix("data:video/mp4;base64,")) == b"an mp4"
    assert ("details", "id", "film-1") in page.attributes
    assert page.attributes.count(("a", "href", "#film-1")) == 1
    assert "Play the film, from 2 to 4 s" in page.texts
    assert ("video", "data-start-s", "2.0") in page.attributes
    assert ("video", "data-last-s", "2.500") in page.attributes


def test_tables_that_a_page_is_about_are_open_and_lead_to_their_rows(tmp_path):
    shown = [
        Table("jobs", ["job", "score"], [["0", "1"], ["1", "2"]], "a note", ["0/r.html", ""], True),
        Table("rest", ["name"], [["x"]]),
    ]
    html = written(tmp_path, Report(title="t", tables=shown))
    assert html.index("a note") < html.index("<h2>Details</h2>") < html.index("rest")
    page = Page(html)
    assert [value for tag, name, value in page.attributes if tag == "a"] == ["0/r.html"]
    with pytest.raises(ValueError, match=r"Table 'jobs': 1 rows have 2 links"):
        Table("jobs", ["job"], [["0"]], links=["a", "b"])


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    earlier = written(tmp_path, Report(title="earlier"))

    def full_disk(self, text, encoding):
        self.write_bytes(text.encode(encoding)[:100])
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_text", full_disk)
        with pytest.raises(OSError, match="No space left"):
            write_report(tmp_path / "report.html", Report(title="later"))
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == earlier


def test_frames_come_back_out_of_the_page(tmp_path):
    page = Page(written(tmp_path, Report(title="t", samples=[sample()])))
    uris = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    shades = []
    for uri in uris:
        image = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
        assert image.size == (64, 48)
        shades.append(round(float(np.asarray(image).mean())))
    assert shades == pytest.approx([0, 128, 255], abs=2)


def test_large_frames_are_made_small(tmp_path):
    frame = np.zeros((720, 1280, 3), np.uint8)
    page = Page(written(tmp_path, Report(title="t", samples=[sample(frames=[frame])])))
    (uri,) = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    assert image.size == (224, 126)


@pytest.mark.parametrize(("compare", "verdict"), [("whole", "✗ wrong"), ("first_word", "✓ right")])
def test_an_answer_is_right_by_the_rule_it_is_measured_by(tmp_path, compare, verdict):
    shown = sample(answers=["Horror film"], probabilities=[1.0], compare=compare)
    write_report(tmp_path / "report.html", replace(full_report(), samples=[shown]))
    assert verdict in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("answer", "verdict"), [("horror", "✓ right"), (" Horror", "✓ right"), ("comedy", "✗ wrong")]
)
def test_the_verdict_compares_the_first_answer_as_the_metrics_do(tmp_path, answer, verdict):
    answered = sample(answers=[answer, "horror"])
    page = Page(written(tmp_path, Report(title="t", samples=[answered])))
    assert [text for text in page.texts if text.startswith(("✓", "✗"))] == [verdict]


def test_an_item_without_an_answer_gets_no_verdict(tmp_path):
    silent = sample(answers=[], probabilities=[], frames=[])
    page = Page(written(tmp_path, Report(title="t", samples=[silent])))
    assert "horror" in page.texts
    assert not any("✓" in text or "✗" in text for text in page.texts)


def test_the_headline_sets_number_and_interval_apart(tmp_path):
    page = Page(written(tmp_path, full_report()))
    assert "61.0 %" in page.texts
    assert "95 %: 52.0 to 70.0" in page.texts


def test_a_confusion_shows_counts_recall_and_classes_without_items(tmp_path):
    page = Page(written(tmp_path, full_report()))
    assert "75% of 4" in page.texts
    assert "no items" in page.texts


def test_an_empty_report_is_a_page_with_its_title(tmp_path):
    page = Page(written(tmp_path, Report(title="nothing yet")))
    assert "nothing yet" in page.texts
    assert "h2" not in page.tags


def test_no_id_occurs_twice(tmp_path):
    curves = [Curve(name, [0, 1], [1.0, 0.5]) for name in ("loss", "lr")]
    page = Page(written(tmp_path, Report(title="t", curves=curves)))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert ids
    assert len(ids) == len(set(ids))


def test_curves_of_one_name_share_axes(tmp_path):
    curves = [Curve("loss", [0, 1], [1.0, 0.5], split) for split in ("train", "val")]
    curves.append(Curve("lr", [0, 1], [1.0, 0.5]))
    page = Page(written(tmp_path, Report(title="t", curves=curves)))
    assert page.tags.count("svg") == 2


def test_details_and_settings_are_folded_under_the_main_curves(tmp_path):
    names = {"loss": "train", "genre/top1": "val", "wait": "train", "lr-AdamW": ""}
    curves = [Curve(name, [0, 1], [1.0, 0.5], split) for name, split in names.items()]
    html = written(tmp_path, Report(title="t", curves=curves))
    assert "3 more curves" in Page(html).texts
    main, folded = html.split("<details>")
    assert main.count("<svg") == 1
    assert folded.count("<svg") == 3


def test_curves_of_a_stage_stand_together(tmp_path):
    stages = {"stage 1": ("loss", "lr"), "stage 2": ("loss",)}
    curves = [
        Curve(name, [0, 1], [1.0, 0.5], "train", group=stage)
        for stage, names in stages.items()
        for name in names
    ]
    html = written(tmp_path, Report(title="t", curves=[curves[0], curves[2], curves[1]]))
    shown = re.findall(r"<h[34][^>]*><bdi>([^<]*)</bdi>", html)
    assert shown == ["stage 1", "loss", "lr", "stage 2", "loss"]
    ids = [value for _, name, value in Page(html).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_counts_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"Confusion 'genre': counts .*\(2, 3\), got \(2, 2\)"):
        Confusion("genre", ["a", "b"], np.zeros((2, 2), np.int64))


def test_a_probability_for_each_answer_is_needed():
    with pytest.raises(ValueError, match="'film': got 1 answers but 2 probabilities"):
        sample(answers=["horror"])


def test_frames_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match=r"uint8 \(H,W,3\), got float32 \(3, 4, 4\)"):
        sample(frames=[np.zeros((3, 4, 4), np.float32)])


def test_a_row_with_a_cell_too_few_is_refused():
    with pytest.raises(ValueError, match=r"Table 'x': a row must have 2 cells, got \['1'\]"):
        Table("x", ["a", "b"], [["1"]])


def test_items_without_a_row_in_the_matrix_are_told_of(tmp_path):
    said = "more items are not shown"
    report = full_report()
    assert said not in written(tmp_path, report)
    short = Confusion("a", ["b"], torch.zeros(1, 2), left_out=7)
    assert f"7 {said}" in written(tmp_path, replace(report, confusions=[short]))


def test_the_first_sentence_says_what_was_learnt_and_how_sure(tmp_path):
    page = Page(
        written(
            tmp_path, Report(title="t", scores=[Score("genre/top1", 0.82, 0.761, 0.867, 200, 0.25)])
        )
    )
    said = (
        "\u2068Genre\u2069: 82.0 % of 200 test items right, 95 % interval 76.1 to 86.7; the most "
        "common answer alone would give 25.0 %."
    )
    texts = [text for text in page.texts if text]
    assert texts.index(said) == texts.index("t", 1) + 1, "right below the title"


def test_what_a_name_means_is_told_beside_the_numbers(tmp_path):
    shown = Report(title="t", scores=[Score("genre/rank_top1", 0.5, 0.4, 0.6, 100, 0.25)])
    page = Page(written(tmp_path, shown))
    assert "rank_top1" in page.texts
    assert any(text.startswith("right answers, ranked. Ranked: the model") for text in page.texts)
    (tip,) = [value for _, name, value in page.attributes if name == "title"]
    assert "test/genre/rank_top1" in tip


def test_wrong_answers_come_first_on_request_without_a_script(tmp_path):
    both = [sample(), sample(video_id="other", answers=["comedy"], probabilities=[1.0])]
    html = written(tmp_path, Report(title="t", samples=both))
    page = Page(html)
    assert ("input", "id", "wrong-first") in page.attributes
    cards = [v for tag, name, v in page.attributes if (tag, name) == ("article", "class")]
    assert cards == ["card sample", "card sample mistaken"]
    assert "#wrong-first:checked ~ .samples .mistaken { order: -1; }" in html
    alike = Page(written(tmp_path, Report(title="t", samples=both[:1])))
    assert "input" not in alike.tags, "nothing to choose"


def test_texts_from_right_to_left_turn_nothing_around_them(tmp_path):
    hebrew = "\u202eסרט (1)"
    html = written(tmp_path, full_report(hebrew))
    body = html[html.index("<body") :]
    parts = re.split(re.escape(hebrew), body)
    for before, after in itertools.pairwise(parts):
        opened = re.search(r"<(\w+)([^<>]*)>[^<>]*$", before)
        in_attribute = before.rfind("<") > before.rfind(">")
        # a label of a picture stands alone
        isolated = opened and (opened[1] in ("bdi", "text") or " dir=" in opened[2])
        assert in_attribute or isolated or before.endswith("\u2068"), (before[-80:], after[:20])
