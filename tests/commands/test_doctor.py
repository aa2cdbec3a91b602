"""What the doctor finds: real parts, and parts that are missing, too old, crash or hang."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from mmavlm import doctor
from mmavlm.commands import health
from mmavlm.commands.findings import BROKEN, LOW, MISSING, OK, Finding, is_well, table
from mmavlm.commands.parts_here import ERROR, tried

SRC = Path(health.__file__).parents[2]


def by_name(findings):
    return {finding.name: finding for finding in findings}


def asked(folder, *arguments, **environment):
    """The exit code of the doctor in a process of its own, and what it printed."""
    process = subprocess.run(
        [sys.executable, "-m", "mmavlm", "doctor", *arguments], cwd=folder, capture_output=True,
        text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(SRC), **environment},
    )  # fmt: skip
    assert "Traceback" not in process.stderr
    return process.returncode, process.stdout


def test_here_all_that_is_needed_is_found(tmp_path):
    code, printed = asked(tmp_path, "format=json")
    told = json.loads(printed)
    assert code == 0
    assert told["ok"]
    found = {one["name"]: one for one in told["findings"]}
    for name in ("mmavlm", "python", "packages", "torch", "ffmpeg", "memory"):
        assert found[name]["state"] == "ok"
    assert "torch " in found["packages"]["found"]
    assert "libavcodec" in found["ffmpeg"]["found"]
    assert str(tmp_path) in found["disk"]["found"]
    assert "HF_HUB_OFFLINE is set" in found["hub"]["found"]
    assert {"gpu", "java", "[captions]", "[lora]"} <= set(found)
    assert all(one["remedy"] and one["needed_for"]
               for one in told["findings"] if one["state"] != "ok")  # fmt: skip


def test_the_table_has_all_of_it_in_words(tmp_path):
    code, printed = asked(tmp_path, COLUMNS="100")
    assert code == 0
    assert "\nok       torch " in printed
    assert printed.splitlines()[-1].startswith("all that is needed is here")
    assert max(map(len, printed.splitlines()[:-1])) <= 100


def faulty(folder, name, code):
    """A package of this name that does `code` when it is imported, first on the path."""
    (folder / "first").mkdir(exist_ok=True)
    (folder / "first" / f"{name}.py").write_text(code)
    return os.pathsep.join([str(folder / "first"), str(SRC)])


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", "ImportError: libcudart.so.13"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with -11"),
        ("import sys; sys.exit(3)", "ended with 3"),
    ],
)
def test_a_torch_that_cannot_be_imported_is_broken_and_tells_why(tmp_path, code, why):
    path = faulty(tmp_path, "torch", code)
    ended, printed = asked(tmp_path, "format=json", PYTHONPATH=path)
    assert ended == 1
    told = json.loads(printed)
    assert not told["ok"]
    (torch,) = [one for one in told["findings"] if one["name"] == "torch"]
    assert torch["state"] == "broken"
    assert why in torch["found"]
    assert "pytorch.org" in torch["remedy"]


def test_a_part_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", faulty(tmp_path, "av", "import time; time.sleep(60)"))
    start = time.monotonic()
    assert tried("av", timeout_s=1.0) == {ERROR: "gave no answer within 1 s"}
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("package", ["hydra", "yaml", "psutil", "huggingface_hub", "av"])
def test_the_doctor_speaks_where_other_packages_cannot_be_imported(tmp_path, package):
    path = faulty(tmp_path, package, f"raise ImportError('no {package} here')")
    code, printed = asked(tmp_path, "format=json", PYTHONPATH=path)
    assert json.loads(printed)["findings"]
    assert code == (1 if package == "av" else 0)


def test_packages_that_are_missing_or_too_old_are_broken_with_the_line_that_mends_them(
    monkeypatch, capsys
):
    lines = ["numpy>=1", "torch>=99.1", "no-such-thing>=1.2", "odd; extra == 'lora'",
             "never; python_version < '3'"]  # fmt: skip
    monkeypatch.setattr(health, "requires", lambda _: lines)
    found = by_name(health.of_versions())
    assert "numpy" in found["packages"].found
    assert found["torch"].state == found["no-such-thing"].state == BROKEN
    assert ">=99.1 is needed" in found["torch"].found
    assert found["torch"].remedy == "pip install 'torch>=99.1'"
    assert "not installed; >=1.2 is needed" in found["no-such-thing"].found
    assert not {"odd", "never"} & set(found)
    extras = by_name(health.of_extras())
    assert extras["[lora]"].state == MISSING
    assert "without odd" in extras["[lora]"].found
    assert "pip install 'mmavlm[lora]'" in extras["[lora]"].remedy
    monkeypatch.setattr("mmavlm.commands.health.examine", lambda _: list(found.values()))
    with pytest.raises(SystemExit) as stop:
        doctor.main([])
    assert stop.value.code == 1
    assert "broken: torch, no-such-thing; mmavlm does not work" in capsys.readouterr().out


@given(st.lists(st.integers(0, 50), min_size=1, max_size=3), st.booleans())
def test_a_version_is_unmet_if_it_is_below_what_is_asked(numbers, local):
    with pytest.MonkeyPatch.context() as patch:
        wanted = ".".join(map(str, numbers))
        for there, good in ((numbers, True), ([*numbers[:-1], numbers[-1] + 1], True),
                            ([0, 0, 0, 0], not any(numbers))):  # fmt: skip
            found = ".".join(map(str, there)) + ("+cu130" if local else "")
            patch.setattr(health, "version", lambda _, found=found: found)
            assert (health.unmet(Requirement(f"torch>={wanted}")) is None) == good


def test_a_python_that_is_too_old_is_broken(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.8.1")
    found = by_name(health.of_versions())
    assert found["python"].state == BROKEN
    assert "Python >=3.10" in found["python"].remedy


def test_the_doctor_says_what_every_extra_is_for():
    assert set(health.EXTRAS) == set(metadata("mmavlm").get_all("Provides-Extra"))


@contextmanager
def server(answer):
    """A hub of one's own that answers each request by `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):  # as the library calls it
            answer(self)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{hub.server_port}"
        hub.shutdown()


def hub_at(address, monkeypatch, timeout_s=3):
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return health.of_hub(tried("hub", str(timeout_s), timeout_s=timeout_s + 20))


@pytest.mark.parametrize("status", [200, 403, 404])
def test_a_hub_that_answers_whatever_it_says_is_reached(monkeypatch, status):
    def answer(request):
        request.send_response(status)
        request.end_headers()

    with server(answer) as address:
        found = hub_at(address, monkeypatch)
    assert found.state == OK
    assert f"{address} answers" in found.found


def test_a_hub_that_takes_the_question_and_never_answers_is_not_waited_for(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = hub_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch, timeout_s=0.5)
    assert found.state == MISSING
    assert "cannot be reached (" in found.found
    assert "HF_HUB_OFFLINE=1" in found.remedy


def test_a_hub_that_nobody_listens_at_is_missing(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"http://127.0.0.1:{gone.getsockname()[1]}"
    found = hub_at(address, monkeypatch)
    assert found.state == MISSING
    assert address in found.found


def test_offline_the_hub_is_not_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    found = health.of_hub(tried("hub", "3", timeout_s=20))
    assert found.state == OK
    assert "HF_HUB_OFFLINE is set" in found.found


def test_java_that_is_not_there_or_does_not_run_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert health.of_java().state == MISSING
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho no JVM here >&2\nexit 2\n")
    java.chmod(0o755)
    found = health.of_java()
    assert found.state == MISSING
    assert "no JVM here" in found.found
    java.write_text("#!/bin/sh\necho 'openjdk version \"17\"' >&2\n")
    assert health.of_java().state == OK


def test_little_room_is_told_with_what_it_is_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("LEAST_RUN", "LEAST_WEIGHTS", "LEAST_MEMORY", "LEAST_SHARED"):
        monkeypatch.setattr(health, name, 2**80)
    found = list(health.of_room(str(tmp_path / "not/there/yet")))
    assert {one.name for one in found} >= {"disk", "weights", "memory"}
    assert all(one.state == LOW and one.remedy and one.needed_for for one in found)


def test_a_limit_of_the_system_counts_as_the_memory_there_is(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(health, "LIMIT", limit)
    for text, state in (("max\n", OK), ("1000000\n", LOW)):
        limit.write_text(text)
        (memory,) = [one for one in health.of_room(None) if one.name == "memory"]
        assert memory.state == state


def test_gpus_are_listed_and_their_absence_says_what_they_are_for(monkeypatch):
    torch = {"torch": "2.9", "torchvision": "0.24", "cuda": "13.0", "gpus": ["H200, 140 GiB"]}
    assert by_name(health.of_torch(torch))["gpu"].found == "H200, 140 GiB"
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    gpu = by_name(health.of_torch({**torch, "gpus": []}))["gpu"]
    assert gpu.state == MISSING
    assert "though nvidia-smi is here" in gpu.found
    monkeypatch.setattr("shutil.which", lambda name: None)
    gpu = by_name(health.of_torch({**torch, "gpus": [], "cuda": None}))["gpu"]
    assert "model=tiny" in gpu.remedy


def test_an_ffmpeg_without_a_codec_says_what_cannot_be_read():
    libraries = {"libavcodec": "62.3"}
    lacking = health.of_ffmpeg({"libraries": libraries, "lacking": ["libx264"]})
    assert (lacking.state, lacking.needed_for) == (MISSING, "drawn films, such as the demo's")
    assert health.of_ffmpeg({"libraries": libraries, "lacking": []}).state == OK
    assert health.of_ffmpeg({"error": "ImportError: no"}).state == BROKEN


def test_only_what_is_broken_makes_a_machine_unwell(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    fine = [Finding("a", OK, "1.0"), Finding("b", MISSING, "none", "films", "get it"),
            Finding("c", LOW, "1 GiB", "runs", "make room")]  # fmt: skip
    assert is_well(fine)
    assert "missing  b             none; for films; to mend: get it" in table(fine)
    assert table(fine).endswith("all that is needed is here; missing or low, which some "
                                "parts need: b, c")  # fmt: skip
    assert not is_well([*fine, Finding("d", BROKEN, "0.1", "all", "pip install d")])
