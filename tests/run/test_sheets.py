"""Contact sheets of films whose questions name the moments that show the answer."""

import json

import numpy as np
import pytest
from PIL import Image

from mmavlm.core.interfaces import Answer
from mmavlm.data.readers import OwnReader
from mmavlm.data.subtitles import read_subtitles
from mmavlm.metrics import Prediction
from mmavlm.movies.generators import Grammar, ProceduralImages
from mmavlm.movies.stories.make import StorySettings, make_stories
from mmavlm.run.sheets import FRAMES, QUESTIONS, contact_sheets


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    settings = StorySettings(films=5, fan_out=(1, 2, 13), fps=2)
    images = ProceduralImages(64)
    return make_stories(tmp_path_factory.mktemp("stories"), settings, Grammar(), images)


@pytest.fixture(scope="module")
def items(root):
    return OwnReader()(root, "train", None)


def answered(items, right=True):
    return {
        item.item_id: Prediction(
            item.item_id, item.video_id, item.task, item.prompt, item.target,
            [Answer(item.target if right else "the dog", -1.0)], [], [item.target],
        )
        for item in items
    }  # fmt: skip


def test_a_sheet_has_a_films_frames_in_order_and_those_that_show_an_answer(root, items):
    sheets = contact_sheets(items, answered(items))
    assert len(sheets) == 3
    assert [sheet.film for sheet in sheets] == list(dict.fromkeys(i.video_id for i in items))[:3]
    by_prompt = {(i.video_id, i.prompt, i.conversation.media[0].end_s): i for i in items}
    for sheet in sheets:
        times = [frame.at_s for frame in sheet.frames]
        assert times == sorted(times)
        assert FRAMES <= len(times) <= 26
        asked = [item for item in items if item.video_id == sheet.film]
        assert len(sheet.questions) == min(QUESTIONS, len(asked))
        for question in sheet.questions:
            end_s = question.part_s[1] if question.part_s else None
            item = by_prompt[sheet.film, question.prompt, end_s]
            # a frame is shown for half a second, and moments are in its middle
            shown = [sheet.frames[number].at_s + 0.25 for number in question.evidence]
            assert shown == list(item.meta["evidence_s"])


def test_frames_and_lines_are_those_of_the_film(root, items):
    for sheet in contact_sheets(items, answered(items)):
        folder = (root / sheet.film).parent
        lines = {start_s: text for start_s, _, text in read_subtitles(folder / "film.srt")}
        for frame in sheet.frames:
            number = round(frame.at_s * 2)
            drawn = np.asarray(Image.open(folder / f"frames/{number:06d}.png").convert("RGB"))
            assert np.abs(frame.picture.astype(int) - drawn).mean() < 12  # the film is compressed
        spoken = " ".join(frame.line for frame in sheet.frames)
        assert all(line in spoken for line in lines.values())


def test_lines_are_read_as_they_were_written(root):
    for story in sorted((root / "stories").iterdir()):
        frames = [json.loads(row) for row in (story / "frames.jsonl").read_text().splitlines()]
        said = [(number / 2, row["line"]) for number, row in enumerate(frames) if row["line"]]
        read = map(read_subtitles, sorted(root.glob("films/*/film.srt")))
        assert said in [[(start_s, text) for start_s, _, text in lines] for lines in read]


@pytest.mark.parametrize("right", [True, False])
def test_answers_are_right_or_wrong(items, right):
    for sheet in contact_sheets(items, answered(items, right)):
        assert {question.right for question in sheet.questions} == {right}
        assert {question.answer == question.truth for question in sheet.questions} == {right}


def test_every_task_has_a_question(items):
    (sheet, *_) = contact_sheets(items, answered(items))
    film = [item for item in items if item.video_id == sheet.film]
    assert {question.task for question in sheet.questions} == {item.task for item in film}


def test_what_was_not_answered_or_is_gone_has_no_sheet(root, items, tmp_path):
    few = [item for item in items if item.video_id == items[0].video_id]
    assert [sheet.film for sheet in contact_sheets(items, answered(few))] == [items[0].video_id]
    (root / items[0].video_id).rename(tmp_path / "film.mp4")
    try:
        assert contact_sheets(few, answered(few)) == []
    finally:
        (tmp_path / "film.mp4").rename(root / items[0].video_id)


def test_a_sheet_has_its_film_play_where_that_is_wanted(items):
    asked = contact_sheets(items, answered(items), films=1, play_s=2)
    (film,) = [sheet.played for sheet in asked]
    assert (film.start_s, film.end_s, film.whole) == (0, 2, False)
    assert [sheet.played for sheet in contact_sheets(items, answered(items), films=1)] == [None]
