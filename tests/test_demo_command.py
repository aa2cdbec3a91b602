"""The demo as a command: what it asks of the training, and small, to its end."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from mmavlm import demo

SRC = Path(demo.__file__).parents[1]


@pytest.fixture
def line(monkeypatch, tmp_path):
    """A function that gives what the training is asked for, and the environment it finds."""
    monkeypatch.chdir(tmp_path)
    for name in demo.THREADS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def line(*arguments):
        found = []
        monkeypatch.setattr(runpy, "run_module", lambda *_, **__: found.append(sys.argv[1:]))
        monkeypatch.setattr(sys, "argv", ["mmavlm-demo"])
        demo.main(arguments)
        return found[0], [os.environ.get(name) for name in demo.THREADS]

    return line


def test_it_is_the_experiment_in_a_folder_of_its_own_on_two_threads(line):
    assert line() == (["experiment=demo", "hydra.run.dir=outputs/demo"], ["2", "2"])


def test_settings_are_laid_over_it_and_threads_that_are_set_stay(line, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    given, threads = line("threads=1", "hydra.run.dir=mine", "seed=3")
    assert given == ["experiment=demo", "hydra.run.dir=mine", "seed=3"]
    assert threads == ["4", "1"]


def test_a_quick_one_makes_films_of_its_own(line):
    given, _ = line("quick=true", "trainer.max_epochs=2")
    assert "data.root=data/demo_quick" in given
    assert "hydra.run.dir=outputs/demo_quick" in given
    assert given[-1] == "trainer.max_epochs=2", "what is typed is laid over all else"


@pytest.mark.slow
def test_a_quick_one_runs_both_stages_to_a_report(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "mmavlm", "demo", "quick=true"], cwd=tmp_path, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(SRC)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "outputs/demo_quick"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"test/genre/top1", "test/relationship/top1", "test/hallucination"} <= set(metrics)
    assert (folder / "demo_alignment/checkpoints/last.ckpt").is_file()
    last = run.stderr.strip().splitlines()[-1]
    assert last == f"report: {folder / 'report.html'}"
