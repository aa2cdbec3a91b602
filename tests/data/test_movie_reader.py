import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.readers import LVUReader, MovieReader

BOTH = ["relationship", "cuts"]


def test_lvus_tasks_are_read_as_lvus(films):
    tasks = ["genre", "relationship"]
    assert MovieReader()(films, "test", tasks) == LVUReader()(films, "test", tasks)
    assert MovieReader().classes(films, tasks) == LVUReader().classes(films, tasks)


def test_parts_of_films_stand_behind_them_in_the_test_alone(films):
    for split in ("train", "val"):
        whole = LVUReader()(films, split, "relationship")
        assert MovieReader()(films, split, BOTH) == whole
    items = MovieReader()(films, "test", BOTH)
    whole = [item for item in items if item.task == "relationship"]
    parts = [item for item in items if item.task == "cuts"]
    assert items == [*whole, *parts]
    assert parts
    assert {item.prompt for item in items} == {whole[0].prompt}
    of_film = {item.video_id.split(".")[0]: item for item in whole}
    for part in parts:
        film = of_film[part.film.source.stem]
        assert part.film.source == film.film.source
        assert part.target != film.target
        assert part.film.start_s > 0 or part.film.end_s < 4


def test_parts_are_chosen_for_among_the_classes_of_whole_films(films):
    classes = MovieReader().classes(films, BOTH)
    assert classes["cuts"] == classes["relationship"]
    assert MovieReader().classes(films, "cuts") == {"cuts": classes["relationship"]}


def test_a_test_tells_how_often_a_part_is_answered_with_what_it_does_not_show(films):
    items = MovieReader()(films, "test", BOTH)
    scores = MovieReader().scores(BOTH)
    scores.update(items, ["friend"] * len(items))  # which no part of two phases shows
    values = scores.compute()
    assert values["hallucination"] == 1
    assert values["hallucination_low"] < 1
    assert values["hallucination/cuts/accuracy"] == 0
    scores.reset()
    scores.update(items, [item.target for item in items])
    assert scores.compute()["hallucination"] == 0


def test_where_no_part_is_asked_about_nothing_is_told(films):
    items = MovieReader()(films, "test", "genre")
    scores = MovieReader().scores(["genre"])
    scores.update(items, ["comedy"] * len(items))
    assert scores.compute() == {}


@pytest.mark.parametrize("task", [None, "tempo", ["genre", "tempo"]])
def test_an_unknown_task_is_named_among_those_there_are(films, task):
    with pytest.raises(ConfigError, match=r"no task of the synthetic movies.*year, cuts"):
        MovieReader()(films, "test", task)


def test_a_set_without_cuts_is_told_by_the_file_it_lacks(films, tmp_path):
    (tmp_path / "lvu").symlink_to(films / "lvu")
    with pytest.raises(DataError, match=r"cuts/test\.jsonl does not exist"):
        MovieReader()(tmp_path, "test", BOTH)
