"""Sweeps whose jobs a cluster runs: composed for SLURM, and run by submitit on this machine."""

import csv
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

from mmavlm.commands.mistakes import LAUNCHERS
from mmavlm.core.config_files import config_dir
from support import SMALL

ROOT = Path(__file__).parents[1]
KEYS = {"WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567", "HF_TOKEN": "hf_" + "kept" * 8}
submitit = pytest.importorskip("submitit", reason="the extra cluster is not installed")


def launcher_of(*overrides):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True).hydra.launcher


@pytest.mark.parametrize("name", ["submitit_slurm", "submitit_local"])
def test_a_launcher_composes_with_the_settings_of_its_jobs(name):
    jobs = ["hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=8",
            "hydra.launcher.gpus_per_node=8", "hydra.launcher.timeout_min=1440"]  # fmt: skip
    launcher = launcher_of(f"hydra/launcher={name}", *jobs, "trainer=hsdp")
    assert (launcher.nodes, launcher.tasks_per_node, launcher.timeout_min) == (2, 8, 1440)
    known = {f"{kind.__module__}.{kind.__name__}" for kind in Plugins.instance().discover(Launcher)}
    assert launcher._target_ in known


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
def test_rays_launcher_composes_with_the_address_of_a_cluster():
    launcher = launcher_of("hydra/launcher=ray", "hydra.launcher.ray.init.address=auto",
                           "+hydra.launcher.ray.remote.num_gpus=1")  # fmt: skip
    assert (launcher.ray.init.address, launcher.ray.remote.num_gpus) == ("auto", 1)


def test_each_launcher_of_a_cluster_comes_with_an_extra():
    text = (ROOT / "pyproject.toml").read_text()
    for plugin, extra in LAUNCHERS.values():
        assert re.search(rf'^{extra} = \[.*"{plugin}>=', text, re.MULTILINE)


def test_what_slurm_is_given_asks_for_the_devices_and_holds_no_key(tmp_path, monkeypatch):
    """As the launcher does it, with a stand-in for sbatch that keeps the script."""
    for name, said in (("sbatch", "echo Submitted batch job 12"), ("srun", ""), ("sacct", "")):
        program = tmp_path / name
        program.write_text(f'#!/bin/bash\n[ -f "$1" ] && cp "$1" {tmp_path}/script\n{said}\ntrue\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    jobs = launcher_of("hydra/launcher=submitit_slurm", "hydra.launcher.nodes=2",
                       "hydra.launcher.tasks_per_node=8", "hydra.launcher.gpus_per_node=8",
                       "hydra.launcher.partition=gpu")  # fmt: skip
    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="slurm")
    executor.update_parameters(
        nodes=jobs.nodes, tasks_per_node=jobs.tasks_per_node, gpus_per_node=jobs.gpus_per_node,
        timeout_min=jobs.timeout_min, slurm_partition=jobs.partition,
    )  # fmt: skip
    executor.submit(print, "a job")
    script = (tmp_path / "script").read_text()
    for asked in ("nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "partition=gpu"):
        assert f"#SBATCH --{asked}\n" in script
    assert files_with_keys(tmp_path) == []


@pytest.mark.slow
def test_a_sweep_by_submitit_trains_each_job_and_writes_no_key(films, tmp_path):
    line = [sys.executable, "-m", "mmavlm.train", "-m", "hydra/launcher=submitit_local",
            "experiment=lvu_genre", *SMALL, f"data.root={films}", "seed=1,2",
            f"hydra.sweep.dir={tmp_path}/sweep"]  # fmt: skip
    done = subprocess.run(line, env=os.environ | KEYS, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for job in ("0", "1"):
        assert (tmp_path / "sweep" / job / "metrics.json").is_file()
    rows = list(csv.DictReader((tmp_path / "sweep/sweep.csv").open()))
    assert [row["seed"] for row in rows] == ["1", "2"]
    assert list((tmp_path / "sweep/.submitit").glob("*/*_submitted.pkl"))
    assert files_with_keys(tmp_path) == []


def files_with_keys(folder):
    """The files below a folder that hold one of the keys."""
    keys = [key.encode() for key in KEYS.values()]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(key in path.read_bytes() for key in keys)]
