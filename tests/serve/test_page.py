"""The page in a browser: a film, questions, what answers rest on, two users, a server that dies."""

import os

import pytest
from visitors import serving

from mmavlm.serve.limits import Limits

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 800}

pytestmark = pytest.mark.slow


@pytest.fixture
def visit(browser):
    """A function that opens the page as a user of its own; scripts must not fail."""
    opened, errors = [], []

    def visit(address, **settings):
        context = browser.new_context(viewport=DESKTOP, **settings)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda request: (
                errors.append(request.url)
                if not (request.url.startswith((address, "blob:")))
                else None
            ),
        )
        page.goto(address)
        opened.append(context)
        return page

    yield visit
    for context in opened:
        context.close()
    assert errors == []


def bring(page, clip):
    page.locator("#file").set_input_files(clip)
    page.locator("#shown").wait_for()


def ask(page, text):
    page.locator("#text").fill(text)
    page.locator("#text").press("Enter")
    turn = page.locator("#turns li", has_text=text).last
    turn.get_by_role("button", name="Copy the command").first.wait_for()
    return turn.locator(".said").first.inner_text()


def picture(page, name):
    """Keep a picture for eyes, if a folder for them is named."""
    if folder := os.environ.get("MMAVLM_PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_a_film_is_asked_about_and_shown_where_the_answer_looked(visit, server, model, make_clip):
    page, clip = visit(server[0]), make_clip("my film.webm", codec="libvpx", frames=50)
    bring(page, clip)
    said = ask(page, "what happens?")
    assert said == model.chat().show(clip).say("what happens?").text
    page.get_by_role("button", name="Why?").first.click()
    page.locator("#timeline rect.looked").first.wait_for()
    assert page.locator(".bars meter").count() >= 2
    box = page.locator("#timeline svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    page.wait_for_function("document.querySelector('video').currentTime > 1.5")
    page.get_by_role("button", name="Copy the command").first.click()
    assert "'video=my film.webm' <<'END'\nwhat happens?\nEND" in page.locator("pre").inner_text()
    picture(page, "desktop")
    ask(page, "and then?")
    assert page.locator("#turns li").count() == 2
    ask(page, "what happens?")
    page.get_by_role("button", name="Copy the command").last.click()
    last = page.locator("pre").last.inner_text()
    assert last.endswith("\nwhat happens?\nand then?\nwhat happens?\nEND")
    page.get_by_role("button", name="New conversation").click()
    assert page.locator("#turns li").count() == 0
    assert ask(page, "what happens?") == said


def test_two_models_answer_side_by_side(visit, model, make_clip):
    with serving([model, model], Limits()) as (address, *_):
        page = visit(address)
        bring(page, make_clip())
        said = ask(page, "what happens?")
        page.get_by_role("button", name="Copy the command").nth(1).wait_for()
        assert page.locator(".said").all_inner_texts() == [said, said]


def test_another_film_begins_another_conversation(visit, server, model, make_clip, tmp_path):
    page, first, second = visit(server[0]), make_clip("a.mp4"), make_clip("b.mp4", frames=10)
    bring(page, first)
    ask(page, "what happens?")
    page.locator("#other").set_input_files(second)
    page.locator("#name", has_text="b.mp4").wait_for()
    assert page.locator("#turns li").count() == 0
    assert ask(page, "what is it?") == model.chat().show(second).say("what is it?").text
    (tmp_path / "c.mp4").write_bytes(b"no film")
    page.locator("#other").set_input_files(tmp_path / "c.mp4")
    page.locator("#notice", has_text="c.mp4").wait_for()
    assert page.locator("#drop").is_visible()


def test_a_film_that_is_dropped_is_opened(visit, server, make_clip):
    page, clip = visit(server[0]), make_clip()
    data = page.evaluate_handle(
        """bytes => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "dropped.mp4")); return data; }""",
        [*clip.read_bytes()],
    )
    page.dispatch_event("#film", "drop", {"dataTransfer": data})
    page.locator("#shown").wait_for()
    assert page.locator("#name").inner_text() == "dropped.mp4"


def test_two_users_ask_at_once(visit, server, model, make_clip):
    first, second = visit(server[0]), visit(server[0])
    clips = [make_clip("a.mp4"), make_clip("b.mp4", frames=10)]
    for page, clip in zip((first, second), clips, strict=True):
        bring(page, clip)
    for page in (first, second):
        page.locator("#text").fill("what is it?")
        page.locator("#text").press("Enter")
    for page, clip in zip((first, second), clips, strict=True):
        page.get_by_role("button", name="Copy the command").first.wait_for()
        assert (
            page.locator(".said").first.inner_text()
            == model.chat().show(clip).say("what is it?").text
        )


def test_a_duet_watches_while_the_film_plays(visit, server, make_clip):
    page = visit(server[0])
    bring(page, make_clip("watched.webm", codec="libvpx"))
    page.locator("#query").fill("tell me when it changes")
    page.get_by_role("button", name="Watch").click()
    page.locator("#timeline polyline").first.wait_for()
    page.get_by_text(" frames, ").wait_for()
    picture(page, "watched")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("large.mp4", b"x" * 600_000, "more than 0.5 MB"), ("broken.mp4", b"no film", "broken.mp4")],
)
def test_a_film_that_cannot_be_taken_is_named(visit, server, tmp_path, name, content, said):
    page = visit(server[0])
    (tmp_path / name).write_bytes(content)
    page.locator("#file").set_input_files(tmp_path / name)
    page.locator("#notice", has_text=said).wait_for()
    assert page.locator("#drop").is_visible()


def test_a_server_that_begins_anew_is_met_again_without_a_reload(visit, model, make_clip):
    limits = Limits()
    with serving([model], limits) as (address, _, visits):
        page = visit(address)
        bring(page, make_clip())
        before = ask(page, "what happens?")
        for visit_id in [*visits._visits]:  # as another server would know none of them
            visits.end(visit_id)
        page.locator("#text").fill("and then?")
        page.locator("#text").press("Enter")
        page.locator("#notice", has_text="begun anew").wait_for()
        assert page.locator("#text").input_value() == "and then?"
        assert ask(page, "what happens?") == before


def test_the_page_serves_a_phone_and_the_dark(visit, server, make_clip):
    page = visit(server[0], color_scheme="dark")
    page.set_viewport_size(PHONE)
    bring(page, make_clip("a.webm", codec="libvpx"))
    ask(page, "what happens in this film, and why does it happen so?")
    page.get_by_role("button", name="Why?").first.click()
    page.locator("#timeline rect.looked").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    picture(page, "phone")
