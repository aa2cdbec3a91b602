"""Packages made by `mmavlm new`: their tests pass at once, and models train with their parts."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmavlm import evaluate, export, new, train
from mmavlm.commands.plain_verbs import KINDS
from mmavlm.core.errors import CheckpointError
from mmavlm.hub import from_pretrained
from mmavlm.new import class_name
from support import SMALL

SRC = Path(new.__file__).parents[1]


def made(folder, kind, package):
    """The folder of a package that was just made."""
    new.main([kind, package, f"folder={folder}"])
    return folder / package


def beside(package):
    """An environment in which a package is found as if it were installed."""
    path = os.pathsep.join([str(package / "src"), str(SRC)])
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_new_package_pass_at_once(tmp_path, kind):
    package = made(tmp_path, kind, "my_part")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=package,
        env=beside(package), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert re.search(r"^\d+ passed", run.stdout, re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_laid_out_as_its_readme_says_and_clean(tmp_path, kind, capsys):
    package = made(tmp_path, kind, "my_part")
    assert f"written: {package}" in capsys.readouterr().out
    readme = (package / "README.md").read_text()
    for named in re.findall(r"`((?:src|tests)/[\w./]*)`", readme):
        assert (package / named).exists()
    assert "trust=my_part" in readme
    for check in (["check", "--select", "F,E,W,I,B,UP,D1", "--ignore", "D100,D103,D104,D107"],
                  ["format", "--check"]):  # fmt: skip
        lint = [sys.executable, "-m", "ruff", *check, "--isolated", "--line-length", "100"]
        run = subprocess.run([*lint, "."], cwd=package, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout
    assert not [path for path in package.rglob("*") if "{{" in path.name or path.suffix == ".j2"]


def lines_of(package, verb):
    """What follows a verb in the commands of a package's README."""
    found = re.findall(rf"^mmavlm {verb} (.+)$", (package / "README.md").read_text(), re.MULTILINE)
    return [shlex.split(line) for line in found]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that makes a package which can be imported here."""

    def own(kind, package):
        folder = made(tmp_path / "packages", kind, package)
        monkeypatch.syspath_prepend(str(folder / "src"))
        return folder

    return own


STEPS = ["trainer.max_epochs=1", "data.limit_items=8", "callbacks.progress=null", "trainer=cpu",
         "data.num_workers=0", "data.num_frames=4", "data.batch_size=4"]  # fmt: skip


@pytest.mark.parametrize("kind", ["fusion", "memory"])
def test_two_steps_are_trained_with_a_part_of_ones_own_and_what_is_exported_must_be_trusted(
    run, own, films, capsys, kind
):
    package = own(kind, f"own_{kind}")
    (line,) = lines_of(package, "train")
    theirs = [word for word in line if word.startswith((f"{kind}=", "hydra.searchpath="))]
    assert len(theirs) == 2
    assert run(train, *theirs, "experiment=lvu_genre", *SMALL, *STEPS, f"data.root={films}",
               "hydra.run.dir=mine") == 0  # fmt: skip
    assert json.loads(Path("mine/metrics.json").read_text())
    assert class_name(f"own_{kind}", kind) in Path("mine/config.yaml").read_text()
    (ask,) = lines_of(package, "evaluate")
    assert run(evaluate, *here(ask), "hydra.run.dir=again") == 0
    (ask,) = lines_of(package, "export")
    capsys.readouterr()
    assert run(export, *(word for word in here(ask) if not word.startswith("trust="))) == 1
    assert f"trust=own_{kind}" in capsys.readouterr().err
    assert run(export, *here(ask)) == 0
    with pytest.raises(CheckpointError, match=f"trust=own_{kind}"):
        from_pretrained("my_model")
    assert from_pretrained("my_model", trust=(f"own_{kind}",)) is not None


def here(line):
    return [word.replace("outputs/mine", "mine") for word in line]


@pytest.mark.slow
def test_the_stage_before_takes_a_memory_of_ones_own_too(tmp_path):
    package = made(tmp_path, "memory", "kept_memory")  # a name that no test imports
    (line,) = lines_of(package, "train")
    theirs = [word for word in line if word.startswith(("memory=", "hydra.searchpath="))]
    run = subprocess.run(
        [sys.executable, "-m", "mmavlm", "demo", "quick=true", *theirs], cwd=tmp_path,
        env=beside(package), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for folder in ("outputs/demo_quick", "outputs/demo_quick/demo_alignment"):
        assert "kept_memory.memory.KeptMemory" in (tmp_path / folder / "config.yaml").read_text()
        checkpoint = torch.load(tmp_path / folder / "checkpoints/last.ckpt", weights_only=True)
        assert not [line for line in checkpoint["mmavlm"]["overrides"] if "hydra." in line]


def test_two_steps_are_trained_on_films_that_a_reader_of_ones_own_reads(run, own, films, tmp_path):
    package = own("reader", "own_reader")
    root = tmp_path / "mine"
    root.mkdir()
    (root / "lvu").symlink_to(films / "lvu")
    for split in ("train", "val", "test"):
        rows = map(json.loads, (films / f"{split}.jsonl").read_text().splitlines())
        lines = ["\t".join((row["video"], row["prompt"], row["answer"])) for row in rows]
        (root / f"{split}.txt").write_text("\n".join(lines))
    (line,) = lines_of(package, "train")
    assert run(train, *(word for word in line if "root=" not in word), *STEPS,
               f"data.root={root}", "hydra.run.dir=run") == 0  # fmt: skip
    assert json.loads(Path("run/metrics.json").read_text())


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("My-Part", "My-Part is no name of a package; give small letters, digits and _"),
        ("class", "class is no name of a package"),
        ("json", "json can be imported already"),
        ("mmavlm", "mmavlm can be imported already"),
        ("bidirectional", "fusion=bidirectional is a choice of mmavlm itself"),
    ],
)
def test_a_name_that_cannot_be_taken_is_refused(tmp_path, capsys, package, message):
    with pytest.raises(SystemExit) as stop:
        made(tmp_path, "fusion", package)
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path, capsys):
    package = made(tmp_path, "fusion", "my_part")
    (package / "src/my_part/fusion.py").write_text("mine")
    with pytest.raises(SystemExit):
        made(tmp_path, "memory", "my_part")
    assert "my_part is there already; choose another name" in capsys.readouterr().err
    assert (package / "src/my_part/fusion.py").read_text() == "mine"


def test_a_package_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Path, "touch", lambda _: (_ for _ in ()).throw(
        OSError(28, "No space left on device", "a.py")))  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        made(tmp_path, "fusion", "my_part")
    assert stop.value.code == 1
    assert "a.py cannot be written: No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_names_of_classes_follow_from_those_of_packages():
    assert class_name("my_part", "fusion") == "MyPartFusion"
    assert class_name("my_fusion", "fusion") == "MyFusion"
    assert class_name("fusion", "fusion") == "FusionFusion"
