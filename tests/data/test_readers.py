import csv
import json
import math
import re

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.items import Reader
from mmavlm.core.medium import FrameGrid
from mmavlm.data import readers
from mmavlm.data.readers import CaptionReader, LVUReader, MovieReader, OwnReader, WebVidReader
from mmavlm.data.readers.json_files import MAX_JSON_BYTES, read_json
from mmavlm.data.sampling import lvu_windows

LVU_ITEMS = {
    "train": {
        "director": 1731,
        "genre": 6432,
        "relationship": 298,
        "scene": 1202,
        "way_speaking": 2135,
        "writer": 2126,
        "year": 1688,
    },
    "test": {
        "director": 268,
        "genre": 1291,
        "relationship": 91,
        "scene": 218,
        "way_speaking": 473,
        "writer": 432,
        "year": 337,
    },
}
OWN = {"video": "a.mp4", "prompt": "who?", "answer": "a cat"}
CAPTION = {"video": "a.mp4", "caption": "A cat!"}
WEBVID = {"videoid": "7", "name": "A cat!", "page_dir": "p/q"}
READERS = {
    "own": (OwnReader, OWN, "video", "."),
    "captions": (CaptionReader, CAPTION, "video", "captions"),
    "webvid": (WebVidReader, WEBVID, "videoid", "."),
}
each_reader = pytest.mark.parametrize(
    ("reader", "row", "video_key", "folder"), READERS.values(), ids=READERS
)
each_own_reader = pytest.mark.parametrize(
    ("reader", "row", "video_key", "folder"), [READERS["own"], READERS["captions"]]
)


def write(path, *rows):
    """Rows as jsonl or csv; a row that is a text stands in the file as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text("\n".join(lines))
    return path


def write_lvu(root, split="train", **films):
    path = root / "lvu" / "annotation" / f"{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(films))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_own_rows_become_items(tmp_path, suffix):
    write(
        tmp_path / f"train{suffix}",
        {**OWN, "id": "q1", "start_s": "1.5", "end_s": "4", "task": "animal"},
        {"video": "b/frames", "prompt": "where?", "answer": "at home"},
    )
    first, second = OwnReader(closed=["animal"])(tmp_path, "train", None)
    assert (first.item_id, first.video_id, first.film.source) == ("q1", "a.mp4", tmp_path / "a.mp4")
    assert (first.prompt, first.target, first.task, first.label) == ("who?", "a cat", "animal", 0)
    assert (first.film.start_s, first.film.end_s) == (1.5, 4.0)
    assert (second.film.start_s, second.film.end_s, second.task, second.label) == (
        0.0,
        None,
        "open",
        None,
    )
    assert second.film.source == tmp_path / "b" / "frames"
    assert second.references == ("at home",)


def test_csv_and_jsonl_give_the_same_items(tmp_path):
    rows = [{**OWN, "answer": text, "start_s": 2.0} for text in ("a, b", 'say "no"', "two\nlines")]
    write(tmp_path / "train.csv", *rows)
    write(tmp_path / "val.jsonl", *rows)
    csv_items, json_items = (OwnReader()(tmp_path, split, None) for split in ("train", "val"))
    assert [(i.target, i.film.start_s) for i in csv_items] == [
        (i.target, i.film.start_s) for i in json_items
    ]
    assert [item.target for item in csv_items] == ["a, b", 'say "no"', "two\nlines"]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    for name in ("train.jsonl", "val.csv"):
        path = write(tmp_path / name, OWN)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert OwnReader()(tmp_path, path.stem, None)[0].video_id == "a.mp4"


def test_other_right_answers_stand_behind_the_answer(tmp_path):
    write(tmp_path / "train.jsonl", {**OWN, "references": ["cat", "kitten"]})
    write(tmp_path / "val.csv", {**OWN, "references": "cat|kitten"})
    for split in ("train", "val"):
        assert OwnReader()(tmp_path, split, None)[0].references == ("a cat", "cat", "kitten")


def test_moments_that_show_the_answer_are_kept_with_the_item(tmp_path):
    write(tmp_path / "train.jsonl", {**OWN, "evidence_s": [0.25, 3]}, {**OWN, "evidence_s": []})
    write(tmp_path / "val.csv", {**OWN, "evidence_s": "0.25|3"})
    shown, none = OwnReader()(tmp_path, "train", None)
    (written,) = OwnReader()(tmp_path, "val", None)
    assert shown.meta == written.meta == {"evidence_s": (0.25, 3.0)}
    assert none.meta == {}


@pytest.mark.parametrize("given", [[-1], ["soon"], 5, {"at": 3}, [[1]], [None], ["1e999"]])
def test_moments_that_are_none_are_named(tmp_path, given):
    write(tmp_path / "train.jsonl", {**OWN, "evidence_s": given})
    with pytest.raises(DataError, match=r"line 1: 'evidence_s'"):
        OwnReader()(tmp_path, "train", None)


def test_references_that_are_no_list_are_named(tmp_path):
    write(tmp_path / "train.jsonl", {**OWN, "references": 5})
    with pytest.raises(DataError, match=r"line 1: 'references' must be a list of texts, got 5"):
        OwnReader()(tmp_path, "train", None)


def test_options_are_asked_and_answered_in_the_style_of_the_reader(tmp_path):
    write(tmp_path / "train.jsonl", {**OWN, "options": ["a dog", "a cat"]}, OWN)
    write(tmp_path / "val.csv", {**OWN, "options": "a dog|a cat", "answer": "B"})
    for split in ("train", "val"):
        first = OwnReader()(tmp_path, split, None)[0]
        assert (first.prompt, first.target) == ("who? Options: (A) a dog (B) a cat", "B")
        assert first.references == ("B",)
        assert first.options.texts == ("a dog", "a cat")
    told, free = OwnReader(options="texts")(tmp_path, "train", None)
    assert (told.prompt, told.target) == ("who? Options: a dog, a cat", "a cat")
    assert (free.prompt, free.target, free.options) == ("who?", "a cat", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a dog", "a bird"], "line 1: the answer 'a cat' is none of the options"),
        (["a cat"], "line 1: a question needs 2 to 26 options, got 1"),
        ({"A": "a cat"}, "line 1: 'options' must be a list of texts, got"),
    ],
)
def test_options_that_cannot_be_asked_are_named(tmp_path, options, message):
    write(tmp_path / "train.jsonl", {**OWN, "options": options})
    with pytest.raises(DataError, match=message):
        OwnReader()(tmp_path, "train", None)


def test_options_have_a_known_style():
    with pytest.raises(
        ConfigError, match=r"data.reader.options='roman' is unknown; choose letters"
    ):
        OwnReader(options="roman")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_one_file_serves_all_splits_by_its_split_column(tmp_path, suffix):
    rows = [{**OWN, "id": i, "split": split} for i, split in enumerate(["train", "val", "val", ""])]
    name = write(tmp_path / f"all{suffix}", *rows).name
    reader = OwnReader(train=name, val=name, test=name)
    ids = {s: [i.item_id for i in reader(tmp_path, s, None)] for s in ("train", "val", "test")}
    assert [len(found) for found in ids.values()] == [2, 3, 1]
    assert ids["val"][:2] == ["1", "2"]


def test_own_tasks_choose_rows_and_closed_ones_have_classes(tmp_path):
    rows = [("animal", "cat"), ("animal", "ant"), ("place", "home"), (None, "yes")]
    write(tmp_path / "train.jsonl", *({**OWN, "task": t, "answer": a} for t, a in rows))
    write(tmp_path / "val.jsonl", {**OWN, "task": "animal", "answer": "eel"})
    reader = OwnReader(closed=["animal", "place"])
    assert reader.classes(tmp_path, None) == {"animal": ["ant", "cat"], "place": ["home"]}
    assert reader.classes(tmp_path, "animal") == {"animal": ["ant", "cat"]}
    assert [i.label for i in reader(tmp_path, "train", "animal")] == [1, 0]
    assert [i.target for i in reader(tmp_path, "train", ["place", "open"])] == ["home", "yes"]
    assert reader(tmp_path, "val", None)[0].label is None
    assert OwnReader().classes(tmp_path, None) == {}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_captions_are_cleaned_up(tmp_path, suffix):
    write(tmp_path / "captions" / f"val{suffix}", CAPTION, {**CAPTION, "end_s": 3})
    first, second = CaptionReader()(tmp_path, "val", None)
    assert (first.target, first.references, first.task) == ("a cat", ("a cat",), "caption")
    assert first.prompt == "what does the video describe?"
    assert (first.film.source, second.film.end_s) == (tmp_path / "a.mp4", 3.0)
    assert CaptionReader().classes(tmp_path, None) == {}


def test_captions_keep_at_most_max_words(tmp_path):
    write(tmp_path / "captions" / "val.jsonl", {**CAPTION, "caption": "one two three four"})
    assert CaptionReader(max_words=2)(tmp_path, "val", None)[0].target == "one two"


def test_a_caption_without_words_is_named(tmp_path):
    write(tmp_path / "train.jsonl", CAPTION, {**CAPTION, "caption": "!!!"})
    with pytest.raises(DataError, match=r"line 2: 'caption' holds no words: '!!!'; write some"):
        CaptionReader(folder=".")(tmp_path, "train", None)


def test_webvid_films_lie_below_videos_and_their_page(tmp_path):
    write(tmp_path / "train.csv", WEBVID)
    (item,) = WebVidReader()(tmp_path, "train", None)
    assert (item.item_id, item.video_id, item.target) == ("7", "7", "a cat")
    assert item.film.source == tmp_path / "videos" / "p" / "q" / "7.mp4"


@pytest.mark.parametrize("reader", [CaptionReader(), WebVidReader()])
def test_captions_refuse_a_task(tmp_path, reader):
    with pytest.raises(ConfigError, match=r"data\.task='genre': captions have no tasks; leave"):
        reader(tmp_path, "train", "genre")


@each_reader
def test_a_missing_annotation_names_what_is_there(tmp_path, reader, row, video_key, folder):
    (tmp_path / "other.txt").touch()
    message = r"annotation .*train\.jsonl does not exist; .* holds .*other\.txt\. Check data\.root"
    with pytest.raises(DataError, match=message):
        reader()(tmp_path, "train", None)


@each_own_reader
def test_a_missing_key_is_named_with_its_row(tmp_path, reader, row, video_key, folder):
    for key in row:
        rest = {k: v for k, v in row.items() if k != key}
        held = re.escape(str(sorted(rest)))
        write(tmp_path / folder / "train.jsonl", row, "", {**rest})
        message = rf"train\.jsonl, line 3: key '{key}' is missing or empty; the row has {held}"
        with pytest.raises(DataError, match=message):
            reader()(tmp_path, "train", None)
        write(tmp_path / folder / "val.csv", row, {**row, key: ""})
        with pytest.raises(DataError, match=rf"val\.csv, line 3: key '{key}' is missing or empty"):
            reader()(tmp_path, "val", None)


@each_reader
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", r"train\.jsonl, line 2 is not JSON: Expecting property"),
        ("[1, 2]", "line 2 must be a JSON object, got list"),
        ('{"a": 1, "b": 2, "a": 3}', "line 2: key 'a' is there twice; leave one"),
        ("[" * 100_000, "line 2 is not JSON: brackets are nested too deep"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, reader, row, video_key, folder, line, said):
    write(tmp_path / folder / "train.jsonl", row, line)
    (reason,) = reader().skipped(tmp_path, "train", None).values()
    assert re.search(said, reason)


@each_own_reader
def test_a_broken_line_of_ones_own_stops_a_run(tmp_path, reader, row, video_key, folder):
    write(tmp_path / folder / "train.jsonl", row, "{broken")
    with pytest.raises(DataError, match=r"train\.jsonl, line 2 is not JSON: Expecting property"):
        reader()(tmp_path, "train", None)


@each_reader
def test_a_path_that_leads_out_is_named(tmp_path, reader, row, video_key, folder):
    write(tmp_path / folder / "train.jsonl", {**row, video_key: "../../../../secret"})
    message = r"train\.jsonl, line 1: .*\.\./secret.* leads out of .*names in an annotation"
    with pytest.raises(DataError, match=message):
        reader()(tmp_path, "train", None)


@each_own_reader
def test_an_id_that_occurs_twice_is_named(tmp_path, reader, row, video_key, folder):
    twice = {**row, "id": "7"}
    write(tmp_path / folder / "train.jsonl", twice, twice)
    message = r"train\.jsonl, line 2: id '7' was there before, give each row an id of its own"
    with pytest.raises(DataError, match=message):
        reader()(tmp_path, "train", None)


def test_rows_about_the_same_film_need_no_ids(tmp_path):
    write(tmp_path / "train.jsonl", OWN, OWN)
    assert len({item.item_id for item in OwnReader()(tmp_path, "train", None)}) == 2


@pytest.mark.parametrize("value", ["soon", -1, "nan", "inf"])
@pytest.mark.parametrize("key", ["start_s", "end_s"])
def test_a_time_that_is_no_number_is_named(tmp_path, key, value):
    write(tmp_path / "train.jsonl", {**OWN, key: value})
    message = rf"line 1: '{key}' must be a number of at least 0, got {value!r}"
    with pytest.raises(DataError, match=message):
        OwnReader()(tmp_path, "train", None)


def test_an_end_before_the_start_is_named(tmp_path):
    write(tmp_path / "train.jsonl", {**OWN, "start_s": 5, "end_s": 2.5})
    with pytest.raises(DataError, match=r"line 1: end_s must be after start_s, got 5 to 2\.5"):
        OwnReader()(tmp_path, "train", None)


def test_an_annotation_of_another_kind_is_named(tmp_path):
    (tmp_path / "rows.txt").touch()
    with pytest.raises(
        DataError, match=r"rows\.txt is neither \.jsonl, \.csv, \.tsv nor \.json; write"
    ):
        OwnReader(train="rows.txt")(tmp_path, "train", None)


def test_two_annotations_of_one_split_are_named(tmp_path):
    for suffix in (".jsonl", ".csv"):
        write(tmp_path / f"train{suffix}", OWN)
    message = r"holds both train\.jsonl and train\.csv; say which with data\.reader\.train="
    with pytest.raises(DataError, match=message):
        OwnReader()(tmp_path, "train", None)
    assert len(OwnReader(train="train.csv")(tmp_path, "train", None)) == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_bytes_that_are_not_utf_8_are_named_by_line_and_key(tmp_path, suffix):
    path = write(tmp_path / f"train{suffix}", OWN, {**OWN, "answer": "a cafe"})
    path.write_bytes(path.read_bytes().replace(b"cafe", "café".encode("latin-1")))
    place = r"line 2" if suffix == ".jsonl" else r"line 3"
    message = rf"{place}: 'answer' holds bytes that are no UTF-8: .*; save it as UTF-8 text"
    with pytest.raises(DataError, match=message):
        OwnReader()(tmp_path, "train", None)


def test_a_csv_row_with_too_many_columns_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("video,prompt,answer\na.mp4,who?,a cat, a dog\n")
    message = r"train\.csv, line 2: 1 columns too many; put texts with commas"
    with pytest.raises(DataError, match=message):
        OwnReader()(tmp_path, "train", None)


def test_lvu_gives_one_item_a_window_of_the_films_that_have_the_task(tmp_path):
    write_lvu(
        tmp_path,
        a={"duration": 141, "num_frames": 1400, "genre": "western", "year": 1990},
        b={"duration": 50, "num_frames": 500, "genre": "comedy"},
        c={"duration": 50, "num_frames": 500, "scene": "office"},
    )
    items = LVUReader()(tmp_path, "train", "genre")
    assert [i.item_id for i in items] == ["a/genre/0", "a/genre/20", "a/genre/40", "b/genre/0"]
    assert [(i.film.start_s, i.film.end_s) for i in items] == [*lvu_windows(141), (0, 50)]
    assert (items[0].prompt, items[0].target) == ("what is the genre of the movie?", "western")
    assert [i.label for i in items] == [1, 1, 1, 0]
    assert items[0].film.grid == FrameGrid(1400, "windows")
    assert items[0].film.source == tmp_path / "lvu" / "videos" / "a.mp4"
    both = LVUReader(stride_s=40)(tmp_path, "train", ["genre", "year"])
    assert {i.task for i in both} == {"genre", "year"}
    assert [i.target for i in both if i.task == "year"] == ["1990", "1990"]


def test_lvu_classes_come_from_training_alone(tmp_path):
    film = {"duration": 50, "num_frames": 500}
    write_lvu(tmp_path, a={**film, "genre": "western"}, b={**film, "genre": "comedy"})
    write_lvu(tmp_path, "test", c={**film, "genre": "drama"})
    assert LVUReader().classes(tmp_path, "genre") == {"genre": ["comedy", "western"]}
    assert LVUReader()(tmp_path, "test", "genre")[0].label is None


@pytest.mark.parametrize(
    ("task", "shown"),
    [("gener", "'gener'"), (["genre", "gener"], "'gener'"), (None, "None"), ([], r"\[\]")],
)
def test_an_unknown_task_lists_the_seven_of_lvu(tmp_path, task, shown):
    listed = "director, genre, relationship, scene, way_speaking, writer, year"
    message = rf"data\.task={shown} is no task of LVU; choose one or more of {listed}"
    with pytest.raises(ConfigError, match=message):
        LVUReader()(tmp_path, "train", task)


@pytest.mark.parametrize("key", ["history_s", "stride_s"])
def test_lvu_windows_last_and_move_by_at_least_a_second(key):
    with pytest.raises(ConfigError, match=rf"data\.reader\.{key} must be at least 1, got 0"):
        LVUReader(**{key: 0})
    for value in ("abc", 99.5):
        with pytest.raises(ConfigError, match=rf"data\.reader\.{key} must be a whole number, got"):
            LVUReader(**{key: value})


def test_a_missing_lvu_annotation_names_what_is_there(tmp_path):
    (tmp_path / "lvu").mkdir()
    message = r"lvu/annotation/train\.json does not exist; .*lvu holds nothing\. Check data\.root"
    with pytest.raises(DataError, match=message):
        LVUReader()(tmp_path, "train", "genre")


@pytest.mark.parametrize("key", ["duration", "num_frames"])
def test_a_missing_key_of_a_film_is_named(tmp_path, key):
    film = {"duration": 50, "num_frames": 500, "genre": "western", key: ""}
    write_lvu(tmp_path, a=film)
    with pytest.raises(DataError, match=rf"entry 'a': key '{key}' is missing or empty; the row"):
        LVUReader()(tmp_path, "train", "genre")


@pytest.mark.parametrize("value", [0.5, "soon", 0, -3, True])
def test_a_duration_that_is_none_is_named(tmp_path, value):
    write_lvu(tmp_path, a={"duration": value, "num_frames": 500, "genre": "western"})
    message = rf"entry 'a': 'duration' must be a number of at least 1, got {value!r}"
    with pytest.raises(DataError, match=message):
        LVUReader()(tmp_path, "train", "genre")


@pytest.mark.parametrize("value", [133, 133.4, "133", "133.4"])
def test_the_whole_seconds_of_a_duration_count(tmp_path, value):
    write_lvu(tmp_path, a={"duration": value, "num_frames": "1334", "genre": "western"})
    items = LVUReader()(tmp_path, "train", "genre")
    assert [(i.film.start_s, i.film.end_s) for i in items] == lvu_windows(133, 100, 20)
    assert items[0].film.grid == FrameGrid(1334, "windows")


GOOD = {"duration": 50, "num_frames": 500, "genre": "western"}


@pytest.mark.parametrize("value", [None, "", math.nan])
def test_a_film_whose_label_is_empty_has_not_that_task(tmp_path, value):
    write_lvu(tmp_path, a=GOOD, b={**GOOD, "genre": value})
    reader = LVUReader()
    assert [item.video_id for item in reader(tmp_path, "train", "genre")] == ["a"]
    assert reader.classes(tmp_path, "genre") == {"genre": ["western"]}
    assert reader.skipped(tmp_path, "train", "genre") == {}


@pytest.mark.parametrize(
    ("film", "change", "reason"),
    [
        ("b", {"duration": "soon"}, "'duration' must be a number"),
        ("b", {"genre": ["western"]}, "'genre' must be a text"),
        ("/etc/x", {}, "'/etc/x' leads out of"),
    ],
)
def test_a_film_that_cannot_be_used_is_left_out_and_told(tmp_path, caplog, film, change, reason):
    write_lvu(tmp_path, a={**GOOD, "duration": 120}, **{film: {**GOOD, **change}})
    reader = LVUReader()
    assert [item.video_id for item in reader(tmp_path, "train", "genre")] == ["a", "a"]
    assert "train split: 1 entries left out beside 2 items; the first" in caplog.text
    assert reason in reader.skipped(tmp_path, "train", "genre")[film]
    movies = MovieReader()
    assert movies.skipped(tmp_path, "train", ["genre", "cuts"]).keys() == {film}


def test_of_a_film_that_is_there_twice_the_first_is_kept(tmp_path):
    write_lvu(tmp_path, a=GOOD)
    path = tmp_path / "lvu/annotation/train.json"
    path.write_text(f'{{"a": {json.dumps(GOOD)}, "a": {json.dumps({**GOOD, "genre": "x"})}}}')
    (item,) = LVUReader()(tmp_path, "train", "genre")
    assert item.target == "western"
    reason = LVUReader().skipped(tmp_path, "train", "genre")["a"]
    assert "id 'a/genre/0' was there before, and the first is kept" in reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": ""}, "key 'name' is missing"),
        ({"name": "!!!"}, "'name' holds no words: '!!!'"),
        ({"page_dir": "../../.."}, "leads out of"),
        ({"name": "another"}, "id '7' was there before"),
    ],
)
def test_a_row_of_webvid_that_cannot_be_used_is_left_out_and_told(tmp_path, change, reason):
    write(tmp_path / "train.csv", WEBVID, {**WEBVID, **change})
    (item,) = WebVidReader()(tmp_path, "train", None)
    assert item.target == "a cat"
    assert reason in WebVidReader().skipped(tmp_path, "train", None)["line 3"]


def test_an_lvu_annotation_that_is_broken_is_named(tmp_path):
    write_lvu(tmp_path, a=[1])
    path = tmp_path / "lvu" / "annotation" / "train.json"
    with pytest.raises(DataError, match=r"entry 'a' must be a JSON object, got list"):
        LVUReader()(tmp_path, "train", "genre")
    path.write_text("[1]")
    with pytest.raises(DataError, match=r"train\.json must hold a JSON object, got a list"):
        LVUReader()(tmp_path, "train", "genre")
    path.write_text("{")
    with pytest.raises(DataError, match=r"train\.json is not JSON: expected a key"):
        LVUReader()(tmp_path, "train", "genre")


def test_an_lvu_film_that_leads_out_is_named(tmp_path):
    write_lvu(tmp_path, **{"../../x": {"duration": 50, "num_frames": 500, "genre": "western"}})
    with pytest.raises(DataError, match=r"entry '\.\./\.\./x': '\.\./\.\./x' leads out of"):
        LVUReader()(tmp_path, "train", "genre")


@pytest.mark.real_data
@pytest.mark.parametrize("split", LVU_ITEMS)
def test_lvu_has_as_many_items_as_ma_lmm_counts(real_data, split):
    items = LVUReader(stride_s=20)(real_data, split, list(LVU_ITEMS[split]))
    counts = {task: sum(item.task == task for item in items) for task in LVU_ITEMS[split]}
    assert counts == LVU_ITEMS[split]
    assert len({item.item_id for item in items}) == len(items)
    assert all(item.label is not None for item in items if split == "train")


@pytest.mark.parametrize("value", ["1e999", "NaN", "Infinity", "1" + "0" * 400, "100000000000"])
def test_a_duration_beyond_any_film_is_named(tmp_path, value):
    folder = tmp_path / "lvu" / "annotation"
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        text = f'{{"a": {{"duration": {value}, "num_frames": 10, "genre": "comedy"}}}}'
        (folder / f"{split}.json").write_text(text)
    with pytest.raises(DataError, match=r"entry 'a': (key )?'duration' (must be|is missing)"):
        LVUReader()(tmp_path, "val", "genre")


def test_json_that_no_parser_takes_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"a\.json is not JSON"):
        read_json(path)


def test_a_json_file_too_large_for_memory_is_named_with_the_remedy(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)  # takes no room on the disk
    with pytest.raises(DataError, match=r"a\.json has \d+ bytes.*split it"):
        read_json(path)


def test_the_unnamed_column_of_row_numbers_is_left_out(tmp_path):
    write(tmp_path / "train.csv", {"": "0", **OWN}, {"": "1", **OWN, "video": "b.mp4"})
    assert [item.video_id for item in OwnReader()(tmp_path, "train", None)] == ["a.mp4", "b.mp4"]


def test_half_a_character_becomes_a_sign_that_texts_can_hold(tmp_path):
    write(tmp_path / "train.jsonl", {**OWN, "id": "\ud800", "answer": "a cat \ud83d"})
    (item,) = OwnReader()(tmp_path, "train", None)
    assert (item.item_id, item.target) == ("\ufffd", "a cat \ufffd")
    write(tmp_path / "val.jsonl", {**OWN, "answer": "a cat \U0001f63a"})  # as two escapes
    assert OwnReader()(tmp_path, "val", None)[0].target == "a cat \U0001f63a"


def test_one_text_stands_for_a_list_of_one(tmp_path):
    write(tmp_path / "train.jsonl", {**OWN, "task": "animal"})
    assert OwnReader(closed="animal").classes(tmp_path, None) == {"animal": ["a cat"]}


@pytest.mark.parametrize(("reader", "row"), [(OwnReader, OWN), (CaptionReader, CAPTION)])
def test_0_is_an_id(tmp_path, reader, row):
    write(tmp_path / "train.jsonl", {**row, "id": 0}, {**row, "id": ""}, {**row, "id": None})
    ids = [item.item_id for item in reader(folder=".")(tmp_path, "train", None)]
    assert ids == ["0", "a.mp4, line 2", "a.mp4, line 3"]


def test_a_task_that_no_row_has_is_told_with_those_there_are(tmp_path):
    write(tmp_path / "train.jsonl", {**OWN, "task": "animal"}, OWN)
    message = r"train\.jsonl has no rows of data\.task=\['animl'\]; its tasks are animal, open"
    with pytest.raises(DataError, match=message):
        OwnReader()(tmp_path, "train", "animl")


def test_a_folder_with_the_name_of_an_annotation_is_told(tmp_path):
    (tmp_path / "lvu/annotation/train.json").mkdir(parents=True)
    (tmp_path / "train.jsonl").mkdir()
    for reader, task in ((LVUReader(), "genre"), (OwnReader(), None)):
        with pytest.raises(DataError, match=r"annotation .*train\.jsonl? is a folder; name a file"):
            reader(tmp_path, "train", task)


@pytest.mark.parametrize("name", readers.__all__)
def test_every_reader_is_one(name):
    assert issubclass(getattr(readers, name), Reader)
