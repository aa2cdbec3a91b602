"""The wheel and the sdist: all of mmavlm is in them, and works without a clone."""

import json
import os
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

from mmavlm.commands.verbs import COMMANDS

pytest.importorskip("hatchling", reason="what builds the package is not installed (extra dev)")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
OF_A_CLONE = ("README.md", "LICENSE", "CONTRIBUTING.md", "Makefile", "constraints.txt",
              "pyproject.toml")  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of this tree, and the wheel that is built from the sdist alone."""
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        file.extractall(folder, filter="data")
    subprocess.run([*build, "-t", "wheel"], cwd=folder / sdist.name.removesuffix(".tar.gz"),
                   check=True)  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The programs of an environment with the wheel, and all other packages of this one's."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=True, symlinks=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, built[1]], check=True, env=clean())
    (site,) = folder.glob("lib/python*/site-packages")
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # a folder that is named in a .pth is on the path, but what its own .pth files name is not
    (site / "others.pth").write_text("\n".join(others))
    return folder / "bin"


def clean():
    """This environment without what leads to the sources."""
    left_out = ("PYTHONPATH", "VIRTUAL_ENV")
    return {k: v for k, v in os.environ.items() if k not in left_out} | {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
def start(installed, tmp_path):
    """A function that starts an installed program in an empty folder; gives what it printed."""

    def start(program, *arguments):
        run = subprocess.run([installed / program, *map(str, arguments)], cwd=tmp_path,
                             capture_output=True, text=True, env=clean())  # fmt: skip
        assert run.returncode == 0, run.stderr
        return run.stdout

    return start


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip


def test_the_wheel_holds_every_file_of_the_package_and_every_setting(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    package = {f"mmavlm/{name}" for name in files(ROOT / "src/mmavlm")}
    package |= {f"mmavlm/conf/{name}" for name in files(ROOT / "conf")}
    assert package - names == set()
    about = {name for name in names - package if ".dist-info/" in name}
    assert names == package | about, "and nothing else"
    assert any(name.endswith("licenses/LICENSE") for name in about)


def test_the_sdist_holds_what_tests_and_make_need(built):
    with tarfile.open(built[0]) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    wanted = {f"{top}/{name}" for top in ("src", "conf", "tests", "scripts", "docs", "notebooks")
              for name in files(ROOT / top)}  # fmt: skip
    assert {*wanted, *OF_A_CLONE} - names == set()


def test_what_is_started_is_the_wheel(start, installed):
    where = start("python", "-c", "import mmavlm; print(mmavlm.__file__)").strip()
    assert Path(where).is_relative_to(installed.parent)


def test_every_command_has_a_program_that_starts(start, installed):
    programs = {"mmavlm"} | {f"mmavlm-{verb}" for verb in COMMANDS}
    assert {path.name for path in installed.glob("mmavlm*")} == programs
    for program in programs:
        assert start(program, "--version").startswith("mmavlm ")


def test_help_and_completion_find_the_settings_in_the_wheel(start):
    assert "extract-frames" in start("mmavlm", "--help")
    assert "data.num_frames=20" in start("mmavlm", "train", "--help", "data=own_videos")
    assert "complete -F _mmavlm mmavlm" in start("mmavlm", "completion", "bash")
    assert start("mmavlm", "completion", "query", "mmavlm", "train", "experiment=own").split() == [
        "experiment=own_videos"
    ]


def test_the_doctor_finds_all_that_is_needed(start):
    told = json.loads(start("mmavlm", "doctor", "format=json"))
    assert told["ok"], told


def test_the_demo_trains_and_its_model_answers(start, tmp_path):
    begin = time.monotonic()
    start("mmavlm", "demo", "quick=true")
    print(f"mmavlm demo quick=true: {time.monotonic() - begin:.0f} s")
    run = tmp_path / "outputs/demo_quick"
    assert "<!doctype html>" in (run / "report.html").read_text()
    assert json.loads((run / "metrics.json").read_text())["test/genre/count"] > 0
    film = min((tmp_path / "data").rglob("*.mp4"))
    checkpoint = f"checkpoint={run / 'checkpoints/last.ckpt'}"
    question = "prompt=what is the genre of the movie?"
    answer = start("mmavlm", "predict", checkpoint, f"video={film}", question, "format=json")
    assert json.loads(answer.splitlines()[-1])


def test_a_new_part_is_made_of_templates_in_the_wheel(start, tmp_path):
    for kind in ("fusion", "memory", "reader"):
        start("mmavlm", "new", kind, f"my_{kind}")
        folder = tmp_path / f"my_{kind}"
        assert (folder / "README.md").read_text().startswith(f"# my_{kind}")
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        subprocess.run(build, cwd=folder, check=True)
        (wheel,) = folder.glob("dist/*.whl")
        assert any(name.endswith(f"/my_{kind}.yaml") for name in zipfile.ZipFile(wheel).namelist())
