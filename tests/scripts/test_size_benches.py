"""The benchmarks of what is large, run on what is small."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import bench_cache
import bench_evaluation
import kill_evaluation


@pytest.fixture
def told(monkeypatch, capsys):
    """Run a script as from the command line, and give the JSON it prints."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments, "--json"])
        module.main()
        return json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    return run


def test_both_ways_to_score_are_timed_in_processes_of_their_own(told, tmp_path):
    found = told(bench_evaluation, "--rows", "200", "--samples", "10", "--keep", str(tmp_path))
    for command in ("predictions", "compare"):
        assert {"seconds", "cpu_s", "peak_mib"} == set(found["rows"]["200"][command])
    scores = json.loads((tmp_path / "out_200/comparison.json").read_text())
    assert {row["score"] for row in scores["differences"]} >= {"top1", "rank_top5"}


def test_a_start_from_a_cache_is_timed_in_all_its_ways(told):
    found = told(bench_cache, "--entries", "300")["entries"]["300"]
    ways = {"named_s", "known_s", "opened_s", "listed_s", "packed_s", "packing_s"}
    assert ways < found.keys()
    assert found["files_packed"] == 2


@pytest.mark.slow
def test_an_evaluation_killed_twice_leaves_the_files_of_one_that_ran_through(told):
    found = told(kill_evaluation, "--rows", "5000")
    assert set(found["same"].values()) == {True}
    assert len(found["lines_at_kills"]) == 2
