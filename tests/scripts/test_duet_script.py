import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import duet
from mmavlm.core.errors import DataError
from mmavlm.metrics.duet.files import truth_file, watched_file, write_values
from mmavlm.metrics.duet.tasks import Seen, scored
from mmavlm.metrics.duet.watched import Event, EventTruth, Said, Watched
from mmavlm.stages.scored_films import write_films

SECONDS = 24
STARTS = ((3, 14), (7,), (), (18,), (5, 12))  # of the events of the films of a split


def truth_of(split, number):
    events = tuple(Event(float(s), s + 2.0, "a dog") for s in STARTS[number])
    name = f"{split} {number}"
    return EventTruth(f"{name}/0", name, events, (Said(0.0, f"When is a dog there? {name}"),))


def seen(split, number, right):
    """A film with high scores where an event is, or where none is."""
    true = [any(s <= t <= s + 2 for s in STARTS[number]) for t in range(SECONDS)]
    curve = tuple(0.9 if on == right else 0.1 for on in true)
    scores = {"informative": curve, "relevance": curve}
    times = tuple(map(float, range(SECONDS)))
    return Watched(f"{split} {number}/0", float(SECONDS), times, scores)


def left_by(folder, seed, wrong=(), task="speaking"):
    """The folder of a tested run that is wrong about some films of the test."""
    folder.mkdir(parents=True)
    truths, films = {}, {}
    for split in ("val", "test"):
        truths[split] = {task: [truth_of(split, n) for n in range(len(STARTS))]}
        films[split] = [
            seen(split, n, split == "val" or n not in wrong) for n in range(len(STARTS))
        ]
        write_values(folder / watched_file(split), films[split])
    of = {split: Seen(films[split], truths[split][task]) for split in films}
    result = scored(task, of["test"], of["val"])
    write_films(folder, truths, {"": result}, lambda name: "")
    (folder / "config.yaml").write_text(f"seed: {seed}\n")
    assert (folder / truth_file("test")).is_file()
    return folder


def told(*folders):
    return duet.table([duet.read_run(folder) for folder in folders])


def test_each_seed_has_the_numbers_and_bounds_of_its_own_report(tmp_path):
    folder = left_by(tmp_path / "base_7", 7, wrong=[1])
    found = told(folder)["base"]
    scores = json.loads((folder / "duet.json").read_text())["scores"]
    for name, ours in (("F1 of speaking", "speaking_f1"), ("points above it", "above_constant")):
        value, low, high = found["seeds"][7][name].values()
        assert value == pytest.approx(100 * scores[f"speaking/{ours}"])
        assert low == pytest.approx(100 * scores[f"speaking/{ours}_low"])
        assert high == pytest.approx(100 * scores[f"speaking/{ours}_high"])
    assert "chosen on val" in found["seeds"][7]["chosen"]


def test_a_mean_over_seeds_is_between_them_and_draws_films_of_all_seeds_alike(tmp_path):
    right, wrong = left_by(tmp_path / "a_1", 1), left_by(tmp_path / "a_2", 2, wrong=[0, 3])
    found = told(right, wrong)["a"]
    seeds = [found["seeds"][seed]["F1 of speaking"]["value"] for seed in (1, 2)]
    assert seeds[0] == 100 > seeds[1]
    assert found["mean"]["F1 of speaking"]["value"] == pytest.approx(sum(seeds) / 2)
    # two seeds that say the same know no more than one
    again = left_by(tmp_path / "b_1", 1, wrong=[0, 3]), left_by(tmp_path / "b_2", 2, wrong=[0, 3])
    twice = told(*again)["b"]
    for name, score in twice["mean"].items():
        assert score == pytest.approx(twice["seeds"][1][name]), name


def test_searches_have_a_table_of_their_own(tmp_path):
    arms = told(
        left_by(tmp_path / "base_1", 1), left_by(tmp_path / "searches_1", 1, task="grounding")
    )
    assert arms["searches"]["seeds"][1]["mIoU of frames"]["value"] == pytest.approx(100)
    assert arms["searches"]["questions"] == sum(map(bool, STARTS))
    text = "\n".join(duet.lines(arms))
    assert text.count("| run |") == 2
    assert "| base, mean of 1 | 100.0 (100.0 to 100.0) |" in text


def test_runs_of_one_arm_are_tested_on_the_same_films(tmp_path):
    runs = [duet.read_run(left_by(tmp_path / f"a_{seed}", seed)) for seed in (1, 2)]
    other = duet.read_run(left_by(tmp_path / "a_3", 3, task="grounding"))
    with pytest.raises(DataError, match="runs of a must"):
        duet.table([*runs, other])


def test_a_folder_that_is_no_tested_run_is_named(tmp_path):
    with pytest.raises(DataError, match="lacks duet"):
        duet.read_run(tmp_path)


def test_the_plot_shows_a_film_with_several_events_with_one_and_with_none(
    tmp_path, monkeypatch, capsys
):
    folder = left_by(tmp_path / "base_1", 1)
    assert [len(truth.events) for _, truth in duet.drawn(duet.read_run(folder))] == [2, 1, 0]
    path = tmp_path / "duet.svg"
    monkeypatch.setattr(sys, "argv", ["duet", str(folder), "--plot", str(path)])
    duet.main()
    assert "base, seed 1" in capsys.readouterr().out
    drawing = path.read_text()
    for number in range(3):
        assert f"When is a dog there? test {number}" in drawing
    for said in ("it speaks", "chosen threshold", "it is seen"):
        assert said in drawing
    duet.main()
    assert path.read_text() == drawing


def test_a_run_that_searches_has_nothing_to_plot(tmp_path, monkeypatch):
    folder = left_by(tmp_path / "s_1", 1, task="grounding")
    monkeypatch.setattr(sys, "argv", ["duet", str(folder), "--plot", str(tmp_path / "x.svg")])
    with pytest.raises(SystemExit, match="does not speak"):
        duet.main()
