"""The readers of MA-LMM's sets beside LVU, on small files in their formats and on real ones."""

import json
import logging
import re
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.medium import FrameGrid
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.inspect import inspect
from mmavlm.data.items import asked_once
from mmavlm.data.readers import LabelReader, LVUReader, QuestionReader
from public_sets import BREAKFASTS, SPLITS, entries, references, write_json, write_public_sets

FILMS = {"train": ["a", "b", "c", "d"], "val": ["e", "f"], "test": ["g"]}
SETS = (
    "breakfast",
    "coin",
    "msvd_qa",
    "msrvtt_qa",
    "activitynet_qa",
    "msvd_caption",
    "msrvtt_caption",
    "youcook2_caption",
)
FILES = {  # a set of each format, its training file, and what makes an entry of it
    "breakfast": ("breakfast/annotation/train.json", "breakfast"),
    "coin": ("coin/annotation/COIN.json", "coin"),
    "activitynet_qa": ("activitynet/annotation/qa_train.json", "qa"),
    "msrvtt_caption": ("msrvtt/annotation/cap_train.json", "cap"),
    "youcook2_caption": ("youcook2/annotation/cap_train.json", "segments"),
}
NEEDED = {
    "breakfast": ("frame_length", "class_name"),
    "coin": ("num_frames_actual", "target"),
    "activitynet_qa": ("question", "answer", "video", "frame_length"),
    "msrvtt_caption": ("caption", "video", "frame_length"),
    "youcook2_caption": ("caption", "video", "frame_length", "segment"),
}


def reader_of(name, **settings):
    config = yaml.safe_load((Path(config_dir()) / f"data/{name}.yaml").read_text())["reader"]
    return instantiate({**config, **settings})


@pytest.fixture
def root(tmp_path):
    write_public_sets(tmp_path, FILMS, frames=40)
    return tmp_path


def changed(root, name, change):
    """Apply `change` to the first entry of a set's training file; the file and the entry's key."""
    path = root / FILES[name][0]
    content = json.loads(path.read_text())
    key = next(iter(content))
    change(content[key])
    write_json(path, content)
    return path, key


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_read_in_its_format(root, name):
    reader = reader_of(name)
    per_film = 2 if name.endswith("caption") else 1
    for split in ("train", "val"):
        items = reader(root, split, None)
        assert len(items) == per_film * len(FILMS[split])
        assert len({item.item_id for item in items}) == len(items)
        assert {item.video_id for item in items} == set(FILMS[split])
        for item in items:
            folder = name.split("_")[0]
            assert item.film.source == root / folder / "videos" / f"{item.video_id}.mp4"
            assert item.film.grid == FrameGrid(40, "segments")
            assert item.target in item.references or split == "val"
    assert reader.skipped(root, "train", None) == {}


def test_films_lie_in_folders_of_frames_where_there_are_some(root):
    (root / "msvd/frames/a").mkdir(parents=True)
    sources = {i.video_id: i.film.source for i in reader_of("msvd_qa")(root, "train", None)}
    assert sources["a"] == root / "msvd/frames/a"
    assert sources["b"] == root / "msvd/videos/b.mp4"


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("breakfast", "what type of breakfast is shown in the video?"),
        ("coin", "what is the activity in the video?"),
        ("msvd_qa", "Question: what is shown? Short answer:"),
        ("msrvtt_caption", "what does the video describe?"),
    ],
)
def test_prompts_are_those_of_ma_lmm(root, name, prompt):
    assert {item.prompt for item in reader_of(name)(root, "train", None)} == {prompt}


@pytest.mark.parametrize("name", ["breakfast", "coin"])
def test_classes_come_from_training_alone(root, name):
    reader = reader_of(name)
    assert reader.classes(root, None) == {name: sorted(BREAKFASTS)}
    for item in reader(root, "val", None):
        assert (item.task, BREAKFASTS.index(item.target)) == (name, item.label)
    changed(root, name, lambda entry: None)
    path = root / name / "annotation" / ("val.json" if name == "breakfast" else "COIN.json")
    content = json.loads(path.read_text())
    content["e"]["class_name" if name == "breakfast" else "target"] = "soup"
    write_json(path, content)
    labels = {item.target: item.label for item in reader(root, "val", None)}
    assert (labels["soup"], labels["fried egg"]) == (None, 1)


def test_questions_and_captions_have_no_classes(root):
    for name in ("msvd_qa", "msvd_caption"):
        assert reader_of(name).classes(root, None) == {}


def test_texts_are_cleaned_up_and_captions_cut_to_their_first_words(root):
    def change(entry):
        entry["question"], entry["answer"] = "Who (if any) sings?", "A Man."

    changed(root, "activitynet_qa", change)
    item = reader_of("activitynet_qa")(root, "train", None)[0]
    assert (item.prompt, item.target) == ("Question: who if any sings? Short answer:", "a man")
    changed(root, "msrvtt_caption", lambda entry: entry.update(caption="one two three four"))
    item = reader_of("msrvtt_caption", max_words=3)(root, "train", None)[0]
    assert item.target == "one two three"


def test_options_of_a_question_stand_behind_it_and_are_answered_as_told(root):
    options = {"options": ["tea", "fried egg", "cereal"], "answer": "cereal"}
    changed(root, "activitynet_qa", lambda entry: entry.update(options))
    for style, listed, answer in (
        ("letters", "(A) tea (B) fried egg (C) cereal", "C"),
        ("texts", "tea, fried egg, cereal", "cereal"),
    ):
        first, second = reader_of("activitynet_qa", options=style)(root, "train", None)[:2]
        prompt = f"Question: what is shown? Options: {listed} Short answer:"
        assert (first.prompt, first.target, first.references) == (prompt, answer, (answer,))
        assert (second.prompt, second.options) == ("Question: what is shown? Short answer:", None)


def test_a_prompt_without_a_place_for_the_question_is_refused():
    with pytest.raises(ConfigError, match=r"data\.reader\.prompt='what\?' has no \{question\}"):
        QuestionReader("msvd", "what?")


def test_a_segment_has_its_times_and_its_own_references(root):
    items = reader_of("youcook2_caption")(root, "val", None)
    assert [(i.item_id, i.film.start_s, i.film.end_s) for i in items[:2]] == [
        ("e_0000_0002", 0, 2),
        ("e_0002_0004", 2, 4),
    ]
    assert [i.references for i in items[:2]] == [("boil 0 cups",), ("boil 2 cups",)]


def test_outside_training_all_captions_of_a_video_are_references(root):
    reader = reader_of("msvd_caption")
    assert reader(root, "train", None)[0].references == ("a man cooks",)
    # as they were published, since metrics have a clean-up of their own
    assert {i.references for i in reader(root, "val", None)} == {
        ("A man cooks.", "someone is cooking")
    }


def test_references_that_are_missing_are_taken_from_the_split(root, caplog):
    path = root / "msvd/annotation/coco_gt/cap_val.json"
    reader = reader_of("msvd_caption")
    path.unlink()
    of_split = {("a man cooks", "someone is cooking")}
    assert {i.references for i in reader(root, "val", None)} == of_split
    write_json(path, references(entries(["f"], 40)["cap"]))
    with caplog.at_level(logging.WARNING):
        items = reader(root, "val", None)
    assert {i.references for i in items if i.video_id == "e"} == of_split
    assert "has no captions of 1 of 2 videos, such as e" in caplog.text


def test_references_of_another_form_are_named(root):
    path = root / "msvd/annotation/coco_gt/cap_val.json"
    reader = reader_of("msvd_caption")
    for content in ([1], {"annotations": {}}, {}):
        write_json(path, content)
        with pytest.raises(
            DataError, match=r"coco_gt/cap_val\.json must hold a .* captions are expected"
        ):
            reader(root, "val", None)
    content = references(entries(["e", "f"], 40)["cap"])
    content["annotations"][1] = {"image_id": "e"}
    write_json(path, content)
    assert "annotation 1: key 'caption' is missing" in str(reader.skipped(root, "val", None))
    assert reader(root, "val", None)[0].references == ("A man cooks.",)


def test_evaluation_asks_once_what_many_captions_tell(root):
    (root / "msvd/videos").mkdir()
    for film in "abcdefg":
        (root / f"msvd/videos/{film}.mp4").touch()
    data = VideoDataModule(reader_of("msvd_caption"), root)
    assert [len(data.items(split)) for split in SPLITS] == [8, 2, 1]
    assert data.items("val")[0].references == ("A man cooks.", "someone is cooking")


def test_questions_that_differ_in_anything_are_all_asked(root):
    for name in SETS:
        items = reader_of(name)(root, "train", None)
        assert asked_once(items) == items


@pytest.mark.parametrize("name", ["breakfast", "coin"])
def test_a_set_without_a_test_split_tests_what_it_validates_and_tells_so(root, name, caplog):
    if name == "coin":
        path = root / "coin/annotation/COIN.json"
        content = json.loads(path.read_text())
        write_json(path, {k: v for k, v in content.items() if v["subset"] != "test"})
    reader = reader_of(name)
    validated = reader(root, "val", None)
    assert caplog.text == ""
    assert reader(root, "test", None) == validated
    assert "stands in for the test split, which the set does not have" in caplog.text


def test_a_set_with_a_test_split_lets_no_other_stand_in(root):
    (root / "msvd/annotation/qa_test.json").unlink()
    with pytest.raises(DataError, match=r"qa_test\.json does not exist"):
        reader_of("msvd_qa")(root, "test", None)


def test_the_splits_of_a_shared_file_are_told_apart_by_its_subsets(root):
    reader = reader_of("coin")
    found = {split: [i.video_id for i in reader(root, split, None)] for split in SPLITS}
    assert found == FILMS
    path = root / "coin/annotation/COIN.json"
    names = {"train": "training", "val": "validation", "test": "testing"}
    content = json.loads(path.read_text())
    write_json(path, {k: {**v, "subset": names[v["subset"]]} for k, v in content.items()})
    assert {split: [i.video_id for i in reader(root, split, None)] for split in SPLITS} == FILMS


def test_files_of_their_own_come_before_the_shared_one(root):
    write_json(root / "coin/annotation/test.json", entries(["z"], 40)["coin"])
    assert [i.video_id for i in reader_of("coin")(root, "test", None)] == ["z"]
    assert len(reader_of("coin", train="test.json")(root, "train", None)) == 1


def test_nothing_stands_in_for_a_file_that_is_named_and_missing(root):
    for name in ("breakfast", "coin"):
        with pytest.raises(DataError, match=r"annotation/mine\.json does not exist"):
            reader_of(name, test="mine.json")(root, "test", None)


def test_an_entry_of_no_known_subset_is_told(root):
    path, key = changed(root, "coin", lambda entry: entry.update(subset="extra"))
    reason = reader_of("coin").skipped(root, "val", None)[key]
    assert f"{path}, entry 'a': 'subset' must be one of train, val, test, training" in reason
    assert "got 'extra'" in reason


def test_films_that_the_published_lists_leave_out_are_told(root):
    path = root / "coin/annotation/COIN.json"
    content = json.loads(path.read_text())
    content["AfiVmAjfTNs"] = {**content["a"]}
    del content["b"]["num_frames_actual"]
    write_json(path, content)
    reader = reader_of("coin")
    assert [i.video_id for i in reader(root, "train", None)] == ["a", "c", "d"]
    skipped = reader.skipped(root, "train", None)
    assert "listed in data.reader.skip" in skipped["AfiVmAjfTNs"]
    alone = reader_of("coin", skip="AfiVmAjfTNs")
    assert alone.skipped(root, "train", None) == skipped
    assert "entry 'b': key 'num_frames_actual' is missing" in skipped["b"]


@pytest.mark.parametrize(("name", "key"), [(n, k) for n, keys in NEEDED.items() for k in keys])
@pytest.mark.parametrize("value", [None, "", [], True])
def test_an_entry_that_cannot_be_used_is_left_out_and_told(root, caplog, name, key, value):
    path, entry = changed(root, name, lambda entry: entry.update({key: value}))
    reader = reader_of(name)
    reason = reader.skipped(root, "train", None)[entry]
    assert reason.startswith(f"{path}, entry '{entry}': ")
    assert re.search(rf"'{key}' (is missing or empty|must be a )", reason)
    assert entry not in {item.item_id for item in reader(root, "train", None)}
    assert re.search(
        r"1 entries left out beside \d+ items; the first: .*" + re.escape(reason), caplog.text
    )


@pytest.mark.parametrize("name", FILES)
def test_an_entry_without_anything_names_what_is_missing(root, name):
    path, entry = changed(root, name, lambda entry: entry.clear())
    write_json(path, {**json.loads(path.read_text()), entry: {"subset": "train"}})
    reason = reader_of(name).skipped(root, "train", None)[entry]
    assert re.search(r"entry '.*': key '.*' is missing or empty; the row has \['subset'\]", reason)


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", True])
def test_a_count_of_frames_that_is_none_is_told(root, value):
    _, key = changed(root, "activitynet_qa", lambda entry: entry.update(frame_length=value))
    reason = reader_of("activitynet_qa").skipped(root, "train", None)[key]
    assert f"'frame_length' must be a whole number of at least 1, got {value!r}" in reason


def test_a_count_of_frames_may_be_a_text_of_digits(root):
    path = root / "activitynet/annotation/qa_train.json"
    content = json.loads(path.read_text())
    key = next(iter(content))
    content[key]["frame_length"] = "72"
    path.write_text(json.dumps(content))
    assert reader_of("activitynet_qa")(root, "train", None)[0].film.grid == FrameGrid(
        72, "segments"
    )


def test_of_entries_with_one_key_the_first_is_kept(root):
    path = root / "activitynet/annotation/qa_train.json"
    key, entry = next(iter(json.loads(path.read_text()).items()))
    path.write_text(f'{{"{key}": {json.dumps(entry)}, "{key}": {json.dumps(entry)}}}')
    reader = reader_of("activitynet_qa")
    assert [item.item_id for item in reader(root, "train", None)] == [key]
    assert "was there before" in reader.skipped(root, "train", None)[key]


def test_an_answer_without_words_is_told(root):
    _, key = changed(root, "activitynet_qa", lambda entry: entry.update(answer=" ... "))
    reason = reader_of("activitynet_qa").skipped(root, "train", None)[key]
    assert "'answer' holds no words: ' ... '; write some, or remove the row" in reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_time": 5, "end_time": 2}, "end_time must be after start_time, got 5 to 2"),
        ({"start_time": "soon"}, "'start_time' must be a number of at least 0, got 'soon'"),
        ({"start_time": 4, "end_time": 9}, "start_time must be before duration=4, got 4"),
    ],
)
def test_times_of_a_segment_that_cannot_be_are_told(root, change, message):
    _, key = changed(root, "youcook2_caption", lambda entry: entry.update(change))
    assert message in reader_of("youcook2_caption").skipped(root, "train", None)[key]


def test_a_film_that_leads_out_is_told(root):
    _, key = changed(root, "activitynet_qa", lambda entry: entry.update(video="../../x"))
    reason = reader_of("activitynet_qa").skipped(root, "train", None)[key]
    assert "qa_train.json, entry " in reason
    assert "'../../x' leads out of" in reason


def test_a_split_of_which_nothing_is_left_is_refused(root):
    path = root / "msvd/annotation/qa_train.json"
    content = json.loads(path.read_text())
    write_json(path, {key: {**entry, "answer": ""} for key, entry in content.items()})
    message = r"no entry .* 4 entries left out beside 0 items; the first: .*'0000000': key 'answer'"
    with pytest.raises(DataError, match=message):
        reader_of("msvd_qa")(root, "train", None)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_broken_is_named(root, name):
    path = root / FILES[name][0]
    for text, message in (
        ("{", rf"{path.name} is not JSON: expected a key"),
        ("[1]", rf"{path.name} must hold a JSON object, got a list"),
        ('{"a": 5}', rf"{path.name}, entry 'a' must be a JSON object, got int"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            reader_of(name)(root, "train", None)
    path.unlink()
    with pytest.raises(DataError, match=r"annotation .*train\.json does not exist; .*data\.root"):
        reader_of(name)(root, "train", None)


@pytest.mark.parametrize("reader", [reader_of("coin"), reader_of("msvd_qa"), LVUReader()])
def test_an_unknown_split_lists_the_three(root, reader):
    task = "genre" if isinstance(reader, LVUReader) else None
    write_json(root / "lvu/annotation/train.json", {})
    with pytest.raises(ConfigError, match=r"split 'valid' is unknown; choose one of train, val, t"):
        reader(root, "valid", task)


@pytest.mark.parametrize("name", SETS)
def test_a_task_is_refused(root, name):
    with pytest.raises(ConfigError, match=r"data\.task='genre': .* have no tasks; leave"):
        reader_of(name)(root, "train", "genre")


def test_the_copy_with_corrected_counts_is_read_where_it_is_asked_for(root):
    content = json.loads((root / "breakfast/annotation/train.json").read_text())
    content["a"]["frame_length"] = 39
    write_json(root / "breakfast/annotation/train.counted.json", content)
    for counted, frames in ((False, 40), (True, 39)):
        reader = reader_of("breakfast", counted=counted)
        assert reader(root, "train", None)[0].film.grid.frames == frames
        assert len(reader(root, "val", None)) == 2


def test_check_counts_what_is_skipped_and_what_is_asked(root, capsys):
    _, key = changed(root, "msrvtt_caption", lambda entry: entry.update(caption=""))
    found = inspect(reader_of("msrvtt_caption"), root, None)
    train, val = found.splits["train"], found.splits["val"]
    assert (train.items, train.asked, train.skipped_entries) == (7, 7, 1)
    assert (val.items, val.asked, val.skipped_entries, val.videos) == (4, 2, 0, 2)
    assert list(train.skipped) == [key]
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    found.print()
    shown = " ".join(capsys.readouterr().out.split())
    assert "train: skipped: " in shown
    assert "entry '0': key 'caption' is missing or empty" in shown
    assert "val: evaluation asks 2 questions of these items" in shown


def test_check_tells_of_every_skipped_entry_also_where_none_is_left(root):
    for split in SPLITS[1:]:
        path = root / f"msvd/annotation/qa_{split}.json"
        write_json(path, {str(i): {"video": "a"} for i in range(210)})
    val = inspect(reader_of("msvd_qa"), root, None).splits["val"]
    assert (val.items, val.skipped_entries, len(val.skipped)) == (0, 210, 210)
    assert "no entry can be used" in val.problem
    lines = val.skipped_lines()
    assert (len(lines), lines[-1]) == (201, "skipped: 10 more, which format=json lists")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "items", "asked", "videos"),
    [
        ("msvd_qa", 6415, 6415, 245),
        ("msvd_caption", 4290, 100, 100),
        ("youcook2_caption", 3184, 3184, 414),
    ],
)
def test_real_files_are_read_to_the_last_entry(real_data, name, items, asked, videos):
    found = inspect(reader_of(name), real_data, None, splits=["val"]).splits["val"]
    assert (found.items, found.asked, found.videos) == (items, asked, videos)
    assert (found.skipped_entries, found.problem) == (0, None)


@pytest.mark.real_data
def test_the_references_of_real_captions_are_all_of_a_video(real_data):
    items = reader_of("msvd_caption")(real_data, "val", None)
    assert sum(len(item.references) for item in asked_once(items)) == 4290


def test_a_label_reader_takes_other_keys(tmp_path):
    entry = {"kind": "Tea!", "n": 7}
    write_json(tmp_path / "own/annotation/train.json", {"a": entry})
    reader = LabelReader("own", "drink", "which?", "kind", count_key="n")
    (item,) = reader(tmp_path, "train", None)
    assert (item.target, item.task, item.film.grid.frames) == ("tea", "drink", 7)
