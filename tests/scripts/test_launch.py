"""The launch files: read as their programs read them, and torchrun's run with two processes."""

import json
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from string import Template

import pytest
import yaml
from hydra import compose, initialize_config_dir

from mmavlm.core.config_files import config_dir
from support import SMALL

LAUNCH = Path(__file__).parents[2] / "scripts/launch"
SLURM, TORCHRUN = LAUNCH / "slurm.sbatch", LAUNCH / "torchrun.sh"
KUBERNETES = LAUNCH / "kubernetes.yaml"
SETTINGS = ["experiment=lvu_genre", "data.root=/data"]
POD = {
    "NODES": "2", "GPUS": "8", "IMAGE": "registry/mmavlm", "CLAIM": "films", "RUN": "outputs/a",
    "SETTINGS": " ".join(SETTINGS),
}  # fmt: skip


def config_of(words):
    """What a command composes of the settings behind `-m mmavlm.train`."""
    settings = words[words.index("mmavlm.train") + 1 :]
    own = [word for word in settings if not word.startswith("hydra.")]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", own), settings


def started(script, tmp_path, *arguments, **environment):
    """The command that a script starts, by stand-ins for the programs that it calls."""
    for name in ("srun", "python"):
        stand_in = tmp_path / name
        stand_in.write_text('#!/bin/bash\nprintf "%s\\n" "$(basename "$0")" "$@"\n')
        stand_in.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", str(script), *arguments], env=path | environment, capture_output=True, text=True
    )
    return done.stdout.splitlines(), done


@pytest.mark.parametrize("script", [SLURM, TORCHRUN], ids=lambda path: path.name)
def test_a_script_is_bash_that_stops_at_its_first_error(script):
    text = script.read_text()
    assert text.startswith("#!/bin/bash\n")
    assert "set -euo pipefail" in text
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def test_slurm_is_asked_for_a_task_a_gpu_and_for_a_signal_ahead_of_time():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", SLURM.read_text(), re.MULTILINE))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert asked["signal"] == "SIGUSR1@300"
    assert {"requeue", "nodes", "time", "open-mode"} <= asked.keys()


def test_slurm_starts_a_process_for_each_gpu_of_each_node(tmp_path):
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "8",
           "SLURM_CPUS_PER_TASK": "6"}  # fmt: skip
    words, _ = started(SLURM, tmp_path, *SETTINGS, "trainer=hsdp", **job)
    assert words[:4] == ["srun", "python", "-m", "mmavlm.train"]
    config, settings = config_of(words)
    assert (config.trainer.num_nodes, config.trainer.devices) == (2, 8)
    assert config.trainer.strategy.share == "node"
    assert (config.data.num_workers, config.resume) == (5, "auto")
    assert "hydra.run.dir=outputs/slurm-7" in settings


def test_slurms_script_run_by_hand_says_what_it_is_for(tmp_path):
    _, done = started(SLURM, tmp_path)
    assert done.returncode != 0
    assert "run this by sbatch" in done.stderr


def test_torchrun_meets_at_the_first_node(tmp_path):
    place = {"NODES": "2", "PROCESSES": "4", "HEAD": "first", "PORT": "29501", "RUN": "outputs/a"}
    words, _ = started(TORCHRUN, tmp_path, *SETTINGS, **place)
    assert words[:3] == ["python", "-m", "torch.distributed.run"]
    given = dict(pairwise(words))
    assert (given["--nnodes"], given["--nproc-per-node"]) == ("2", "4")
    assert given["--rdzv-endpoint"] == "first:29501"
    config, settings = config_of(words)
    assert (config.trainer.num_nodes, config.trainer.devices, config.resume) == (2, 4, "auto")
    assert "hydra.run.dir=outputs/a" in settings


def test_torchrun_without_a_folder_that_all_processes_share_is_refused(tmp_path):
    _, done = started(TORCHRUN, tmp_path, *SETTINGS)
    assert done.returncode != 0
    assert "give the folder of the run" in done.stderr


@pytest.fixture(scope="module")
def pods():
    service, job = yaml.safe_load_all(Template(KUBERNETES.read_text()).substitute(POD))
    return service, job


def test_the_variables_of_the_pods_are_those_that_its_head_names():
    text = KUBERNETES.read_text()
    head = text[: text.index("apiVersion")]
    used = set(re.findall(r"\$\{(\w+)\}", text))
    assert used == set(POD)
    assert all(re.search(rf"\b{name}\b", head) for name in used)


def test_a_pod_for_each_node_is_found_by_the_name_that_the_service_gives(pods):
    service, job = pods
    pod = job["spec"]["template"]
    assert (service["kind"], job["kind"]) == ("Service", "Job")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    first = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    port = service["spec"]["ports"][0]["port"]
    (container,) = pod["spec"]["containers"]
    assert f"--rdzv-endpoint {first}:{port}" in container["args"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_pods_train_with_settings_that_there_are(pods):
    (container,) = pods[1]["spec"]["template"]["spec"]["containers"]
    words = shlex.split(container["args"][0])
    config, settings = config_of(words)
    assert (config.trainer.num_nodes, config.trainer.devices) == (2, 8)
    assert (config.data.root, config.resume) == ("/data", "auto")
    assert "hydra.run.dir=/data/outputs/a" in settings


def test_the_pods_hold_no_key_themselves(pods):
    (container,) = pods[1]["spec"]["template"]["spec"]["containers"]
    assert {entry["name"] for entry in container["env"]} == {"OMP_NUM_THREADS"}
    (source,) = container["envFrom"]
    assert source["secretRef"] == {"name": "mmavlm-keys", "optional": True}


@pytest.mark.slow
@pytest.mark.distributed
def test_torchrun_trains_with_two_processes_and_the_same_line_finds_it_finished(films, tmp_path):
    small = [word for word in SMALL if word != "trainer=cpu"]
    line = [str(TORCHRUN), "experiment=lvu_genre", *small, "trainer.accelerator=cpu",
            "trainer.log_every_n_steps=1", "data.batch_size=2", f"data.root={films}"]  # fmt: skip
    place = {
        "PROCESSES": "2",
        "PORT": "29511",
        "RUN": str(tmp_path / "run"),
        "PYTHON": sys.executable,
    }
    for again in (False, True):
        done = subprocess.run(
            line, env=os.environ | place, capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("is finished" in done.stderr + done.stdout) == again
        assert ("distributed_backend=gloo" in done.stderr) != again
    assert "test/accuracy" in json.loads((tmp_path / "run/metrics.json").read_text())
