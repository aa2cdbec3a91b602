import csv
import runpy
import subprocess
import sys
import textwrap
import weakref

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from mmavlm.callbacks import SweepTable
from mmavlm.callbacks.sweep import finish, read_jobs, without_shared, write_table
from mmavlm.core.metrics_file import write_metrics


def job(folder, number, overrides, metrics):
    (folder / str(number) / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(overrides), folder / str(number) / ".hydra/overrides.yaml")
    if metrics:
        write_metrics(folder / str(number) / "metrics.json", metrics)


def test_the_table_has_a_row_a_job_in_order_and_a_column_a_varied_setting(tmp_path):
    for number in range(11):
        overrides = ["experiment=demo", f"memory.length={number}"]
        job(tmp_path, number, overrides, {"test/genre/top1": number / 20, "train/loss": 1.0})
    jobs = without_shared(read_jobs(tmp_path))
    assert [j.number for j in jobs] == [str(n) for n in range(11)]
    assert all(list(j.settings) == ["memory.length"] for j in jobs)
    write_table(tmp_path, jobs)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert rows[10] == {
        "job": "10", "memory.length": "10", "test/genre/top1": "0.5", "train/loss": "1.0",
    }  # fmt: skip
    assert "| 10 | 10 | 0.500 |" in (tmp_path / "sweep.md").read_text()


def test_a_job_without_metrics_appears_as_failed(tmp_path):
    job(tmp_path, 0, ["fusion=none"], {"test/genre/top1": 0.5})
    job(tmp_path, 1, ["fusion=bidirectional"], {})
    write_table(tmp_path, read_jobs(tmp_path))
    assert "| 1 | bidirectional | failed |" in (tmp_path / "sweep.md").read_text()


def test_texts_that_look_like_markup_stay_as_they_are(tmp_path, capsys):
    for number, task in enumerate(("[genre,year]", "a|b")):
        job(tmp_path, number, [f"data.task={task}"], {"test/accuracy": 0.5})
    write_table(tmp_path, read_jobs(tmp_path))
    assert "[genre,year]" in capsys.readouterr().out
    assert "| 1 | a\\|b | 0.500 |" in (tmp_path / "sweep.md").read_text()


def test_jobs_without_headline_metrics_are_told_done_from_failed(tmp_path):
    job(tmp_path, 0, ["x=1"], {"train/loss": 0.5})
    job(tmp_path, 1, ["x=2"], {})
    write_table(tmp_path, read_jobs(tmp_path))
    lines = (tmp_path / "sweep.md").read_text().splitlines()
    assert lines[2:] == ["| 0 | 1 | done |", "| 1 | 2 | failed |"]


def test_a_folder_without_jobs_gets_no_table(tmp_path, capsys):
    finish(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().out


@pytest.fixture
def sweep(tmp_path):
    """The command line of a small app, and its folder."""
    (tmp_path / "config.yaml").write_text(
        "x: 1\nhydra:\n  callbacks:\n    table:\n      _target_: mmavlm.callbacks.SweepTable\n"
    )
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
        from pathlib import Path
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from mmavlm.core.metrics_file import write_metrics
        from mmavlm.callbacks import SweepTable

        @hydra.main(version_base="1.3", config_path=".", config_name="config")
        def app(cfg):
            folder = Path(HydraConfig.get().runtime.output_dir)
            write_metrics(folder / "metrics.json", {"test/loss": 1 / (cfg.x - 2)})

        app()
        """)
    )
    return ["app.py", "-m", "hydra.sweep.dir=sweep"]


@pytest.fixture
def multirun(sweep, tmp_path):
    """A sweep in a process of its own, at whose end a failed one writes its table."""
    return lambda values: subprocess.run(
        [sys.executable, *sweep, f"x={values}"], cwd=tmp_path, capture_output=True, text=True
    )


def test_a_real_multirun_ends_in_one_table(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*sweep, "x=1,3"])
    runpy.run_path("app.py", run_name="__main__")
    assert capsys.readouterr().out.count("2 jobs in sweep") == 1
    assert "| 1 | 3 | 1.000 |" in (tmp_path / "sweep/sweep.md").read_text()


@pytest.mark.slow
def test_a_real_multirun_with_a_failing_job_ends_in_the_table_too(multirun, tmp_path):
    done = multirun("1,2,3")
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert done.stdout.count("3 jobs in sweep") == 1
    table = (tmp_path / "sweep/sweep.md").read_text()
    assert "| 1 | 2 | failed | ZeroDivisionError: division by zero |" in table
    assert "| 2 | 3 | 1.000 |  |" in table
    assert "division by zero" in (tmp_path / "sweep/1/error.txt").read_text()


@pytest.mark.slow
def test_a_job_that_ends_well_where_one_failed_is_done(multirun, tmp_path):
    assert multirun("2,3").returncode == 1
    assert multirun("1,3").returncode == 0
    assert "| 0 | 1 | -1.000 |\n" in (tmp_path / "sweep/sweep.md").read_text()


class Model:
    pass


def test_a_failed_job_holds_nothing_while_the_others_run(tmp_path):
    left = []

    def job():
        model = Model()
        left.append(weakref.ref(model))
        try:
            raise KeyError("model")
        except KeyError as error:
            raise RuntimeError(f"{model} fails") from error

    config = OmegaConf.create(
        {"hydra": {"mode": RunMode.MULTIRUN, "runtime": {"output_dir": str(tmp_path)}}}
    )
    try:
        job()
    except RuntimeError as error:
        done = JobReturn(status=JobStatus.FAILED, _return_value=error)
    SweepTable().on_job_end(config, done)
    assert left[0]() is None
    assert "RuntimeError: " in (tmp_path / "error.txt").read_text()
