"""Films in which things happen at known times: what is true of them is what they show."""

import json
from itertools import pairwise

import numpy as np
import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.core.streams import INFORMATIVE, RELEVANCE, labels_of
from mmavlm.data.collate import collate
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.mix import MixedDataModule
from mmavlm.data.readers import DenseCaptionReader, GroundingReader, MAGQAReader
from mmavlm.data.readers.duet import TRUTH
from mmavlm.data.sources import FrameSource
from mmavlm.movies.__main__ import main
from mmavlm.movies.duet import KINDS, DuetSettings, plan_duet
from mmavlm.movies.duet_set import make_duet_set

SETTINGS = DuetSettings(films=24, size=32)
READERS = {
    "questions": MAGQAReader(folder="questions", fps=2.0, lead_in=None, awaited_from=0),
    "searches": GroundingReader(folder="searches"),
    "captions": DenseCaptionReader(folder="captions", awaited_from=0),
}


@pytest.fixture(scope="module")
def duet_set(tmp_path_factory):
    return make_duet_set(tmp_path_factory.mktemp("duet"), SETTINGS)


def datamodule(root, folder):
    settings = {"num_frames": 100, "sample_fps": 2.0, "image_size": 32, "crop": False}
    return VideoDataModule(READERS[folder], root, flip=False, num_workers=0, index=None, **settings)


def loaded(root, folder, split="train"):
    """The items of a folder as they are loaded, each with the times of its frames."""
    data = datamodule(root, folder)
    batch = collate([*data.dataset(split)])
    assert not batch.broken
    times = [t[m].tolist() for t, m in zip(batch.timestamps_s, batch.frame_mask, strict=True)]
    return zip(data.items(split), batch.conversations, times, strict=True)


def labelled(talk, times_s, head):
    """The label of each frame of a film."""
    streams = [turn for turn in talk.turns if turn.role == "stream"]
    return [label for turn in streams for label in labels_of(turn, times_s)[head]]


def films():
    return {film.name: film for film in plan_duet(SETTINGS)}


def seen(film, sort, time_s):
    """Whether a film shows what is asked for at a second."""
    event = film.event_at(round(time_s, 3))
    return event is not None and event.sort == sort


def test_informative_are_the_frames_that_show_what_was_asked_for_before(duet_set):
    positive = 0
    for item, talk, times_s in loaded(duet_set, "questions"):
        name, number = item.item_id.split("/")
        film = films()[name]
        asked = film.questions[int(number)]
        sort = asked.kind, asked.value
        expected = [int(seen(film, sort, t) and t > asked.time_s) for t in times_s]
        assert labelled(talk, times_s, INFORMATIVE) == expected
        positive += sum(expected)
    assert positive > 50


def test_relevant_are_the_frames_that_show_what_is_sought(duet_set):
    for item, talk, times_s in loaded(duet_set, "searches", "test"):
        name, number = item.item_id.split("/")
        film = films()[name]
        asked = film.questions[int(number)]
        expected = [seen(film, (asked.kind, asked.value), t) for t in times_s]
        assert labelled(talk, times_s, RELEVANCE) == expected


def test_captions_tell_every_event_while_it_is_seen(duet_set):
    for item, talk, times_s in loaded(duet_set, "captions"):
        film = films()[item.item_id.removesuffix(".mp4/0")]
        said = [turn.text for turn in talk.turns if turn.role == "assistant"]
        assert [text.split()[0] for text in said] == [
            {"colour": "There", "place": "We"}[event.kind] for event in film.events
        ]
        assert labelled(talk, times_s, INFORMATIVE) == [
            int(film.event_at(round(t, 3)) is not None) for t in times_s
        ]


def test_the_true_time_of_an_answer_is_that_of_the_frames_of_its_event(duet_set):
    for item in READERS["questions"](duet_set, "test", None):
        name, number = item.item_id.split("/")
        events = films()[name].questions[int(number)].events
        spans = [(e["start_s"], e["end_s"]) for e in item.meta[TRUTH]["events"]]
        assert spans == [(event.start_s, event.start_s + 1.25) for event in events]


def test_questions_and_searches_share_batches_of_a_mix(duet_set):
    sets = {folder: datamodule(duet_set, folder) for folder in ("questions", "searches")}
    mix = MixedDataModule(sets, batch_size=12, num_workers=0, image_size=32)
    batch = next(iter(mix.train_dataloader()))
    assert {item_id.split("/")[0] for item_id in batch.item_id} == {*sets}
    for talk, mask, times_s in zip(
        batch.conversations, batch.frame_mask, batch.timestamps_s, strict=True
    ):
        frames = [turn.parts[0].frames for turn in talk.turns if turn.role == "stream"]
        assert [stop for _, stop in frames][-1] == int(mask.sum())
        asks = {INFORMATIVE, RELEVANCE} & {*heads(talk, times_s.tolist())}
        assert len(asks) == 1


def heads(talk, times_s):
    return {
        head for turn in talk.turns if turn.role == "stream" for head in labels_of(turn, times_s)
    }


def test_an_event_is_a_step_of_the_picture_and_nothing_else_is(duet_set):
    inner, steps = [], []
    for film in films().values():
        source = FrameSource(duet_set / "videos" / f"{film.name}.mp4")
        times_s = source.times_s
        assert len(times_s) == SETTINGS.duration_s * SETTINGS.fps
        pictures = [p.astype(float) for p in source.pictures(times_s.tolist())]
        for (t, before), (u, after) in pairwise(zip(times_s, pictures, strict=True)):
            change = np.abs(after - before).mean()
            same = film.event_at(round(t, 3)) == film.event_at(round(u, 3))
            (inner if same else steps).append(change)
    assert max(inner) < 0.8 * min(steps)


def test_a_close_up_is_of_its_colour(duet_set):
    of_colour = {}
    for film in films().values():
        source = FrameSource(duet_set / "videos" / f"{film.name}.mp4")
        for event in film.events:
            if event.kind == "colour":
                (picture,) = source.pictures([event.start_s + 0.5])
                pixels = picture.reshape(-1, 3).astype(float)
                vivid = pixels[np.ptp(pixels, axis=1).argsort()[-200:]].mean(0)
                of_colour.setdefault(event.value, []).append(vivid / np.linalg.norm(vivid))
    means = {colour: np.mean(found, axis=0) for colour, found in of_colour.items()}
    assert len(means) >= 4
    for colour, found in of_colour.items():
        for vivid in found:
            assert max(means, key=lambda name: vivid @ means[name]) == colour


def test_some_questions_have_no_answer_and_some_several():
    planned = plan_duet(DuetSettings(films=400))
    counts = [len(question.events) for film in planned for question in film.questions]
    shares = [counts.count(n) / len(counts) for n in range(4)]
    assert shares[0] > 0.3
    assert shares[1] > 0.3
    assert shares[2] + shares[3] > 0.05
    shown_before = [
        question
        for film in planned
        for question in film.questions
        if any(e.sort == (question.kind, question.value) and e.start_s < question.time_s
               for e in film.events)
    ]  # fmt: skip
    assert len(shown_before) > 40


def test_answers_that_follow_each_other_differ():
    for film in plan_duet(DuetSettings(films=400)):
        for question in film.questions:
            told = [event.told(before) for before, event in enumerate(question.events)]
            assert all(a != b for a, b in pairwise(told))


def test_events_are_apart_and_end_within_the_film():
    for film in plan_duet(DuetSettings(films=200, duration_s=9, fps=3)):
        assert all(b.start_s - a.start_s >= 3 - 1e-9 for a, b in pairwise(film.events))
        assert film.events[0].start_s >= 1
        assert film.events[-1].stop_s < 9


def test_a_set_is_the_same_for_the_same_seed_and_completed_if_broken_off(duet_set, tmp_path):
    again = make_duet_set(tmp_path / "again", SETTINGS)
    (again / "videos" / "duet_00003.mp4").unlink()
    make_duet_set(again, SETTINGS)
    files = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert len(files) == 24 + 3 * 3 + 1
    assert all((again / file).read_bytes() == (duet_set / file).read_bytes() for file in files)
    assert plan_duet(DuetSettings(films=24, seed=1)) != plan_duet(SETTINGS)


def test_no_film_is_in_two_splits(duet_set):
    names = {
        split: {item.video_id for item in READERS["questions"](duet_set, split, None)}
        for split in ("train", "val", "test")
    }
    assert sum(map(len, names.values())) == len(set.union(*names.values())) == 24


@pytest.mark.parametrize("kind", KINDS)
def test_what_happens_may_be_of_one_kind(kind):
    planned = plan_duet(DuetSettings(films=30, events=(kind,)))
    assert {event.kind for film in planned for event in film.events} == {kind}
    assert {question.kind for film in planned for question in film.questions} == {kind}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"films": 2}, "films=2 cannot be made; give at least 3"),
        ({"duration_s": 5}, "duration_s=5"),
        ({"size": 33}, "size=33 cannot be drawn"),
        ({"events": ("rain",)}, "events=rain; give one or more of colour, place"),
    ],
)
def test_a_set_that_cannot_be_made_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_duet_set(tmp_path, DuetSettings(**settings))


def test_a_folder_that_holds_another_set_is_refused(duet_set):
    with pytest.raises(ConfigError, match="holds another set"):
        make_duet_set(duet_set, DuetSettings(films=25, size=32))


def test_command_makes_films_to_be_watched(tmp_path):
    main([f"out={tmp_path}", "kind=duet", "films=3", "size=32", "events=place", "--seed", "2"])
    told = json.loads((tmp_path / "set.json").read_text())
    assert (told["kind"], told["seed"], told["events"]) == ("duet", 2, ["place"])
    assert len([*(tmp_path / "videos").iterdir()]) == 3
