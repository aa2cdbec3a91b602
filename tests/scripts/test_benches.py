import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import bench_decode
import bench_looks
import bench_memory
import bench_remedies
import bench_start
import bench_step
from machine import machine
from support import SMALL


@pytest.fixture
def told(monkeypatch, capsys):
    """Run a benchmark as from the command line, and give the JSON it prints."""

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments, "--json"])
        module.main()
        return json.loads(capsys.readouterr().out.strip().splitlines()[-1])

    return run


def test_every_result_names_machine_threads_and_commit():
    assert {"device", "cores", "threads", "load", "torch", "commit"} <= machine().keys()


def test_the_loops_that_are_timed_agree_in_tokens_and_gradients(told):
    found = told(bench_memory, "--size", "small", "--frames", "30", "--repeats", "1",
                 "--threads", "1", "--parts", "forward", "train")  # fmt: skip
    for part in ("forward", "train"):
        assert found[part]["relative_error"].keys() == {"published", "uncached"}
        assert max(found[part]["relative_error"].values()) < 1e-4
        assert min(found[part]["speed_up"].values()) > 0


def test_the_ways_to_the_middle_frame_that_are_timed_agree_in_gradients(told):
    found = told(bench_looks, "--size", "small", "--frames", "30", "--bank", "4", "--repeats", "1",
                 "--threads", "1")  # fmt: skip
    assert found["relative_error"] < 1e-4
    assert set(found["ratio"]) == {"ends", "middle", "apart"}


def test_every_memory_is_timed_beside_the_default(told):
    found = told(bench_memory, "--size", "small", "--frames", "8", "--bank", "3", "--repeats", "1",
                 "--threads", "1", "--parts", "memories")  # fmt: skip
    named = {path.stem for path in (Path(__file__).parents[2] / "conf/memory").glob("*.yaml")}
    assert set(found["memories"]["seconds"]) == named - {"none", "average"}
    assert found["memories"]["ratio"]["merge_adjacent"] == 1


def test_a_memory_that_needs_the_plain_loop_is_timed_too(told):
    found = told(bench_memory, "--size", "small", "--frames", "26", "--bank", "3", "--repeats", "1",
                 "--threads", "1", "--parts", "forward", "--memory", "episodic")  # fmt: skip
    assert found["forward"]["relative_error"] == {"uncached": 0}


@pytest.mark.slow
def test_the_peak_of_every_loop_is_measured_in_a_process_of_its_own(told):
    found = told(bench_memory, "--size", "small", "--frames", "8", "--bank", "3",
                 "--threads", "1", "--parts", "peak")  # fmt: skip
    for part in ("forward", "train"):
        assert found["peak"][part].keys() == {"ours", "published", "uncached"}
        assert min(found["peak"][part].values()) >= 0
    assert found["peak"]["forward_of_a_long_film"].keys() == {"ours"}


@pytest.mark.slow
def test_cost_is_measured_film_by_film(told, monkeypatch, tmp_path):
    monkeypatch.setattr(bench_memory, "COST_FRAMES", (5, 10))
    found = told(bench_memory, "--size", "small", "--parts", "cost",
                 "--plot", str(tmp_path / "cost.svg"))  # fmt: skip
    assert list(found["cost"]["frames"]) == ["5", "10"]
    assert all(row["seconds"] > 0 for row in found["cost"]["frames"].values())
    assert "<svg" in (tmp_path / "cost.svg").read_text()


def test_ways_to_decode_are_timed_on_equal_frames(told, tmp_path):
    found = told(bench_decode, "--clips", str(tmp_path), "--seconds", "4", "--gops", "10",
                 "--frames", "5", "--repeat", "1")  # fmt: skip
    rows = {row["way"]: row for row in found["cases"][0]["rows"]}
    for way in (bench_decode.OURS, bench_decode.OURS_COLD, bench_decode.SEEK):
        assert rows[way]["bit_equal"]
    for library in (bench_decode.DECORD, bench_decode.CV_ORDER):
        assert "missing" in rows[library] or rows[library]["mean_difference"] < 8


def test_the_parts_of_a_step_add_up(told, films):
    found = told(bench_step, "experiment=lvu_genre", *SMALL, f"data.root={films}", "--steps", "2")
    assert {"decode", "encode", "memory", "llm", "backward"} <= found["seconds"].keys()
    assert sum(found["share"].values()) == pytest.approx(1)


def test_a_step_with_a_remedy_is_timed_beside_one_without(told, tmp_path):
    found = told(bench_remedies, "arm=baseline", f"data.root={tmp_path}", "trainer=cpu",
                 "prepare.settings.films=40", "prepare.settings.frames=1", "prepare.images.size=32",
                 "--steps", "1", "--rounds", "1", "--remedies", "counterfactual,dpo_twin",
                 "data.batch_size=4")  # fmt: skip
    assert found["step_s"].keys() == {"none", "counterfactual", "dpo_twin"}
    assert all(seconds > 0 for seconds in found["step_s"].values())
    assert found["times"]["none"] == 1


@pytest.mark.slow
def test_first_lines_and_ends_are_told_as_ratios_to_torch(told):
    found = told(bench_start, "--only", "misspelt key", "--repeats", "1")
    assert found["exit"] == {"import torch": 0, "a misspelt key": 1}
    first, end = found["first_line"]["a misspelt key"], found["end"]["a misspelt key"]
    assert 0 < first <= end
    assert found["torch_s"] > 0
