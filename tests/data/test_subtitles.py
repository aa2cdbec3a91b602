"""What is said in films, and where it stands between their frames."""

import json
from dataclasses import replace
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError, VideoError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.core.streams import streamed
from mmavlm.core.turns import Line, Shown, Turn
from mmavlm.data.dataset import BrokenItem, VideoDataset
from mmavlm.data.readers import ConversationReader, OwnReader
from mmavlm.data.readers.questions import QuestionReader
from mmavlm.data.subtitles import Subtitle, check_choice, read_subtitles, subtitles_of, with_lines

SRT = """1
00:00:00,500 --> 00:00:01,000
<i>Hello</i> there

2
00:00:01,500 --> 00:00:02,000


3
00:00:01,500 --> 00:00:03,000
Two
lines, with a comma
"""
SAID = (Subtitle(0.5, 1.0, "Hello there"), Subtitle(1.5, 3.0, "Two lines, with a comma"))
FILM = Medium(medium_id="a", source=Path("a.mp4"))


def parts(said, times_s, film=FILM):
    talk = Conversation.question(film, "why?", "so")
    return with_lines(talk, [said], [times_s]).turns[0].parts


def transcript(found):
    return [{"start": s.start_s, "end": s.end_s, "text": f" {s.text}"} for s in found]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.srt", SRT),
        ("a.srt", SRT.replace("\n", "\r\n")),
        ("a.vtt", "WEBVTT\n\n" + SRT.replace(",500", ".500").replace(",000", ".000")),
        ("a.json", json.dumps({"text": "…", "segments": transcript(SAID)})),
        ("a.json", json.dumps(transcript(SAID))),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_format_says_the_same(tmp_path, name, text, encoding):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    assert read_subtitles(path) == SAID


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text(SRT)
    assert len(read_subtitles(path)) == 2
    path.write_text(SRT + "\n4\n00:00:04,000 --> 00:00:05,000\nBye\n")
    assert read_subtitles(path)[-1] == Subtitle(4.0, 5.0, "Bye")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"nonsense", "SubRip, WebVTT"),
        (b"\xff\xfa\x80", "UTF-8"),
        (None, "do not exist"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, problem):
    path = tmp_path / "a.srt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=problem) as error:
        read_subtitles(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", ["{", "[1]", '{"segments": [{"start": "x"}]}', "{}"])
def test_a_transcript_of_another_form_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(VideoError, match=r"a\.json"):
        read_subtitles(path)


def test_nothing_is_said_in_an_empty_file(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text("\n")
    assert read_subtitles(path) == ()


def test_a_line_stands_behind_the_last_frame_before_its_end():
    said = [Subtitle(0.2, 1.0, "one"), Subtitle(0.5, 1.5, "two"), Subtitle(2.0, 2.5, "three")]
    assert parts(said, [0.0, 1.0, 2.0, 3.0]) == (
        Shown(0, (0, 1)),
        Line("one"),
        Shown(0, (1, 2)),
        Line("two"),
        Shown(0, (2, 3)),
        Line("three"),
        Shown(0, (3, 4)),
        "why?",
    )


def test_lines_before_the_first_frame_and_behind_the_last_have_their_places():
    said = [Subtitle(0.0, 0.4, "early"), Subtitle(8.0, 9.0, "late")]
    assert parts(said, [0.5, 1.5]) == (Line("early"), Shown(0, (0, 2)), Line("late"), "why?")


def test_lines_that_overlap_stand_in_the_order_in_which_they_end():
    said = [Subtitle(0.0, 10.0, "long"), Subtitle(2.0, 4.0, "short"), Subtitle(3.0, 4.0, "same")]
    assert parts(said, [1.0, 3.5, 8.0]) == (
        Shown(0, (0, 2)),
        Line("short\nsame"),
        Shown(0, (2, 3)),
        Line("long"),
        "why?",
    )


def test_what_is_said_outside_the_part_that_is_shown_is_left_out():
    part = Medium(medium_id="a", source=Path("a.mp4"), start_s=10, end_s=20)
    said = [Subtitle(8.0, 10.0, "before"), Subtitle(9.0, 10.5, "into"), Subtitle(20.0, 21.0, "on")]
    assert parts(said, [11.0, 19.0], part) == (Line("into"), Shown(0, (0, 2)), "why?")
    assert parts(said[:1], [11.0, 19.0], part) == (Shown(0), "why?")


def test_streams_have_what_is_said_between_their_frames_or_behind_them():
    said = [Subtitle(0.0, 0.4, "early"), Subtitle(0.6, 1.0, "one"), Subtitle(1.2, 1.8, "two"),
            Subtitle(3.2, 9.0, "late")]  # fmt: skip
    asks = Turn("user", ("why?",))
    stream = Turn("stream", (Shown(0),), until_s=2.0)
    talk = Conversation((asks, stream, asks, replace(stream, until_s=None)), (FILM,))
    times_s = [[0.5, 1.0, 2.0, 3.0]]
    told = with_lines(streamed(talk, times_s), [said], times_s)
    assert [turn.parts for turn in told.turns if turn.role == "stream"] == [
        (
            *(Line("early"), Shown(0, (0, 1), (0.5,))),
            *(Line("one"), Shown(0, (1, 2), (1.0,)), Line("two")),
        ),
        (Shown(0, (2, 4), (2.0, 3.0)), Line("late")),
    ]


times = st.lists(st.floats(0, 100), min_size=1, max_size=12, unique=True).map(sorted)
lines = st.lists(
    st.tuples(st.floats(0, 120), st.floats(0.1, 20), st.text("abc", min_size=1, max_size=3)),
    max_size=12,
)


@given(times, lines)
def test_every_frame_is_shown_once_and_in_order_and_every_line_is_read_once(times_s, told):
    said = [Subtitle(start, start + length, text) for start, length, text in told]
    found = parts(said, times_s)[:-1]
    shown = [part.frames or (0, len(times_s)) for part in found if isinstance(part, Shown)]
    assert [frame for span in shown for frame in range(*span)] == list(range(len(times_s)))
    read = [text for part in found if isinstance(part, Line) for text in part.text.split("\n")]
    assert sorted(read) == sorted(text for _, _, text in said)


def test_a_film_shown_twice_is_read_twice_and_a_picture_says_nothing():
    picture = Medium(medium_id="b", source=Path("b.png"), kind="picture")
    talk = Conversation.from_json(
        {
            "media": Conversation.question(FILM, "x").as_json()["media"]
            + Conversation.question(picture, "x").as_json()["media"],
            "turns": [{"role": "user", "parts": [{"medium": 0}, {"medium": 1}, {"medium": 0}]}],
        }
    )
    found = with_lines(talk, [SAID[:1], ()], [[0.0, 2.0], [0.0]]).turns[0]
    film = (Shown(0, (0, 1)), Line("Hello there"), Shown(0, (1, 2)))
    assert found.parts == (*film, Shown(1), *film)
    assert found.shows == (0, 1, 0)
    assert subtitles_of(picture, True) == ()


@pytest.fixture
def film(make_clip):
    return make_clip("a.mp4", frames=40)


def with_track(film, srt, out):
    """The film in another container, with the subtitles as a track of it."""
    with av.open(str(film)) as pictures, av.open(str(srt)) as texts, av.open(str(out), "w") as file:
        streams = [source.streams[0] for source in (pictures, texts)]
        copies = [file.add_stream_from_template(stream) for stream in streams]
        for source, stream, copy in zip((pictures, texts), streams, copies, strict=True):
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    file.mux(packet)
    return out


def test_a_films_own_track_is_read_and_a_file_beside_it_comes_first(tmp_path, film):
    srt = tmp_path / "other.srt"
    srt.write_text(SRT)
    own = with_track(film, srt, tmp_path / "b.mkv")
    medium = Medium(medium_id="b", source=own)
    assert subtitles_of(medium, True) == SAID
    assert subtitles_of(medium) == subtitles_of(medium, False) == ()
    (tmp_path / "b.srt").write_text(SRT.replace("Hello", "Bye"))
    assert subtitles_of(medium, True)[0].text == "Bye there"
    named = Medium(medium_id="b", source=own, subtitles=srt)
    assert subtitles_of(named) == subtitles_of(named, True) == SAID
    assert subtitles_of(named, False) == ()


def test_a_film_without_subtitles_is_shown_without(film):
    assert subtitles_of(Medium(medium_id="a", source=film), True) == ()


def test_the_frames_of_a_sample_stand_between_its_lines(tmp_path, film):
    film.with_suffix(".srt").write_text(SRT)
    item = Item.question(
        item_id="1", video_id="a", source=film, prompt="why?", target="so", task="open"
    )
    sample = VideoDataset([item], num_frames=4, image_size=32, subtitles=True)[0]
    times_s = sample.films[0].timestamps_s.tolist()
    assert sample.item.conversation.turns[0].parts == parts(SAID, times_s)
    assert sample.item.prompt == "why?"
    assert VideoDataset([item], num_frames=4, image_size=32)[0].item == item


def test_a_film_whose_subtitles_cannot_be_read_is_broken(film):
    film.with_suffix(".srt").write_text("nonsense")
    item = Item.question(
        item_id="1", video_id="a", source=film, prompt="why?", target="so", task="open"
    )
    broken = VideoDataset([item], num_frames=4, image_size=32, subtitles=True)[0]
    assert isinstance(broken, BrokenItem)
    assert "a.srt" in broken.reason


def test_readers_take_the_file_that_a_row_names(tmp_path, film):
    (tmp_path / "said").mkdir()
    row = {"video": "a.mp4", "prompt": "why?", "answer": "so", "subtitles": "said/a.srt"}
    talk = {
        "media": [{"source": "a.mp4", "subtitles": "said/a.srt"}],
        "turns": [
            {"role": "user", "parts": [{"medium": 0}, "why?"]},
            {"role": "assistant", "parts": ["so"]},
        ],
    }
    for name, content in (("train.jsonl", row), ("talks.jsonl", talk)):
        (tmp_path / name).write_text(json.dumps(content) + "\n")
    found = [
        *OwnReader()(tmp_path, "train", None),
        *QuestionReader("train.jsonl")(tmp_path, "test", None),
        *ConversationReader(train="talks.jsonl")(tmp_path, "train", None),
    ]
    assert [item.film.subtitles for item in found] == [tmp_path / "said/a.srt"] * 3
    (tmp_path / "train.jsonl").write_text(json.dumps(row | {"subtitles": "../a.srt"}) + "\n")
    with pytest.raises(DataError, match="leads out"):
        OwnReader()(tmp_path, "train", None)


@pytest.mark.parametrize("choice", ["yes", 1, "auto"])
def test_another_choice_of_subtitles_is_refused(choice):
    with pytest.raises(ConfigError, match=r"data\.subtitles"):
        check_choice(choice)
