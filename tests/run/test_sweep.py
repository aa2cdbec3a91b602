import csv
import re
import runpy
import subprocess
import sys
import textwrap
import weakref
from html import unescape

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from mmavlm.core.metrics_file import write_metrics
from mmavlm.run.sweep import SweepTable, finish, read_jobs, without_shared, write_table


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


def page_of(folder):
    """The first sentences of a sweep's page, and the addresses of other pages."""
    html = (folder / "report.html").read_text(encoding="utf-8")
    lead = html[html.index('class="lead"') :].partition("</section>")[0]
    sentences = unescape(" ".join(re.findall(r"<p>(.*?)</p>", lead)))
    return sentences, re.findall(r'<a href="([^"]*)"', html)


def top1(value, low, high):
    return {"test/genre/top1": value, "test/genre/top1_low": low, "test/genre/top1_high": high}


def test_the_page_of_a_sweep_says_which_job_is_best_and_how_sure_that_is(tmp_path):
    fusions = {
        "none": (0.5, 0.4, 0.6),
        "bidirectional": (0.7, 0.6, 0.8),
        "mma_code": (0.65, 0.5, 0.8),
    }
    for number, (name, values) in enumerate(fusions.items()):
        job(tmp_path, number, ["experiment=demo", f"fusion={name}"], top1(*values))
    (tmp_path / "1/report.html").touch()
    write_table(tmp_path, read_jobs(tmp_path))
    lead, links = page_of(tmp_path)
    assert lead.startswith("3 jobs, all done.")
    assert "best in job 1 (fusion=bidirectional) with 70.0 % (95 % interval 60.0 to 80.0)" in lead
    assert "worst in job 0 (fusion=none) with 50.0 %" in lead
    assert "Of the 2 others 2 have intervals that overlap with the best one's" in lead
    assert links == ["1/report.html"], "the one job that has a report"
    html = (tmp_path / "report.html").read_text()
    assert "<dd><bdi>experiment=demo</bdi></dd>" in html
    assert "genre/top1: right answers" in html


def test_a_number_that_counts_mistakes_is_best_where_it_is_lowest(tmp_path):
    for number, value in enumerate((0.4, 0.1)):
        job(
            tmp_path,
            number,
            [f"seed={number}"],
            {"test/speech/wer": value, "test/speech/unparsed": value},
        )
    write_table(tmp_path, read_jobs(tmp_path))
    assert "best in job 1 (seed=1) with 10.0 %" in page_of(tmp_path)[0]


def test_jobs_that_are_alike_are_not_told_best_and_worst(tmp_path):
    for number in range(2):
        job(tmp_path, number, [f"seed={number}"], top1(0.5, 0.4, 0.6))
    write_table(tmp_path, read_jobs(tmp_path))
    assert "50.0 % (95 % interval 40.0 to 60.0) in each of 2 jobs." in page_of(tmp_path)[0]


def test_a_narrow_screen_shows_fewer_numbers_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    names = [f"test/task_{n}/top1" for n in range(9)]
    for number in range(2):
        job(tmp_path, number, [f"seed={number}"], dict.fromkeys(names, 0.5))
    write_table(tmp_path, read_jobs(tmp_path))
    shown = capsys.readouterr().out
    assert "task_0/top1" in shown
    assert "0.500" in shown
    assert "…" not in shown
    (left,) = re.findall(r"(\d) more columns are in the report", shown)
    assert shown.count("top1") + int(left) == 9


def test_the_page_of_a_sweep_says_why_a_job_failed_and_shows_what_a_test_is_told_by(tmp_path):
    job(tmp_path, 0, ["seed=0"], {"test/hallucination": 0.5, "test/hallucination_low": 0.25,
                                  "test/hallucination_high": 0.75})  # fmt: skip
    job(tmp_path, 1, ["seed=1"], {})
    (tmp_path / "1/error.txt").write_text("data.root=/nowhere does not exist\ngive another")
    write_table(tmp_path, read_jobs(tmp_path))
    html = (tmp_path / "report.html").read_text()
    assert html.index("<h2><bdi>Jobs") < html.index("<h2><bdi>Failed") < html.index("/nowhere")
    assert "| job | seed | hallucination | error |" in (tmp_path / "sweep.md").read_text()
    assert "hallucination: answers with what is not shown, lower is better" in html


def test_secrets_stay_out_of_the_page_of_a_sweep(tmp_path):
    for number in range(2):
        shared = ["logger.api_key=topsecret", f"logger.token=secret{number}", f"seed={number}"]
        job(tmp_path, number, shared, top1(0.5, 0.4, 0.6))
    write_table(tmp_path, read_jobs(tmp_path))
    for name in ("report.html", "sweep.md", "sweep.csv"):
        text = (tmp_path / name).read_text().replace(tmp_path.name, "")
        assert "secret" not in text, name


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
    assert page_of(tmp_path)[0] == "2 jobs, 1 of them done. Not done: 1."


def test_a_folder_without_jobs_gets_no_table(tmp_path, capsys):
    finish(tmp_path)
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().out


@pytest.fixture
def sweep(tmp_path):
    """The command line of a small app, and its folder."""
    (tmp_path / "config.yaml").write_text(
        "x: 1\nhydra:\n  callbacks:\n    table:\n      _target_: mmavlm.run.sweep.SweepTable\n"
    )
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
        from pathlib import Path
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from mmavlm.core.metrics_file import write_metrics
        from mmavlm.run.sweep import SweepTable

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
