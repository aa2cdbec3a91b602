"""The readers of hallucination benchmarks, on small files in their published formats."""

import json
import logging
from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from benchmark_sets import WRITERS, write_benchmarks
from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.inspect import inspect
from mmavlm.data.readers import ELVHallucReader
from public_sets import write_json

# Questions of each part in the files that benchmark_sets writes.
COUNTS = {
    "videohallucer": dict.fromkeys(
        ["object_relation", "temporal", "semantic_detail", "external_factual",
         "external_nonfactual"], 4),
    "eventhallusion": {"entire": 3, "interleave": 3, "misleading": 3},
    "vidhalluc": {"ach_binaryqa": 2, "ach_mcq": 2, "sth": 2, "tsh": 1},
    "elv_halluc": {"visual_details": 3, "object": 3},
    "hallusionbench": {"video": 4},
    "pope": {"random": 4, "popular": 4, "adversarial": 4},
    "avhbench": {"audio": 4, "video": 2, "matching": 2, "captioning": 2},
    "omnivchall": {"s_yn": 2, "c_yn": 2, "s_mc": 2, "c_mc": 2},
    "haven": {"binary": 2, "choice": 2},
}  # fmt: skip


def reader_of(name, **settings):
    described = OmegaConf.load(Path(config_dir()) / f"data/{name}.yaml").reader
    config = OmegaConf.to_container(described, resolve=True)
    reader = get_class(config.pop("_target_"))
    return reader(**{**config, **settings})


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    films = [folder / f"{name}.mp4" for name in ("film_a", "film_b")]
    for film in films:
        film.touch()
    return write_benchmarks(folder, films)


@pytest.fixture
def root_of(tmp_path):
    """A function that writes one benchmark anew, to be changed."""
    films = [tmp_path / f"{name}.mp4" for name in ("film_a", "film_b")]
    for film in films:
        film.touch()
    return lambda name: WRITERS[name](tmp_path / name, films)


@pytest.mark.parametrize("name", COUNTS)
def test_every_benchmark_is_read_in_its_format(roots, name):
    items = reader_of(name)(roots[name], "test", None)
    counts = {task: sum(item.task == task for item in items) for task in COUNTS[name]}
    assert counts == COUNTS[name]
    assert len(items) == sum(counts.values())
    assert len({item.item_id for item in items}) == len(items)
    assert all(item.film.source.is_file() for item in items)
    assert all("{question}" not in item.prompt for item in items)


@pytest.mark.parametrize("name", COUNTS)
def test_true_answers_score_1_and_wrong_ones_0(roots, name):
    reader = reader_of(name)
    items = reader(roots[name], "test", None)
    scores = reader.scores(sorted({*COUNTS[name]} - {"captioning"}))  # no one scores 1 there
    turned = {"yes": "no", "no": "yes", "AB": "BA", "BA": "AB", "A": "C", "BD": "B", "C": "A"}
    for answers, expected in (
        ([item.target for item in items], 1),
        ([turned.get(item.target, "") for item in items], 0),
        (["hm"] * len(items), 0),
    ):
        scores.reset()
        scores.update(items, answers)
        values = scores.compute()
        assert values[scores.name] == expected
        low, high = (values[f"{scores.name}_{end}"] for end in ("low", "high"))
        assert low <= expected <= high
        accuracies = [v for n, v in values.items() if n.endswith("/accuracy")]
        assert set(accuracies) <= {expected}


@pytest.mark.parametrize("name", COUNTS)
def test_some_parts_can_be_chosen_and_unknown_ones_are_told(roots, name):
    reader, part = reader_of(name), next(iter(COUNTS[name]))
    items = reader(roots[name], "test", [part])
    assert {item.task for item in items} == {part}
    if reader.parts:
        with pytest.raises(ConfigError, match=r"data.task=\['nonsense'\] is no part of"):
            reader(roots[name], "test", "nonsense")


@pytest.mark.parametrize("name", COUNTS)
def test_there_is_a_test_split_alone(roots, name):
    with pytest.raises(DataError, match="it has a test split alone, and train was asked for"):
        reader_of(name)(roots[name], "train", None)


@pytest.mark.parametrize("name", COUNTS)
def test_an_annotation_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(DataError, match="does not exist"):
        reader_of(name)(tmp_path, "test", None)


@pytest.mark.parametrize("name", COUNTS)
def test_a_prompt_without_a_place_for_the_question_is_refused(name):
    with pytest.raises(ConfigError, match=r"has no \{question\} to fill in"):
        reader_of(name, prompt="what?")


@pytest.mark.parametrize("name", COUNTS)
def test_an_unknown_way_of_reading_answers_is_refused(name):
    with pytest.raises(ConfigError, match="parsing='gpt' is unknown"):
        reader_of(name, parsing="gpt")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


BROKEN = {  # benchmark, file, what happens to it, what is told
    "no hallucination": (
        "videohallucer", "temporal/temporal.json", lambda c: c[0].pop("hallucination"),
        ["temporal.json, entry 0", "'hallucination' is missing"]),
    "no yes and no no": (
        "videohallucer", "temporal/temporal.json", lambda c: c[1]["basic"].update(answer="maybe"),
        ["temporal.json, entry 1, 'basic'", "'answer' must be yes or no, got 'maybe'"]),
    "no questions": (
        "eventhallusion", "questions/entire_questions.json", lambda c: c[0].pop("questions"),
        ["entire_questions.json, entry 0", "'questions' is missing"]),
    "a clip without an answer": (
        "vidhalluc", "ach_binaryqa.json", lambda c: c["1"][0]["a"].update(film_a=None),
        ["ach_binaryqa.json, entry '1', question 0", "'film_a' is missing"]),
    "an option that is not there": (
        "vidhalluc", "ach_mcq.json", lambda c: c["1"]["film_a"].update({"Correct Answer": "E"}),
        ["ach_mcq.json, entry '1', 'film_a'", "must be letters of ['A', 'B', 'C', 'D'], got 'E'"]),
    "options that are none": (
        "vidhalluc", "ach_mcq.json", lambda c: c["1"]["film_a"].update(Choices=5),
        ["ach_mcq.json, entry '1', 'film_a', 'Choices'", "must be a JSON object, got int"]),
    "no scene change": (
        "vidhalluc", "sth.json", lambda c: c["film_a"].pop("Scene change"),
        ["sth.json, entry 'film_a'", "'Scene change' is missing"]),
    "no order": (
        "vidhalluc", "tsh.json", lambda c: c["1"].update({"Correct Answer": "A"}),
        ["tsh.json, entry '1'", "'Correct Answer' must be AB or BA, got 'A'"]),
    "a third answer": (
        "hallusionbench", "HallusionBench.json", lambda c: c[1].update(gt_answer="2"),
        ["HallusionBench.json, entry 1", "'gt_answer' must be 0 or 1, got '2'"]),
    "an unknown task": (
        "avhbench", "json/00006.json", lambda c: c[3].update(task="AV Hallucination"),
        ["00006.json, entry 3", "'task' must be one of Video-driven Audio Hallucination, "]),
    "no task": (
        "avhbench", "json/00006.json", lambda c: c[3].pop("task"),
        ["00006.json, entry 3", "key 'task' is missing or empty; the row has"]),
    "a label that is no caption": (
        "avhbench", "json/00006.json", lambda c: c[4].update(label=["a", "b"]),
        ["00006.json, entry 4", "'label' must be a text, got ['a', 'b']"]),
    "a label that is neither": (
        "avhbench", "json/00006_swap.json", lambda c: c[0].update(label="Both"),
        ["00006_swap.json, entry 0", "'label' must be yes or no, got 'Both'"]),
    "a type that is unknown": (
        "omnivchall", "test/test_m_ynqa.json", lambda c: c[1].update(type_id=[3, 9]),
        ["test_m_ynqa.json, entry 1", "'type_id' must be a number from 1 to 8, or a list"]),
    "an answer in Chinese": (
        "omnivchall", "test/test_s_ynqa.json", lambda c: c[0].update(yn_answer="是"),
        ["test_s_ynqa.json, entry 0", "'yn_answer' must be yes or no, got '是'"]),
    "options without letters": (
        "omnivchall", "test/test_s_mcqa.json", lambda c: c[0].update(mc_option=["红色", "蓝色"]),
        ["test_s_mcqa.json, entry 0", "'mc_option' must be a list of two or more texts"]),
    "an answer beyond the options": (
        "omnivchall", "test/test_m_mcqa.json", lambda c: c[0].update(mc_answer="D"),
        ["test_m_mcqa.json, entry 0", "'mc_answer' must be one letter of ['A', 'B', 'C']"]),
    "an unknown form": (
        "haven", "test_data.json", lambda c: c[0].update(Form="Ordering"),
        ["test_data.json, entry 0", "'Form' must be one of Binary-choice, Multiple-choice, "]),
    "an unknown cause": (
        "haven", "test_data.json", lambda c: c[0].update(Causes="Habit"),
        ["test_data.json, entry 0", "'Causes' must be one of Conflict with prior, ", "'Habit'"]),
    "options out of order": (
        "haven", "test_data.json", lambda c: c[2].update(Question="What? A. Sewing. C. Hair."),
        ["test_data.json, entry 2", "'Question' must hold two or more options"]),
    "no group": (
        "haven", "test_data.json", lambda c: c[3].pop("Group_id"),
        ["test_data.json, entry 3", "key 'Group_id' is missing or empty"]),
    "no picture": (
        "hallusionbench", "HallusionBench.json", lambda c: c[1].update(visual_input="0"),
        ["HallusionBench.json, entry 1", "a question without a picture"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_an_entry_that_cannot_be_used_is_told_with_its_place_and_left_out(root_of, caplog, case):
    name, file, change, told = BROKEN[case]
    root = root_of(name)
    reader = reader_of(name)
    before = len(reader(root, "test", None))
    edit(root / file, change)
    with caplog.at_level(logging.WARNING):
        left = reader(root, "test", None)
    assert 0 < len(left) < before
    assert all(text in caplog.text for text in told)
    skipped = reader.skipped(root, "test", None)
    assert len(skipped) == 1
    assert inspect(reader, root, None).splits["test"].skipped == skipped


def test_of_a_film_that_a_published_file_has_twice_the_first_is_kept(root_of):
    root = root_of("eventhallusion")
    reader = reader_of("eventhallusion")
    before = reader(root, "test", None)
    edit(root / "questions/entire_questions.json", lambda films: films.append(films[0]))
    assert reader(root, "test", None) == before
    (reason,) = reader.skipped(root, "test", None).values()
    assert "was there before, and the first is kept" in reason


def lines(path, change):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


BROKEN_LINES = {
    "an unknown kind": (
        "elv_halluc", "ELV_Halluc.jsonl", lambda rows: rows[1].update(caption_type="near"),
        "line 2: 'caption_type' must be one of ground_truth, in_video, out_video, got 'near'"),
    "no film": (
        "elv_halluc", "ELV_Halluc.jsonl", lambda rows: rows[0].pop("video"),
        "Name the right one with data.reader.video_key="),
    "an image": (
        "pope", "pope/pope_random.jsonl",
        lambda rows: rows[0].update(image=rows[0].pop("video")), "a file of POPE for images"),
    "no label": (
        "pope", "pope/pope_random.jsonl", lambda rows: rows[0].pop("label"),
        "line 1: key 'label' is missing or empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_LINES)
def test_a_line_that_cannot_be_used_is_told_and_left_out(root_of, case):
    name, file, change, told = BROKEN_LINES[case]
    root = root_of(name)
    lines(root / file, change)
    reader = reader_of(name)
    assert len(reader(root, "test", None)) == sum(COUNTS[name].values()) - 1
    (reason,) = reader.skipped(root, "test", None).values()
    assert told in reason


def test_when_nothing_is_left_the_run_stops(root_of):
    root = root_of("hallusionbench")
    edit(root / "HallusionBench.json", lambda c: [row.update(gt_answer="2") for row in c])
    with pytest.raises(DataError, match="no entry can be used; 4 entries left out beside 0 items"):
        reader_of("hallusionbench")(root, "test", None)


def test_a_release_of_hallusionbench_without_videos_is_told(root_of):
    root = root_of("hallusionbench")
    edit(root / "HallusionBench.json", lambda c: c.__delitem__(slice(1, None)))
    with pytest.raises(DataError, match="no rows of subcategory 'video'"):
        reader_of("hallusionbench")(root, "test", None)


def test_a_file_of_another_shape_is_told(root_of):
    root = root_of("videohallucer")
    write_json(root / "temporal/temporal.json", {"0": {}})
    with pytest.raises(DataError, match=r"temporal\.json must hold a JSON list, got an object"):
        reader_of("videohallucer")(root, "test", None)
    root = root_of("vidhalluc")
    write_json(root / "sth.json", [])
    with pytest.raises(DataError, match=r"sth\.json must hold a JSON object, got a list"):
        reader_of("vidhalluc")(root, "test", None)


def test_captions_without_a_question_get_the_benchmarks_own(root_of):
    root = root_of("elv_halluc")

    def captions(rows):
        for row in rows:
            row["caption"] = row.pop("question")

    lines(root / "ELV_Halluc.jsonl", captions)
    items = reader_of("elv_halluc")(root, "test", None)
    assert items[0].prompt == (
        "Is the following caption totally correct? Reply with 'Yes' or 'No' only.\n"
        "Is this right? ground_truth"
    )


def test_clips_of_vidhalluc_are_found_where_its_archives_unpack_to(root_of):
    root = root_of("vidhalluc")
    (root / "data/ACH").rename(root / "data/ACH_videos")
    items = reader_of("vidhalluc")(root, "test", "ach_mcq")
    assert {item.film.source.parent for item in items} == {root / "data/ACH_videos"}


def without_suffix(rows):
    for row in rows:
        row["film"] = Path(row["video"]).stem


def test_films_of_benchmarks_may_have_other_suffixes(root_of):
    for name in ("eventhallusion", "vidhalluc", "elv_halluc"):
        root = root_of(name)
        for path in list(root.rglob("*.mp4")):
            path.rename(path.with_suffix(".MKV"))
        reader = reader_of(name, **({"video_key": "film"} if name == "elv_halluc" else {}))
        if name == "elv_halluc":
            lines(root / "ELV_Halluc.jsonl", without_suffix)
        assert all(item.film.source.suffix == ".MKV" for item in reader(root, "test", None))


def test_a_folder_of_frames_is_taken_before_their_picture(root_of):
    root = root_of("hallusionbench")
    frames = root / "hallusion_bench/VD/video/0_1"
    frames.mkdir()
    sources = {item.film.source for item in reader_of("hallusionbench")(root, "test", None)}
    assert sources == {frames, frames.with_name("0_0.png")}


def test_a_figure_and_a_pair_count_if_all_their_questions_are_right(roots):
    reader = reader_of("hallusionbench")
    items = reader(roots["hallusionbench"], "test", None)
    scores = reader.scores(["video"])
    # always yes: right on question 0 of figure 0, and question 1 of figure 1
    scores.update(items, ["yes"] * 4)
    values = scores.compute()
    name = scores.name
    assert values[f"{name}/all/accuracy"] == 0.5
    assert values[f"{name}/figure/accuracy"] == values[f"{name}/pair/accuracy"] == 0
    assert values[f"{name}/easy/count"] == values[f"{name}/hard/count"] == 2
    scores.reset()
    right = [item.target if item.meta["figure"].endswith("_0") else "yes" for item in items]
    scores.update(items, right)
    values = scores.compute()
    assert values[f"{name}/easy/accuracy"] == 1
    assert values[f"{name}/figure/accuracy"] == 0.5
    assert values[f"{name}/pair/accuracy"] == 0.5


@pytest.mark.parametrize(
    ("name", "part", "task"),
    [
        ("vidhalluc", "ach_binaryqa", "ach_binaryqa"),
        ("hallusionbench", "pair", None),
        ("haven", "group", "choice"),
    ],
)
def test_groups_of_which_a_clip_is_missing_are_incomplete(roots, name, part, task):
    reader = reader_of(name)
    items = reader(roots[name], "test", task)
    for seen, expected in ((items, 0), (items[:1], 1)):
        scores = reader.scores(sorted({item.task for item in items}))
        scores.update(seen, [item.target for item in seen])
        assert scores.compute()[f"{scores.name}/{part}/incomplete"] == expected


def test_one_key_of_elv_halluc_stands_for_a_list_of_one(root_of):
    reader = ELVHallucReader(video_key="video", question_key="question")
    assert len(reader(root_of("elv_halluc"), "test", None)) == 6


def test_triplets_of_elv_halluc_are_about_one_film(root_of):
    root = root_of("elv_halluc")
    lines(root / "ELV_Halluc.jsonl", lambda rows: rows.pop(0))
    message = r"line 1: three rows .* are a triplet, but are about 'film_a.*film_b.*' by 'video'"
    with pytest.raises(DataError, match=message):
        reader_of("elv_halluc")(root, "test", None)


def test_a_model_that_hears_gets_the_sound_of_avhbench_in_front_and_another_the_film_alone(roots):
    deaf = reader_of("avhbench")(roots["avhbench"], "test", None)
    assert {tuple(m.kind for m in i.conversation.media) for i in deaf} == {("film",)}
    hearing = reader_of("avhbench", clips={"clips": 8})(roots["avhbench"], "test", None)
    for item, alone in zip(hearing, deaf, strict=True):
        sound, film = item.conversation.media
        assert (sound.kind, sound.source, film) == ("sound", film.source, alone.film)
        assert (item.item_id, item.prompt, item.target) == (
            alone.item_id, alone.prompt, alone.target,
        )  # fmt: skip
    swapped = {i.film.source.name for i in deaf if i.target == "no" and i.task == "matching"}
    assert swapped == {"00006_swap.mp4"}


def test_probes_are_heard_where_that_is_asked_for_and_the_model_has_a_branch_for_it(roots):
    def kinds(**settings):
        items = reader_of("pope", **settings)(roots["pope"], "test", None)
        return {tuple(medium.kind for medium in item.conversation.media) for item in items}

    both = {"show": ["sound", "film"]}
    assert kinds(clips={"clips": 8}) == {("film",)}
    assert kinds(**both, clips={"clips": 8}) == {("sound", "film")}
    assert kinds(**both) == {("film",)}
    with pytest.raises(ConfigError, match="this model hears nothing"):
        kinds(show=["sound"])


def test_sound_alone_cannot_be_asked_of_a_model_that_hears_nothing():
    with pytest.raises(ConfigError, match="this model hears nothing"):
        reader_of("avhbench", show=["sound"])
    assert reader_of("avhbench", show=[]).show == ()


def test_captions_of_avhbench_are_scored_as_captions_and_never_as_yes_or_no(roots, monkeypatch):
    monkeypatch.setattr("mmavlm.metrics.captions.java", lambda: None)  # it takes seconds to start
    reader = reader_of("avhbench")
    items = reader(roots["avhbench"], "test", None)
    scores = reader.scores(sorted(COUNTS["avhbench"]))
    captioned = [item for item in items if item.task == "captioning"]
    assert [item.prompt for item in captioned] == ["Describe what you see and hear."] * 2
    # of the eight, always yes hits the two truths of what is heard and the one match
    scores.update(items, ["A man snores." if i in captioned else "yes" for i in items])
    values = scores.compute()
    assert (values["avhbench/all/count"], values["avhbench/all/accuracy"]) == (8, 3 / 8)
    heard = {name: values[f"avhbench/audio/{name}"]
             for name in ("accuracy", "precision", "recall", "f1", "yes_ratio")}  # fmt: skip
    assert heard == {"accuracy": 0.5, "precision": 0.5, "recall": 1, "f1": 2 / 3, "yes_ratio": 1}
    assert values["avhbench/captioning/rouge_l_plain"] > 0
    assert "avhbench/captioning/yes_ratio" not in values


def test_options_of_haven_are_taken_out_of_the_question_and_a_group_counts_if_all_is_right(roots):
    reader = reader_of("haven")
    items = reader(roots["haven"], "test", None)
    assert items[2].meta["choices"] == {"A": "Cut -> tie", "B": "Sewing", "C": "Hair"}
    assert items[2].prompt.startswith("What is it? A. Cut -> tie. B.")
    scores = reader.scores(["binary", "choice"])
    # both of the choice are right, of the yes/no one
    scores.update(items, ["no", "no", "A", "(C)"])
    values = scores.compute()
    assert values["haven"] == values["haven/all/accuracy"] == 3 / 4
    assert (values["haven/group/accuracy"], values["haven/group/count"]) == (1 / 2, 2)
    assert (values["haven/event/accuracy"], values["haven/object/accuracy"]) == (1, 1 / 2)
    assert "haven/context/accuracy" not in values


def test_a_question_of_omnivchall_counts_for_each_type_it_is_about(roots):
    reader = reader_of("omnivchall")
    items = reader(roots["omnivchall"], "test", None)
    assert items[-1].prompt.splitlines()[1:4] == ["A. 红色", "B. 蓝色", "C. 其余内容均不正确"]
    scores = reader.scores(["s_yn", "c_yn", "s_mc", "c_mc"])
    scores.update(items, ["A" if item.task == "c_mc" else "hm" for item in items])
    values = scores.compute()
    counts = {number: values.get(f"omnivchall/type_{number}/count") for number in (1, 3, 7, 8, 2)}
    assert counts == {1: 2, 3: 4, 7: 2, 8: 4, 2: None}
    assert [values[f"omnivchall/type_{number}/accuracy"] for number in (1, 3, 8)] == [1, 0, 0.5]
    assert values["omnivchall/letters/unparsed"] == 0.5
