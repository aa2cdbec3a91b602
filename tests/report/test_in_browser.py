"""A report in a browser: its tables sort, its films play, and nothing else happens."""

import numpy as np
import pytest

from mmavlm.core.medium import Medium
from mmavlm.report import ContactSheet, Report, SampleAnswer, SheetFrame, Table, write_report
from mmavlm.run.films import small_film

pytestmark = pytest.mark.slow

ROWS = [["b", "2", "−1.5"], ["a", "10", "3 (2 to 4)"], ["c", "", "0.5"]]


@pytest.fixture
def opened(browser, tmp_path, make_clip):
    """The page of a report; no script may fail, and nothing be asked for."""
    clip = make_clip()
    film = small_film(Medium(medium_id="film", source=clip), 60)
    still = np.zeros((32, 48, 3), np.uint8)
    sheet = ContactSheet("film", [SheetFrame(still, at_s) for at_s in (0.0, 0.5, 99.0)], [], film)
    sample = SampleAnswer("t", "film", "what?", ["a"], [1.0], "a", film=film)
    table = Table("jobs", ["name", "count", "points"], ROWS, main=True)
    write_report(tmp_path / "report.html", Report(
        title="t", tables=[table], sheets=[sheet], samples=[sample],
    ))  # fmt: skip
    context, wrong = browser.new_context(), []
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    address = (tmp_path / "report.html").as_uri()
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((address, "data:")) else wrong.append(asked.url),
    )
    page.goto(address)
    yield page
    context.close()
    assert wrong == []


def column(page, number):
    return page.locator(f"table.plain tbody td:nth-child({number})").all_inner_texts()


@pytest.mark.parametrize(
    ("heading", "number", "ascending", "descending"),
    [
        ("name", 1, ["a", "b", "c"], ["c", "b", "a"]),
        ("count", 2, ["2", "10", ""], ["10", "2", ""]),
        ("points", 3, ["−1.5", "0.5", "3 (2 to 4)"], ["3 (2 to 4)", "0.5", "−1.5"]),
    ],
)
def test_a_heading_sorts_its_table_up_down_and_back(opened, heading, number, ascending, descending):
    button = opened.get_by_role("button", name=heading)
    before = column(opened, number)
    button.click()
    assert column(opened, number) == ascending
    assert opened.locator("th[aria-sort=ascending]").inner_text().startswith(heading)
    button.press("Enter")
    assert column(opened, number) == descending
    button.click()
    assert column(opened, number) == before


def test_a_film_plays_and_a_frame_has_it_jump(opened):
    frames = opened.locator(".reel figure")
    assert [frame.get_attribute("role") for frame in frames.all()] == ["button", "button", None]
    frames.nth(1).click()
    opened.wait_for_function("document.querySelector('video').currentTime >= 0.5")
    assert opened.evaluate("document.querySelector('video').videoWidth") > 0
    assert opened.locator("video").count() == 1


def test_a_link_to_a_film_unfolds_it(opened):
    assert not opened.locator("video").is_visible()
    opened.get_by_role("link", name="The film plays where it is shown first.").click()
    assert opened.locator("video").is_visible()
