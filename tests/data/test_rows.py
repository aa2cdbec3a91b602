"""Rows of every type of value, key, separator and spelling, in own videos and public sets."""

import json
import logging
import unicodedata

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.inspect import inspect
from mmavlm.data.readers import CaptionReader, OwnReader, PopeReader, QuestionReader

OWN = {"video": "a.mp4", "prompt": "who?", "answer": "a cat"}
FORMS = [["a dog", None], [], {}, {"a": "b"}, True, False, 3.0, 1e22, float("inf"), "['a', 3]",
         "{'a': 'b'}", "b'a'", "[]"]  # fmt: skip
NONE = ["NaN", "nan", "None", "N/A", "null", "<NA>", "   ", "\n", "\u200b", "a\0b"]


def write(root, *rows, name="train.jsonl"):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (root / name).write_text("\n".join(lines))


def read(root, **settings):
    return OwnReader(**settings)(root, "train", None)


def refused(root, *rows, name="train.jsonl", **settings):
    write(root, *rows, name=name)
    with pytest.raises(DataError) as error:
        read(root, **settings)
    return str(error.value)


@pytest.mark.parametrize("value", [*FORMS, *NONE])
@pytest.mark.parametrize("key", ["video", "prompt", "answer", "task", "id", "references"])
def test_what_is_no_text_is_refused_by_line_and_key(tmp_path, key, value):
    if key == "references":
        value = [value]
    elif key in ("task", "id") and value in ("", None):
        return
    message = refused(tmp_path, OWN, {**OWN, key: value})
    assert "train.jsonl, line 2" in message
    assert f"'{key}'" in message


def test_numbers_that_can_be_written_in_one_way_are_texts(tmp_path):
    write(tmp_path, {**OWN, "answer": 3}, {**OWN, "answer": 2.5}, {**OWN, "references": [4, "4"]})
    assert [item.references for item in read(tmp_path)] == [("3",), ("2.5",), ("a cat", "4", "4")]


def test_words_for_none_are_answers_where_they_are_no_mark_of_tables(tmp_path):
    write(tmp_path, *({**OWN, "answer": word} for word in ("none", "na", "nothing", "no answer")))
    assert [i.target for i in read(tmp_path)] == ["none", "na", "nothing", "no answer"]
    write(tmp_path, {**OWN, "options": ["a cat", "None"], "answer": "None"})
    assert read(tmp_path, options="texts")[0].target == "None"


def test_texts_that_look_like_lists_are_texts_where_they_can_be(tmp_path):
    texts = ["[1.5, 3.0]", "[music]", "(a man sings)", '{"label": "dog"}', "b", "{curly}"]
    write(tmp_path, *({**OWN, "answer": text} for text in texts))
    assert [item.target for item in read(tmp_path)] == texts


@pytest.mark.parametrize("answers", [["three", "3"], "['three', '3']", '["three", "3"]'])
def test_of_a_list_of_answers_the_first_is_the_target_and_all_are_right(tmp_path, answers):
    write(tmp_path, {**OWN, "answer": answers, "references": ["drei"], "task": "count"})
    (item,) = read(tmp_path, closed="count")
    assert (item.target, item.references, item.label) == ("three", ("three", "3", "drei"), 0)


def test_public_sets_refuse_a_list_of_answers_by_entry_and_key(tmp_path):
    entry = {"question": "who?", "answer": ["he"], "video": "a", "frame_length": 9}
    folder = tmp_path / "msvd" / "annotation"
    folder.mkdir(parents=True)
    (folder / "qa_train.json").write_text(json.dumps({"7": entry}))
    reason = QuestionReader("msvd", "{question}").skipped(tmp_path, "train", None)["7"]
    assert reason.endswith("qa_train.json, entry '7': 'answer' must be a text, got ['he']")


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("00:00:01", 1), ("1:02:03.5", 3723.5), ("02:03", 123), ("00:00:01,5", 1.5), ("2,5", 2.5),
     (" 7 ", 7), (None, 0), (float("nan"), 0)],
)  # fmt: skip
def test_times_are_seconds_or_clock_times(tmp_path, said, seconds):
    write(tmp_path, {**OWN, "start_s": said})
    assert read(tmp_path)[0].film.start_s == seconds


@pytest.mark.parametrize("said", ["1:60", "1:2:3:4", "1_000", "1,500", "٣", "0x1", [1], True, 1e9])
def test_what_is_no_time_is_refused_by_line_and_key(tmp_path, said):
    message = refused(tmp_path, {**OWN, "start_s": said})
    assert "line 1: 'start_s' must be a number of at least 0, got" in message


def test_clock_times_under_near_keys_are_read_and_the_keys_are_named_once(tmp_path, caplog):
    timed = {**OWN, "start": "00:00:01", "end": "00:00:03"}
    write(tmp_path, timed, timed, {**OWN, "start": 5, "licence": "CC"})
    read(tmp_path)
    items = read(tmp_path)
    assert [(item.film.start_s, item.film.end_s) for item in items] == [(1, 3), (1, 3), (0, None)]
    (told,) = [r.getMessage() for r in caplog.records if "not read" in r.getMessage()]
    assert "'start', which has no unit where it is a number ('start_s' is in seconds)" in told
    assert "'licence'" in told
    assert inspect(OwnReader(), tmp_path, None, splits=["train"]).splits["train"].notes == [told]


def test_keys_that_are_like_none_are_no_warning(tmp_path, caplog):
    write(tmp_path, {**OWN, "licence": "CC"})
    read(tmp_path)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("spelt", ["Train", "TRAINING", " train "])
def test_splits_have_synonyms_in_any_case(tmp_path, spelt):
    others = ("validation", "eval", "Dev", "valid", "testing")
    rows = [{**OWN, "id": i, "split": split} for i, split in enumerate((spelt, *others))]
    write(tmp_path, *rows, name="all.jsonl")
    reader = OwnReader(train="all.jsonl", val="all.jsonl", test="all.jsonl")
    counts = [len(reader(tmp_path, split, None)) for split in ("train", "val", "test")]
    assert counts == [1, 4, 1]


@pytest.mark.parametrize("value", ["trian", "NaN", 3, ["train"], "  "])
def test_a_split_that_is_none_is_named_with_its_line(tmp_path, value):
    message = refused(tmp_path, OWN, {**OWN, "split": value})
    assert "train.jsonl, line 2" in message
    assert "'split' must be one of train, val, test, training, validation" in message


def test_check_says_why_there_are_no_items(tmp_path):
    write(tmp_path, {**OWN, "split": "train"}, {**OWN, "split": "val"}, name="all.jsonl")
    (tmp_path / "none.jsonl").write_text("\n")
    reader = OwnReader(train="all.jsonl", val="none.jsonl", test="all.jsonl")
    splits = inspect(reader, tmp_path, None).splits
    assert (splits["train"].items, splits["train"].problem) == (1, None)
    assert splits["val"].problem.endswith("none.jsonl holds no rows")
    assert "has no rows of the test split, but 1 of train, 1 of val" in splits["test"].problem


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_check_lists_every_broken_row_with_the_line_where_it_begins(tmp_path, capsys, suffix):
    rows = {
        "jsonl": [OWN, "{broken", {**OWN, "answer": None}, "", OWN, "[1]", {**OWN, "video": 1.0}],
        "csv": ["video,prompt,answer", 'a.mp4,"who\n\nis it?",a cat', "a.mp4,who?", 'a.mp4,"x"y,z',
                "", "a.mp4,who?,a cat", "a.mp4,a,b,c"],
    }[suffix]  # fmt: skip
    write(tmp_path, *rows, name=f"train.{suffix}")
    train = inspect(OwnReader(), tmp_path, None, splits=["train"])
    broken = {"jsonl": [2, 3, 6, 7], "csv": [5, 6, 9]}[suffix]
    assert list(train.splits["train"].skipped) == [f"line {number}" for number in broken]
    assert train.splits["train"].items == 2
    train.print()
    shown = capsys.readouterr().out
    assert "line 1" not in shown
    assert [shown.count(f"line {number}") for number in broken[1:]] == [1] * len(broken[1:])
    assert f"train: {len(broken)} rows cannot be used" in shown
    with pytest.raises(DataError, match=rf"{len(broken)} rows cannot be used; mend or remove"):
        read(tmp_path)


def test_check_lists_a_missing_film_once_with_its_splits(tmp_path, capsys):
    for split in ("train", "val"):
        write(tmp_path, OWN, {**OWN, "video": f"{split}.mp4"}, name=f"{split}.jsonl")
    inspect(OwnReader(), tmp_path, None, splits=["train", "val"]).print()
    shown = capsys.readouterr().out
    assert "train, val: missing videos, such as a.mp4\n" in shown
    assert [shown.count(name) for name in ("a.mp4", "train.mp4", "val.mp4")] == [1, 1, 1]


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_tables_are_read_whatever_separates_their_columns(tmp_path, separator, suffix):
    lines = [["video", "prompt", "answer"], ["a.mp4", '"who, or; what|?"', "a cat"]]
    write(tmp_path, *map(separator.join, lines), name=f"train.{suffix}")
    (item,) = read(tmp_path)
    assert (item.video_id, item.prompt, item.target) == ("a.mp4", "who, or; what|?", "a cat")


def test_a_table_of_excels_is_read(tmp_path):
    text = "sep=;\r\nvideo; prompt ;answer;;\r\na.mp4;who?;été;;\r\n"
    (tmp_path / "train.csv").write_text(text, encoding="utf-16")
    assert read(tmp_path)[0].target == "été"


def test_a_column_that_is_twice_in_the_header_is_named(tmp_path):
    message = refused(tmp_path, "video,prompt,answer,answer", "a.mp4,who?,b,c", name="train.csv")
    assert "train.csv: column 'answer' is twice in the header" in message


def test_a_cell_of_any_length_is_read(tmp_path):
    write(tmp_path, "video,prompt,answer", f"a.mp4,who?,{'a' * 200_000}", name="train.csv")
    assert len(read(tmp_path)[0].target) == 200_000


def test_a_quotation_mark_that_does_not_close_is_named_where_it_opens(tmp_path):
    rows = ["video,prompt,answer", 'a.mp4,"who?,b', "a.mp4,who?,b", "a.mp4,who?,b"]
    message = refused(tmp_path, *rows, name="train.csv")
    assert "line 2 is not CSV: unexpected end of data (up to line 4); see that each" in message


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_of_rows_is_read(tmp_path, name, indent):
    write(tmp_path, json.dumps([OWN, {**OWN, "answer": ""}, OWN], indent=indent), name=name)
    assert list(OwnReader().skipped(tmp_path, "train", None)) == ["entry 1"]
    write(tmp_path, json.dumps([OWN, OWN], indent=indent), name=name)
    assert [item.item_id for item in read(tmp_path)] == ["a.mp4, entry 0", "a.mp4, entry 1"]


def test_an_object_of_rows_is_read_from_json(tmp_path):
    write(tmp_path, json.dumps({"x": OWN, "y": OWN}), name="train.json")
    assert [item.target for item in read(tmp_path)] == ["a cat", "a cat"]


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (json.dumps({"data": [OWN, OWN]}), "train.json", "`jq '.[\"data\"]' train.json`"),
        (json.dumps(OWN, indent=2), "train.jsonl", "`jq -c . train.jsonl`"),
        (json.dumps({"id": 1, "video": "a", "conversations": []}), "train.jsonl",
         "holds 'conversations' (see line 1), as sets for chat models do; here a row is"),
        (json.dumps({"video": "a", "question": "q", "response": "r"}), "train.jsonl",
         "has 'question' in place of 'prompt', 'response' in place of 'answer', by its line 1; "
         "rename them, or set 'data.reader.keys={prompt:question,answer:response}'"),
        ("a.mp4,who?,a cat\nb.mp4,who?,a dog", "train.csv", "name the columns in its first line"),
    ],
)  # fmt: skip
def test_a_file_laid_out_otherwise_is_told_once_with_what_reads_it(tmp_path, text, name, said):
    message = refused(tmp_path, text, *([text] * 3 if name == "train.jsonl" else []), name=name)
    assert said in message
    assert message.count(name) <= 3


def test_keys_of_other_names_are_read_where_they_are_told(tmp_path):
    write(tmp_path, {"video": "a.mp4", "question": "who?", "response": "he"})
    (item,) = read(tmp_path, keys={"prompt": "question", "answer": "response"})
    assert (item.prompt, item.target) == ("who?", "he")
    with pytest.raises(ConfigError, match=r"data\.reader\.keys names \['promt'\]; rows have answ"):
        OwnReader(keys={"promt": "question"})


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("reader", ["own", "captions", "pope"])
def test_names_are_found_with_their_letters_composed_or_not(tmp_path, forms, reader):
    said, there = (unicodedata.normalize(form, "café/été.mp4") for form in forms)
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).touch()
    items = {
        "own": (OwnReader(folder="rows"), {**OWN, "video": said}, "test.jsonl"),
        "captions": (CaptionReader("rows"), {"video": said, "caption": "a cat"}, "test.jsonl"),
        "pope": (PopeReader(pope="rows"), {"video": said, "question_id": 1, "text": "is it?",
                                           "label": "yes"}, "pope_random.jsonl"),
    }  # fmt: skip
    of, row, name = items[reader]
    (tmp_path / "rows").mkdir()
    write(tmp_path / "rows", row, name=name)
    (item,) = of(tmp_path, "test", "random" if reader == "pope" else None)
    assert item.film.source == tmp_path / there
    assert item.film.source.is_file()


def test_backslashes_are_slashes_where_no_file_has_them(tmp_path):
    (tmp_path / "clips").mkdir()
    for name in ("clips/a.mp4", "b\\c.mp4"):
        (tmp_path / name).touch()
    write(tmp_path, *({**OWN, "video": name} for name in ("clips\\a.mp4", "b\\c.mp4", "x\\y.mp4")))
    found = [item.film.source.relative_to(tmp_path).as_posix() for item in read(tmp_path)]
    assert found == ["clips/a.mp4", "b\\c.mp4", "x/y.mp4"]


def test_a_key_that_is_like_one_a_public_entry_lacks_is_named(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    entry = {"question": "who?", "answer": "he", "video": "a", "frame_length": 9, "option": ["a"]}
    folder = tmp_path / "msvd" / "annotation"
    folder.mkdir(parents=True)
    (folder / "qa_train.json").write_text(json.dumps({"7": {**entry, "dataset": "msvd"}}))
    assert len(QuestionReader("msvd", "{question}")(tmp_path, "train", None)) == 1
    assert "keys that are not read: 'option' (the nearest is 'options')" in caplog.text
    assert "dataset" not in caplog.text


def test_one_row_under_other_names_is_a_row_of_its_own(tmp_path):
    write(tmp_path, {"video": "a", "question": "q", "answer": "r"}, OWN, {**OWN, "answer": ""})
    assert list(OwnReader().skipped(tmp_path, "train", None)) == ["line 1", "line 3"]
