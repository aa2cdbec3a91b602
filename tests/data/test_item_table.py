"""Items as a table are the items that the reader makes one by one, and are kept from run to run."""

import json
import logging
import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import DataError
from mmavlm.core.items import Item
from mmavlm.core.medium import FrameGrid, Medium
from mmavlm.core.options import Options
from mmavlm.core.turns import Shown, Turn
from mmavlm.data import kept_items
from mmavlm.data.balance import Balance
from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.item_rows import Common
from mmavlm.data.item_table import ItemTable
from mmavlm.data.item_writer import ItemWriter
from mmavlm.data.items import Flag, coded, flagged, present
from mmavlm.data.joined import JoinedItems
from mmavlm.data.kept_items import items_of
from mmavlm.data.readers import CaptionReader, OwnReader, WebVidReader
from mmavlm.data.readers.entries import Found
from mmavlm.data.readers.malmm import QuestionReader
from mmavlm.data.readers.tabled import write_reading

COMMON = Common("/data", "what?", "caption")
FILM = Medium(medium_id="v", source=Path("/data/v.mp4"))
SOUND = Medium(medium_id="s", source=Path("/elsewhere/s.wav"), kind="sound")


def question(number, **rest):
    settings = {
        "item_id": f"i{number}",
        "video_id": f"v{number % 3}",
        "source": Path(f"/data/v{number % 3}.mp4"),
        "prompt": "what?",
        "target": "a dog",
        "task": "caption",
        "references": ("a dog",),
    }
    return Item.question(**{**settings, **rest})


ITEMS = [
    question(0),
    question(1, video_id="i1", source=Path("/elsewhere/x.mkv"), prompt="why?", task="qa"),
    question(2, start_s=1.5, end_s=4.0, grid=FrameGrid(12, "segments")),
    question(3, grid=FrameGrid(12, "windows")),
    question(4, references=("a dog", "one dog")),
    question(5, references=()),
    question(6, label=0),
    question(7, options=Options(("a dog", "a cat"), "numbers"), target="1"),
    question(8, meta={"pair": ("a", 1, None), "more": {"x": [1.5, "ä"]}}),
    question(9, subtitles=Path("/data/v.srt")),
    question(10, target=""),
    Item(item_id="talk", task="chat", conversation=Conversation((Turn("user", ("hello",)),))),
    Item(
        item_id="both",
        task="chat",
        conversation=Conversation(
            (
                Turn("system", ("be brief",)),
                Turn("user", (Shown(0), "and", Shown(1), "?")),
                Turn("assistant", ("yes",)),
                Turn("user", ("sure?",)),
                Turn("assistant", ("no",), learned=True),
            ),
            (FILM, SOUND),
        ),
    ),
]


def table(folder, items=ITEMS, common=COMMON):
    folder.mkdir(exist_ok=True)
    with ItemWriter(folder, common) as writer:
        writer.add_items(items)
        writer.finish()
    return ItemTable(folder)


def test_a_table_gives_the_items_that_were_put_in(tmp_path):
    made = table(tmp_path)
    assert list(made) == ITEMS == [made[at] for at in range(len(made))]
    assert made[-1] == ITEMS[-1]
    assert list(made[2:9:3]) == ITEMS[2:9:3]
    assert list(made[2:9][1:3]) == ITEMS[3:5]
    assert made[:] is made
    assert list(pickle.loads(pickle.dumps(made[3:]))) == ITEMS[3:]
    with pytest.raises(IndexError):
        made[len(ITEMS)]


def test_what_is_asked_of_all_items_is_the_same_of_columns_and_of_a_list(tmp_path):
    whole = table(tmp_path)
    for made, items in (
        (whole, ITEMS),
        (whole[4:], ITEMS[4:]),
        (JoinedItems([whole, ITEMS[:0]]), ITEMS),
    ):
        for key in ("task", "answer", "prompt"):
            texts, codes = coded(made, key)
            assert (texts, codes.tolist()) == (coded(items, key)[0], coded(items, key)[1].tolist())
        for flag, has in {
            Flag.SOUND: lambda item: any(m.is_sound for m in item.conversation.media),
            Flag.OPTIONS: lambda item: item.options is not None,
            Flag.REFERENCES: lambda item: len(item.references) > 1,
            Flag.META: lambda item: bool(item.meta),
            Flag.LABEL: lambda item: item.label is not None,
        }.items():
            found = [(n, item) for n, item in flagged(made, flag) if has(item)]
            assert found == [(n, item) for n, item in enumerate(items) if has(item)]
    assert len(whole.flagged(Flag.SOUND)) == 1  # no other is looked at


def test_groups_of_columns_and_of_a_list_are_the_same(tmp_path):
    made = table(tmp_path)
    indices = np.array([0, 1, 2, 4, 7, 11, 12])
    for balance in (Balance("task"), Balance(["task", "answer"]), Balance("answer", "task")):
        of_table, of_list = (balance.parts(items, indices) for items in (made, ITEMS))
        assert [(i.tolist(), share) for i, share in of_table] == [
            (i.tolist(), share) for i, share in of_list
        ]


def test_a_mix_names_what_its_sets_have(tmp_path):
    mix = JoinedItems([table(tmp_path), ITEMS[:2]], ["a", "b"])
    assert len(mix) == len(list(mix)) == len(ITEMS) + 2
    assert (mix[0].item_id, mix[len(ITEMS)].task, mix[-1].video_id) == ("a/i0", "b/caption", "b/i1")
    assert coded(mix, "task").texts == coded(list(mix), "task").texts


def test_a_table_refuses_what_it_could_not_give_back(tmp_path):
    for value in ({1, 2}, {1: "a"}, np.float64(1), Path("x"), {"()": 1}):
        with pytest.raises(TypeError, match="cannot hold"):
            table(tmp_path / "t", [question(0, meta={"x": value})])


def test_films_that_are_not_there_are_named_and_their_items_left_out(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("v0.mp4", "v2.mp4"):
        (tmp_path / "data" / name).touch()
    items = [
        question(n, source=tmp_path / "data" / f"v{n % 3}.mp4", prompt="why?" * (n % 2) + "?")
        for n in range(9)
    ]
    made = table(tmp_path / "table", items, Common(str(tmp_path / "data")))
    for found in (present(made), present(items)):
        assert found.missing == {"v1": tmp_path / "data" / "v1.mp4"}
        assert list(found.items) == [item for item in items if item.video_id != "v1"]
        assert len(found.films) == 3
        assert "v1" in found.films
        assert "v3" not in found.films
    assert present(made[:1]).missing == {}
    assert len(present(made[:2]).films) == 2


# Values as files have them, and as they should not.
TEXTS = st.sampled_from(
    ["a dog", "A Man, rides!", "  ", "", "NaN", "None", "['a', 'b']", "b'x'", "(x)", "ä é", "\x00",
     "x\ny", "...", "日本語", "1.5", "\u200d", "İstanbul Σ", "q" * 60, " lead", "word " * 60,
     "{question}"]
)  # fmt: skip
NAMES = st.sampled_from(
    ["a.mp4", "b", "sub/c.mp4", "d.MKV", "missing", "../up", "/abs", "x\\y", "frames", "é.mp4",
     "a//b", "./a.mp4", "C:x", "", "n" * 300, "e.webm", "a b.mp4"]
)  # fmt: skip
OTHERS = st.sampled_from([None, 3, 2.5, True, [], ["a"], {"a": 1}, float("nan")])
SECONDS = st.one_of(
    st.sampled_from(["1.5", "0", 0, 2, 3.5, "1:02", "x", None, "", -1, "7"]), OTHERS
)


def some(values):
    return st.one_of(values, values, values, values, values, values, OTHERS)


CAPTIONS = st.fixed_dictionaries(
    {"video": some(NAMES), "caption": some(TEXTS)},
    optional={
        "id": some(st.sampled_from(["one", "two", "three", ""])),
        "start_s": SECONDS,
        "end_s": SECONDS,
        "start": SECONDS,
        "split": some(st.sampled_from(["train", "TRAIN", "val", "dev", "x"])),
        "titel": TEXTS,
    },
)
OWN = st.fixed_dictionaries(
    {"video": some(NAMES), "prompt": some(TEXTS), "answer": some(TEXTS)},
    optional={
        "id": some(st.sampled_from(["one", "two", ""])),
        "task": some(st.sampled_from(["open", "t", ""])),
        "options": st.sampled_from([["a dog", "A Man, rides!"], "", None]),
        "references": st.sampled_from([["one dog"], "", None, []]),
        "end_s": SECONDS,
        "evidence_s": st.sampled_from(["", None, [1.5]]),
        "counterfactual_of": st.sampled_from(["", None, "a.mp4"]),
    },
)
QUESTIONS = st.fixed_dictionaries(
    {"question": some(TEXTS), "answer": some(TEXTS), "video": some(NAMES)},
    optional={
        "frame_length": some(st.sampled_from([1, 20, "7", 0, -3, 2.0])),
        "options": st.sampled_from([["a dog", "cat"], "a dog|cat", [], None]),
    },
)
FILMS = ("a.mp4", "b.mp4", "sub/c.mp4", "d.MKV", "é.mp4", "e.webm", "a b.mp4", "frames/000001.jpg")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("films")
    for folder in ("", "videos", "videos/p", "frames_of/videos"):
        for name in FILMS:
            path = found / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for name in ("b", "sub/c.mp4"):
        (found / "frames_of" / "frames" / name).mkdir(parents=True)
    return found


def same_both_ways(reader, root, folder):
    """The table of a reading, item by item and complaint by complaint what is read one by one."""
    slow, complaint = tried(lambda: reader.read(root, "train", None))
    written, again = tried(lambda: write(reader, root, folder))
    assert again == complaint
    if complaint is not None:
        return None
    made, fast = written
    assert list(made) == list(slow.items)
    assert list(fast.skipped.items()) == list(slow.skipped.items())
    assert fast.notes == slow.notes
    found, expected = present(made), present(slow.items)
    assert (found.missing, list(found.items)) == (expected.missing, list(expected.items))
    assert set(found.films.hashes) == set(expected.films.hashes)
    return made


def tried(read):
    """What is read, and the complaint if it cannot be."""
    try:
        return read(), None
    except DataError as error:
        return None, str(error)


def write(reader, root, folder):
    folder.mkdir()
    reading = reader.reading(root, "train", None)
    with ItemWriter(folder, Common(str(root), reading.prompt, reading.task)) as writer:
        found = write_reading(reading, writer)
    return ItemTable(folder), found


wild = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@wild
@given(rows=st.lists(CAPTIONS, min_size=1, max_size=12))
def test_captions_of_any_rows_are_the_same_as_one_by_one(rows, root, tmp_path_factory):
    (root / "captions").mkdir(exist_ok=True)
    (root / "captions" / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    same_both_ways(CaptionReader(), root, tmp_path_factory.mktemp("t") / "t")


@wild
@given(rows=st.lists(OWN, min_size=1, max_size=12))
def test_ones_own_questions_of_any_rows_are_the_same_as_one_by_one(rows, root, tmp_path_factory):
    (root / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    same_both_ways(OwnReader(), root, tmp_path_factory.mktemp("t") / "t")


@wild
@given(
    rows=st.lists(
        st.tuples(NAMES, TEXTS, st.sampled_from(["p", "", "q", "..", "p/x"])), max_size=12
    )
)
def test_webvid_of_any_rows_is_the_same_as_one_by_one(rows, root, tmp_path_factory):
    lines = ["videoid,name,page_dir"]
    lines += [",".join('"' + v.replace('"', '""') + '"' for v in row) for row in rows]
    (root / "web.csv").write_text("\n".join(lines) + "\n", errors="surrogatepass")
    reader = WebVidReader(train="web.csv")
    same_both_ways(reader, root, tmp_path_factory.mktemp("t") / "t")


@wild
@given(
    rows=st.dictionaries(
        st.sampled_from(["1", "2", "k", " ", "long key", "é"]), QUESTIONS, min_size=1
    ),
    folder=st.sampled_from([".", "frames_of"]),
    source=st.sampled_from(["auto", "video", "frames"]),
)
def test_questions_of_any_entries_are_the_same_as_one_by_one(
    rows, folder, source, root, tmp_path_factory
):
    (root / folder / "annotation").mkdir(exist_ok=True)
    (root / folder / "annotation" / "qa_train.json").write_text(json.dumps(rows))
    reader = QuestionReader(folder, "Q: {question} A:", source=source)
    same_both_ways(reader, root, tmp_path_factory.mktemp("t") / "t")


def test_ids_that_come_again_and_films_elsewhere_are_as_one_by_one(tmp_path):
    (tmp_path / "captions").mkdir()
    for name in ("a.mp4", "b.mkv"):
        (tmp_path / name).touch()
    rows = [
        {"id": "x", "video": "a.mp4", "caption": "one"},
        {"id": "y", "video": "b", "caption": "two"},
        {"id": "x", "video": "b.mkv", "caption": "three"},
        {"id": "x", "video": "c.mp4", "caption": "four"},
        {"id": "z", "video": "c.mp4", "caption": "five"},
    ]
    (tmp_path / "captions" / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    made = same_both_ways(CaptionReader(), tmp_path, tmp_path / "table")
    assert [item.item_id for item in made] == ["x", "y", "z"]
    assert made[1].film.source == tmp_path / "b.mkv"
    assert [item.item_id for item in present(made).items] == ["x", "y"]


@pytest.fixture
def many(tmp_path, monkeypatch):
    """A root with captions that count as many, and where their tables are kept."""
    monkeypatch.setattr(kept_items, "MANY_BYTES", 1)
    monkeypatch.setattr(kept_items, "MANY_ITEMS", 1)
    (tmp_path / "captions").mkdir()
    for number in range(3):
        (tmp_path / f"{number}.mp4").touch()
    annotate(tmp_path, range(3))
    return tmp_path


def annotate(root, numbers, words="a dog"):
    rows = [{"id": f"i{n}", "video": f"{n}.mp4", "caption": f"{words} {n}"} for n in numbers]
    (root / "captions" / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def read(root, reader=None):
    return items_of(reader or CaptionReader(), root, "train", None, root / ".mmavlm")


def unread(monkeypatch):
    """Nothing may be read from now on."""

    def refuse(*_):
        raise AssertionError("an annotation was read")

    monkeypatch.setattr(CaptionReader, "reading", refuse)
    monkeypatch.setattr(OwnReader, "read", refuse)
    monkeypatch.setattr(OwnReader, "reading", refuse)


def test_a_second_start_reads_no_annotation(many, monkeypatch):
    first = read(many)
    assert isinstance(first, ItemTable)
    assert list(first) == CaptionReader()(many, "train", None)
    unread(monkeypatch)
    assert list(read(many)) == list(first)


def test_an_annotation_that_changes_is_read_anew_and_one_that_is_touched_is_not(many, monkeypatch):
    read(many)
    annotate(many, range(2), "a cat")
    assert [item.target for item in read(many)] == ["a cat 0", "a cat 1"]
    os.utime(many / "captions" / "train.jsonl")
    unread(monkeypatch)
    assert len(read(many)) == 2


def test_an_annotation_that_changes_while_it_is_read_is_read_anew(many, monkeypatch):
    reading = CaptionReader.reading

    def slowly(self, *given):
        found = reading(self, *given)

        def entries():
            yield from found.entries()
            annotate(many, range(3), "a cat")  # as long as before

        return replace(found, entries=entries)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(CaptionReader, "reading", slowly)
        read(many)
    assert [item.target for item in read(many)] == ["a cat 0", "a cat 1", "a cat 2"]


def test_films_that_come_or_go_are_seen(many):
    annotate(many, range(4))
    assert set(present(read(many)).missing) == {"3.mp4"}
    (many / "3.mp4").touch()
    assert not present(read(many)).missing
    (many / "0.mp4").rename(many / "0.mkv")
    assert set(present(read(many)).missing) == {"0.mp4"}
    (many / "0.mkv").rename(many / "0.mp4.mkv")  # the suffix is taken for a part of the name
    assert present(read(many)).items[0].film.source == many / "0.mp4.mkv"


def test_each_setting_has_a_table_of_its_own(many):
    assert read(many)[0].target == "a dog 0"
    assert read(many, CaptionReader(max_words=1))[0].target == "a"
    assert read(many)[0].target == "a dog 0"
    assert len(list((many / ".mmavlm" / "items").glob("*/items.arrow"))) == 2


@pytest.mark.parametrize("closed", [(), ("t",)], ids=["by columns", "one by one"])
def test_ones_own_questions_are_kept_with_classes_and_without(closed, many, monkeypatch):
    rows = [
        {"video": f"{n}.mp4", "prompt": "what?", "answer": "dog", "task": "t"} for n in range(3)
    ]
    (many / "train.jsonl").write_text("".join(json.dumps(r | {"odd": 1}) + "\n" for r in rows))
    first = read(many, OwnReader(closed=closed))
    assert isinstance(first, ItemTable)
    assert list(first) == list(OwnReader(closed=closed)(many, "train", None))
    unread(monkeypatch)
    assert list(read(many, OwnReader(closed=closed))) == list(first)


def test_items_that_no_table_can_hold_stay_a_list_wherever_the_first_of_them_stands(
    many, monkeypatch
):
    monkeypatch.setattr("mmavlm.data.item_writer.BATCH_ROWS", 2)
    items = [*ITEMS[:5], question(99, meta={"x": {1, 2}})]
    monkeypatch.setattr(OwnReader, "read", lambda *_: Found(items, {}))
    assert read(many, OwnReader(closed="t")) == items
    assert not list((many / ".mmavlm" / "items").glob("*/items.arrow"))


def test_what_was_left_out_is_told_at_every_start_and_bad_rows_stop_each(many, caplog):
    (many / "web.csv").write_text("videoid,name,page_dir\n1,a dog,p\n2,,p\n3,...,p\n")
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert len(read(many, WebVidReader(train="web.csv"))) == 1
        assert "2 entries left out beside 1 items" in caplog.text
    with (many / "captions" / "train.jsonl").open("a") as file:
        file.write('{"video": "0.mp4"}\n')
    for _ in range(2):
        with pytest.raises(DataError, match="'caption' is missing"):
            read(many)
    assert not list((many / ".mmavlm" / "items").glob(".*partial"))


def test_a_damaged_table_is_told_and_made_anew(many, caplog):
    read(many)
    [items] = (many / ".mmavlm" / "items").glob("*/items.arrow")
    items.write_bytes(items.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        assert len(read(many)) == 3
    assert "is damaged" in caplog.text
    [noted] = (many / ".mmavlm" / "items").glob("*/noted.json")
    noted.write_text('{"format": 1}')
    assert len(read(many)) == 3


def test_a_folder_that_cannot_be_written_costs_time_and_no_more(many, caplog):
    (many / ".mmavlm").write_text("a file")
    with caplog.at_level(logging.INFO):
        assert isinstance(read(many), list)
    assert "no items are kept" in caplog.text


def test_few_items_leave_no_file(many, monkeypatch):
    monkeypatch.setattr(kept_items, "MANY_BYTES", 1 << 20)
    assert isinstance(read(many), list)
    assert not (many / ".mmavlm").exists()


def test_readers_of_other_packages_are_kept_only_if_they_say_so(many):
    class Theirs(CaptionReader):
        pass

    Theirs.__module__ = "elsewhere"
    assert isinstance(read(many, Theirs()), list)


def _read_in_a_process(root):
    kept_items.MANY_BYTES = kept_items.MANY_ITEMS = 1
    return len(read(root))


def test_processes_that_start_together_share_one_table(many):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(_read_in_a_process, [many] * 8) == [3] * 8
    assert len(list((many / ".mmavlm" / "items").glob("*/items.arrow"))) == 1


def test_a_datamodule_trains_on_a_table_as_on_a_list(many, monkeypatch):
    annotate(many, range(4))  # of which one film is missing
    (many / "captions" / "val.jsonl").write_text('{"video": "0.mp4", "caption": "a dog"}\n')

    def data(index):
        return VideoDataModule(
            CaptionReader(), many, index=index, max_broken=0.5, image_size=8, num_frames=2
        )

    of_table, of_list = data(many / ".mmavlm"), data(None)
    assert isinstance(of_table.items("train"), ItemTable)
    for split in ("train", "val"):
        assert list(of_table.items(split)) == list(of_list.items(split))
        assert of_table.tasks([split]) == of_list.tasks([split])
    assert (
        of_table.broken.summary() == of_list.broken.summary() == "1 of 4 videos broken or missing"
    )
    for one, other in zip(of_table.draws(), of_list.draws(), strict=True):
        assert one.visits(1, 3).tolist() == other.visits(1, 3).tolist()


def test_the_files_of_a_table_are_known_when_it_is_made_and_when_it_is_there(many, monkeypatch):
    for _ in range(2):
        data = VideoDataModule(CaptionReader(), many, index=many / ".mmavlm", image_size=8)
        assert isinstance(data.items("train"), ItemTable)
        file = many / "captions" / "train.jsonl"
        assert data.annotation_files == {"captions/train.jsonl": file}
        unread(monkeypatch)
