"""What `doctor` looks at: versions, torch, GPU, FFmpeg, disk, memory, Java, the hub, extras."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mmavlm.commands.findings import BROKEN, LOW, MISSING, OK, Finding
from mmavlm.commands.parts_here import ENCODER, ERROR, tried
from mmavlm.core.extras import install
from mmavlm.metrics.caption_words import INSTALL_JAVA, java

PACKAGE = "mmavlm"
IMPORT_S = 120.0  # a cold disk may take so long to give torch
START_S = 20.0  # of a process that asks the hub, beside the hub's own time
JAVA_S = 10.0
GIB = 2**30
LEAST_RUN, LEAST_WEIGHTS, LEAST_MEMORY, LEAST_SHARED = 1 * GIB, 16 * GIB, 2 * GIB, 1 * GIB
SHARED, LIMIT = Path("/dev/shm"), Path("/sys/fs/cgroup/memory.max")
# What the extras of pyproject.toml are for.
EXTRAS = {
    "bench": "benchmarks of decoders, in a clone",
    "captions": "CIDEr, METEOR, BLEU-4 and ROUGE-L of captions",
    "cluster": "sweeps on SLURM (hydra/launcher=submitit_slurm)",
    "dev": "tests and linters, in a clone",
    "docs": "the site of the documents, in a clone",
    "diffusers": "films drawn by a text-to-image model (mmavlm movies image=diffusers)",
    "lora": "training adapters of a language model (llm.lora)",
    "notebook": "the notebooks of a clone",
    "quant": "language models in 8 and 4 bit (llm.quantization)",
    "ray": "training and sweeps on a Ray cluster (trainer=ray)",
    "serve": "a page to talk to films, and OpenAI's API (mmavlm serve)",
    "shards": "sets in a bucket (data=shards data.root=s3://…)",
    "tensorboard": "curves in TensorBoard (logger=tensorboard)",
    "wandb": "curves at Weights & Biases (logger=wandb)",
}


def examine(timeout_s: float) -> list[Finding]:
    """Look at everything; the hub may take `timeout_s` seconds to answer, and nothing hangs."""
    with ThreadPoolExecutor() as beside:  # each waits for a process of its own
        torch = beside.submit(tried, "torch", timeout_s=IMPORT_S)
        av = beside.submit(tried, "av", timeout_s=IMPORT_S)
        hub = beside.submit(tried, "hub", str(timeout_s), timeout_s=timeout_s + START_S)
        runs_java = beside.submit(of_java)
        return [
            *of_versions(),
            *of_torch(torch.result()),
            of_ffmpeg(av.result()),
            *of_room(hub.result().get("cache")),
            runs_java.result(),
            of_hub(hub.result()),
            *of_extras(),
        ]


def of_versions() -> Iterator[Finding]:
    """mmavlm, Python, and the packages that all of mmavlm needs, against what it admits."""
    try:
        admitted, lines = metadata(PACKAGE)["Requires-Python"], requires(PACKAGE) or []
    except PackageNotFoundError:
        found = "not installed, only found on the path"
        yield Finding(PACKAGE, BROKEN, found, "knowing its packages", "pip install mmavlm")
        return
    where = Path(__file__).parents[1]
    yield Finding(PACKAGE, OK, f"{version(PACKAGE)} in {where}, on {platform.platform()}")
    python = platform.python_version()
    good = SpecifierSet(admitted or "").contains(python, prereleases=True)
    said = f"{python} ({sys.executable})"
    if good:
        yield Finding("python", OK, said)
    else:
        needs = f"an environment with Python {admitted}"
        yield Finding("python", BROKEN, said, "all of mmavlm", needs)
    needed = [one for one in map(Requirement, lines) if _asked(one, "")]
    wrong = {one.name: problem for one in needed if (problem := unmet(one))}
    listed = ", ".join(
        f"{one.name} {_version(one.name)}" for one in needed if one.name not in wrong
    )
    yield Finding("packages", OK, listed)
    for one in needed:
        if one.name in wrong:
            remedy = f"pip install '{one.name}{one.specifier}'"
            yield Finding(one.name, BROKEN, wrong[one.name], "all of mmavlm", remedy)


def unmet(requirement: Requirement) -> str | None:
    """What is wrong with the installed version of a package; None if it is admitted."""
    found = _version(requirement.name)
    if found is None:
        return f"not installed; {requirement.specifier or 'any version'} is needed"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{found}; {requirement.specifier} is needed"


def of_torch(found: dict[str, Any]) -> Iterator[Finding]:
    """Whether torch and torchvision can be imported, and which GPUs torch sees."""
    if ERROR in found:
        remedy = "install torch and torchvision of one release, as https://pytorch.org says"
        yield Finding("torch", BROKEN, f"cannot be imported: {found[ERROR]}", "all models", remedy)
        return
    built = f"for CUDA {found['cuda']}" if found["cuda"] else "for processors alone"
    said = f"{found['torch']} {built}, torchvision {found['torchvision']}, both can be imported"
    yield Finding("torch", OK, said)
    if found["gpus"]:
        yield Finding("gpu", OK, "; ".join(found["gpus"]))
        return
    driver = shutil.which("nvidia-smi") is not None
    said = "none that torch sees, though nvidia-smi is here" if driver else "none"
    remedy = (
        "install a torch built for your driver, as https://pytorch.org says"
        if driver
        else "a machine with one; model=tiny and mmavlm demo need none"
    )
    yield Finding("gpu", MISSING, said, "the published recipes", remedy)


def of_ffmpeg(found: dict[str, Any]) -> Finding:
    """FFmpeg's libraries, which av brings along."""
    if ERROR in found:
        remedy = "pip install --force-reinstall av"
        return Finding(
            "ffmpeg", BROKEN, f"av cannot be imported: {found[ERROR]}", "reading films", remedy
        )
    listed = ", ".join(f"{name} {number}" for name, number in found["libraries"].items())
    if not found["lacking"]:
        return Finding("ffmpeg", OK, f"in av: {listed}")
    lacking = ", ".join(found["lacking"])
    why = (
        "drawn films, such as the demo's" if found["lacking"] == [ENCODER] else "films of that kind"
    )
    remedy = "the av that PyPI has: pip install --force-reinstall --only-binary av av"
    return Finding("ffmpeg", MISSING, f"in av: {listed}; without {lacking}", why, remedy)


def of_room(cache: str | None) -> Iterator[Finding]:
    """The room on the disks of this folder and of the hub's cache, and in memory."""
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    if not os.access(here, os.W_OK):
        said, remedy = f"{here} cannot be written", "start in another folder"
        yield Finding("disk", LOW, said, "outputs/ and data/, which are made here", remedy)
    else:
        state = OK if free >= LEAST_RUN else LOW
        said = f"{free / GIB:.1f} GiB free in {here}"
        yield Finding("disk", state, said, "runs and made films", "make room, or start elsewhere")
    if cache is not None:
        folder = next(path for path in (Path(cache), *Path(cache).parents) if path.exists())
        free = shutil.disk_usage(folder).free
        state = OK if free >= LEAST_WEIGHTS else LOW
        what = "pretrained weights; a model of 7B takes 15.5 GiB and more"
        remedy = "make room, or name another folder: HF_HOME=…"
        yield Finding("weights", state, f"{free / GIB:.1f} GiB free in {cache}", what, remedy)
    yield _memory()
    if SHARED.is_dir():
        free = shutil.disk_usage(SHARED).free
        state = OK if free >= LEAST_SHARED else LOW
        remedy = "docker run --shm-size=8g, or data.num_workers=0"
        said = f"{free / GIB:.1f} GiB free in {SHARED}"
        yield Finding(
            "shared memory", state, said, "batches from the processes that decode", remedy
        )


def _memory() -> Finding:
    try:
        import psutil
    except ImportError as error:  # which is told among the packages, too
        return Finding("memory", LOW, f"not known: {error}", "any training", "pip install psutil")
    there = psutil.virtual_memory()
    said = f"{there.available / GIB:.1f} GiB free of {there.total / GIB:.1f}"
    free = there.available
    if LIMIT.is_file() and (limit := LIMIT.read_text().strip()).isdigit():
        said += f", limited to {int(limit) / GIB:.1f} by the system"
        free = min(free, int(limit))
    state = OK if free >= LEAST_MEMORY else LOW
    return Finding("memory", state, said, "any training", "end other programs")


def of_java() -> Finding:
    """Whether a `java` command runs."""
    what, command = "METEOR and the published scores of captions", java()
    if command is None:
        return Finding("java", MISSING, "no `java` command", what, INSTALL_JAVA)
    try:
        run = subprocess.run([command, "-version"], capture_output=True, text=True, timeout=JAVA_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("java", MISSING, f"{command} does not run: {error}", what, INSTALL_JAVA)
    said = (run.stderr or run.stdout).strip().partition("\n")[0]
    if run.returncode != 0:
        return Finding("java", MISSING, f"{command} does not run: {said}", what, INSTALL_JAVA)
    return Finding("java", OK, f"{command}, {said}")


def of_hub(found: dict[str, Any]) -> Finding:
    """Whether the hub answers, where it is asked at all."""
    what = "pretrained weights that are not in the cache yet"
    if found.get("offline"):
        said = f"HF_HUB_OFFLINE is set: weights come from {found['cache']} alone"
        return Finding("hub", OK, said, what)
    if "status" in found:
        return Finding("hub", OK, f"{found['endpoint']} answers", what)
    why = found.get("unreached") or found[ERROR]
    said = f"{found.get('endpoint', 'the hub')} cannot be reached ({why})"
    remedy = "a network or a mirror (HF_ENDPOINT=…); or HF_HUB_OFFLINE=1 and weights in the cache"
    return Finding("hub", MISSING, said, what, remedy)


def of_extras() -> Iterator[Finding]:
    """The extras of mmavlm, and what is missing of each."""
    try:
        lines, extras = requires(PACKAGE) or [], metadata(PACKAGE).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return
    for extra in sorted(extras):
        brings = [one for one in map(Requirement, lines) if _asked(one, extra)]
        brings = [one for one in brings if not _asked(one, "") and one.name != PACKAGE]
        lacking = [one for one in brings if unmet(one)]
        listed = ", ".join(f"{one.name} {_version(one.name)}" for one in brings)
        said = f"without {', '.join(map(_wanted, lacking))}" if lacking else listed
        state = MISSING if lacking else OK
        yield Finding(f"[{extra}]", state, said, EXTRAS.get(extra, ""), install(extra))


def _wanted(requirement: Requirement) -> str:
    """A package that is not there, or not in a version that is admitted."""
    there = "" if (found := _version(requirement.name)) is None else f" ({found} is here)"
    return f"{requirement.name}{requirement.specifier}{there}"


def _asked(requirement: Requirement, extra: str) -> bool:
    """Whether an installation with this extra ("" for none) asks for a package."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
