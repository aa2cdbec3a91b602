import hashlib
import json
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from mmavlm import train
from mmavlm.core.errors import ConfigError
from mmavlm.data.readers import OwnReader
from mmavlm.movies.claim import MAKING, SET
from mmavlm.movies.generators import Grammar, ImageGenerator, ProceduralImages
from mmavlm.movies.generators.procedural import PLACES, SLOTS
from mmavlm.movies.stories.make import Film, StorySettings, make_stories, own_rows
from mmavlm.movies.stories.reel import write_rows
from mmavlm.movies.vocabulary import DECOR, LOCATIONS
from support import SMALL

SETTINGS = StorySettings(films=3, fan_out=(2, 2, 4))


def make(root, settings=SETTINGS, *, size=32, progress=None):
    return make_stories(root, settings, Grammar(), ProceduralImages(size), progress=progress)


def digests(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    return make(tmp_path_factory.mktemp("stories") / "set")


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_sets_of_one_seed_are_equal_byte_for_byte(stories, tmp_path):
    assert digests(make(tmp_path / "again")) == digests(stories)


def test_a_set_broken_off_goes_on_where_it_was(stories, tmp_path):
    root = tmp_path / "set"

    def stop(stage, done, total):
        if (stage, done) == ("films", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(root, progress=stop)
    (root / MAKING).rename(tmp_path / MAKING)
    kept = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    (tmp_path / MAKING).rename(root / MAKING)
    assert not (root / SET).exists()
    make(root)
    assert digests(root) == digests(stories)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_film_broken_off_draws_its_missing_frames_only(stories, tmp_path):
    root = shutil.copytree(stories, tmp_path / "set")
    film = next(iter(sorted((root / "films").iterdir())))
    (film / "film.mp4").unlink()
    (film / "frames" / "000003.png").unlink()
    drawn = []

    class Counted(ProceduralImages):
        def render(self, frames, style, seeds):
            drawn.extend(frames)
            return super().render(frames, style, seeds)

    make_stories(root, SETTINGS, Grammar(), Counted(32))
    assert len(drawn) == 1
    assert digests(root) == digests(stories)


def test_changed_settings_make_other_names_and_leave_the_old_films(stories, tmp_path):
    root = shutil.copytree(stories, tmp_path / "set")
    films = set((root / "films").iterdir())
    told = set((root / "stories").iterdir())
    make(root, size=48)
    assert set((root / "stories").iterdir()) == told
    larger = set((root / "films").iterdir())
    assert larger > films
    assert len(larger) == 6
    make(root, StorySettings(films=3, fan_out=(2, 2, 4), seed=1))
    assert len(set((root / "stories").iterdir())) == 6


def test_more_films_keep_those_there_are(stories, tmp_path):
    root = shutil.copytree(stories, tmp_path / "set")
    make(root, StorySettings(films=4, fan_out=(2, 2, 4)))
    assert set((root / "films").iterdir()) > {root / "films" / f.name
                                             for f in (stories / "films").iterdir()}  # fmt: skip


def test_films_show_a_frame_for_each_shot_with_words_beside(stories):
    for film in (stories / "films").iterdir():
        manifest = rows(film / "manifest.jsonl")
        assert len(manifest) == 16
        for row in manifest:
            picture = film / "frames" / row["frame"]
            assert hashlib.sha256(picture.read_bytes()).hexdigest() == row["sha256"]
        with av.open(str(film / "film.mp4")) as file:
            assert sum(1 for _ in file.decode(video=0)) == 16
        assert "-->" in (film / "film.srt").read_text()


def test_stories_have_movie_llms_keys(stories):
    for folder in (stories / "stories").iterdir():
        story = json.loads((folder / "story.json").read_text())
        kinds = [kind for kind, _ in story["img_diag"]]
        assert kinds.count("frame") == 16
        assert set(kinds) <= {"frame", "dialogue"}
        assert set(story["character"]) == {p["name"] for p in story["plot"]["people"]}
        assert len(story["QA"]) == len(rows(folder / "questions.jsonl"))
        assert all(set(qa) == {"Question", "Answer"} for qa in story["QA"])
        assert len(rows(folder / "log.jsonl")) == 16


def test_rows_are_read_as_own_videos_and_no_film_is_in_two_splits(stories):
    videos = {}
    for split in ("train", "val", "test"):
        items = OwnReader()(stories, split, None)
        assert items
        videos[split] = {item.video_id for item in items}
        for row in rows(stories / f"{split}.jsonl"):
            end_s = row.get("end_s", 8.0)
            assert all(row.get("start_s", 0.0) < t < end_s for t in row["evidence_s"])
    assert sum(map(len, videos.values())) == len(set.union(*videos.values())) == 3


def test_llamavid_rows_are_one_turn_about_a_whole_film(stories):
    whole = {r["id"]: r for r in rows(stories / "train.jsonl") if "end_s" not in r}
    told = json.loads((stories / "llamavid" / "train.json").read_text())
    assert [row["id"] for row in told] == list(whole)
    for row in told:
        human, gpt = row["conversations"]
        assert (human["from"], gpt["from"]) == ("human", "gpt")
        assert human["value"] == f"<image>\n{whole[row['id']]['prompt']}"
        assert gpt["value"] == whole[row["id"]]["answer"]


def test_a_model_trains_on_the_stories_at_once(stories, run, tmp_path):
    code = run(train, "experiment=own_videos", *SMALL, f"data.root={stories}",
               "data.limit_items=8", f"hydra.run.dir={tmp_path / 'run'}",
               "stage.num_beams=1", "stage.num_answers=1")  # fmt: skip
    assert code in (0, None)
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_the_style_is_held_through_a_film_and_differs_between_styles():
    from mmavlm.movies.frames import FrameSpec
    from mmavlm.movies.vocabulary import Style

    images = ProceduralImages(48)
    assert isinstance(images, ImageGenerator)
    frame = FrameSpec(location="museum", actors=())

    def drawn(keyword):
        style = images.prepare_style(Style(keyword=keyword, tone=["soft"]), 0)
        return list(images.render([frame, frame], style, [0, 1]))

    one, two = drawn("comic")
    assert np.array_equal(one, two)
    assert not np.array_equal(one, drawn("velvet")[0])


def test_every_place_and_piece_of_decor_is_drawn_and_looks_unlike_the_others():
    from mmavlm.movies.frames import FrameSpec
    from mmavlm.movies.vocabulary import Style

    images = ProceduralImages(48)
    style = images.prepare_style(Style(keyword="daylight", tone=["soft"]), 0)
    assert set(PLACES) == set(LOCATIONS)
    assert set(SLOTS) == set(DECOR)
    frames = [FrameSpec(location=place, actors=()) for place in LOCATIONS]
    frames += [FrameSpec(location="school", actors=(), decor=(d,), furnished=False) for d in DECOR]
    pictures = list(images.render(frames, style, [0] * len(frames)))
    assert len({picture.tobytes() for picture in pictures}) == len(frames)


def test_a_size_that_cannot_be_encoded_is_refused():
    with pytest.raises(ConfigError, match=r"size=33 cannot be drawn; give an even number from 32"):
        ProceduralImages(33)
    with pytest.raises(ConfigError, match="stories: films=2 is below 3"):
        StorySettings(films=2)


def test_pictures_on_disk_are_the_pictures_that_were_drawn(stories):
    film = next((stories / "films").iterdir())
    with Image.open(film / "frames" / "000000.png") as picture:
        assert picture.size == (32, 32)


def test_a_question_may_hold_other_ends_of_lines(tmp_path):
    asked = {"question": "one\u2028two\u0085three", "answer": "a", "category": "c",
             "start": 0, "end": 1, "evidence": [0]}  # fmt: skip
    write_rows(tmp_path / "questions.jsonl", [asked, asked])
    write_rows(tmp_path / "frames.jsonl", [{}])
    rows = list(own_rows(Film("train", tmp_path, "a.mp4"), 0, fps=2))
    assert [row["prompt"] for row in rows] == [asked["question"]] * 2
