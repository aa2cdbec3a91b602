"""`python -m mmavlm.watch` as a user types it, and what it leaves of a film."""

import io
import json
import os
import signal
import sys
import threading
import time

import pytest
import torch

from cameras import TRANSPORT_STREAM, CameraServer, served, transport_stream
from mmavlm import evaluate, predict, train, watch
from mmavlm.core.errors import DataError
from mmavlm.data.live import LiveFrame
from mmavlm.metrics.duet.files import read_watched
from mmavlm.movies.duet_set import DuetSettings, make_duet_set
from mmavlm.run.typed import Typed
from mmavlm.run.watching import Screen

ASK = ["experiment=duet_movies", "init.allow_random=true", "llm.width=32", "max_new_tokens=3",
       "to=out"]  # fmt: skip
TALKATIVE = ["speak.threshold=0", "speak.pause_s=1", "repeat=true"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def film(make_clip):
    return f"video={make_clip()}"  # 3 s


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_frame_is_scored_and_what_is_said_is_left_in_the_folder(run, film, folder, capsys):
    queries = ["query=what happens?", "queries=[{time_s: 1.2, text: and now?}]"]
    assert run(watch, *ASK, film, *queries, "fps=2", "format=json", *TALKATIVE) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events == lines(folder / "events.jsonl")
    scored = [row for row in events if row["event"] == "scored"]
    assert [row["time_s"] for row in scored] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])
    assert all(row["scores"].keys() == {"informative", "relevance"} for row in scored)
    asked = [(row["time_s"], row["text"]) for row in events if row["event"] == "asked"]
    assert asked == [(0.0, "what happens?"), (1.5, "and now?")]
    (watched,) = read_watched(folder / "watched.jsonl")
    assert (watched.question_id, len(watched.times_s), watched.duration_s) == ("clip", 6, 3.0)
    replies = [(row["time_s"], row["text"]) for row in events if row["event"] == "replied"]
    assert [(one.time_s, one.text) for one in watched.replies] == replies
    page = (folder / "report.html").read_text()
    assert "What was said while the film ran" in page
    assert "where informative exceeds 0, at least 1 s after it spoke" in page
    assert "in 3.0 s of film" in page


def test_truth_is_shown_beside_the_scores_and_scored_by_evaluate(run, film, folder, tmp_path):
    truth = tmp_path / "truth.jsonl"
    event = {"start_s": 1.0, "end_s": 1.5, "text": "it rains"}
    truth.write_text(json.dumps({"question_id": "q7", "video_id": "clip", "events": [event]}))
    assert run(watch, *ASK, film, "query=when?", f"truth={truth}", "fps=2", *TALKATIVE) == 0
    page = (folder / "report.html").read_text()
    assert "it rains" in page
    assert "of 1 events were told within 1 s" in page
    scored = ["task=speaking", f"predictions={folder}", f"truth={truth}", "hydra.run.dir=scored"]
    assert run(evaluate, *scored) == 0
    found = json.loads((tmp_path / "scored/metrics.json").read_text())
    assert found["test/speaking/count"] == 1
    assert found["test/speaking/missing"] == 0


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    root = tmp_path_factory.mktemp("watched")
    make_duet_set(root, DuetSettings(films=10, size=32))
    return root


def test_a_trained_model_watches_with_the_rule_that_validation_chose(
    run, films, folder, tmp_path, capsys
):
    small = ["trainer=cpu", "trainer.max_epochs=1", "data.batch_size=2", "callbacks.progress=null",
             "data.num_frames=8", "llm.width=32", "callbacks.overview=null"]  # fmt: skip
    assert run(train, ASK[0], *small, f"data.root={films}", "hydra.run.dir=run") == 0
    files = [f"predictions={tmp_path}/run/watched_test.jsonl", f"truth={films}/questions/test.json",
             f"val_predictions={tmp_path}/run/watched_val.jsonl",
             f"val_truth={films}/questions/val.json"]  # fmt: skip
    assert run(evaluate, "task=speaking", *files, "hydra.run.dir=scored") == 0
    chosen = json.loads((tmp_path / "scored/duet.json").read_text())["chosen"]["setting"]
    checkpoint = f"checkpoint={tmp_path}/run/checkpoints/best.ckpt"
    video = f"video={films}/videos/duet_00009.mp4"
    asked = [checkpoint, video, "query=tell me when", f"speak_as={tmp_path}/scored", "to=out"]
    assert run(watch, *asked) == 0
    assert f"informative exceeds {chosen['threshold']:g}" in (folder / "report.html").read_text()
    capsys.readouterr()
    assert run(predict, checkpoint, video, "prompt=what happens?") == 1
    assert "watches a film as it runs; use python -m mmavlm.watch" in capsys.readouterr().err


@pytest.mark.parametrize(("settings", "message"), [
    (["camera=/dev/video0"], "give one of video=film.mp4 and camera"),
    (["speak.by=guess"], "speak.by='guess' is unknown; choose probability, sum, zscore"),
    (["speak.heads=[novelty]"], "speak.heads names novelty; this model's heads are"),
    (["speak.threshold=null"], "speak.threshold is not set"),
    (["heads=none"], "built without heads; choose heads=duet"),
    (["truth=gone.json"], "truth gone.json does not exist"),
    (["speak_as=gone.json"], "speak_as gone.json does not exist"),
    (["fps=0"], "fps must be above 0"),
    (["queries=[{time_s: -1, text: a}]"], "queries.time_s must be at least 0"),
    (["queries=[{time_s: 1}]"], "queries holds {'time_s': 1}; give a time and a text"),
    (["queries=[{time_s: 1, text: ' '}]"], "which asks nothing"),
    (["queries=when"], "queries='when' is no list"),
    (["query=' '"], "query is empty"),
    (["speak.heads=[informative,informative]"], "names a head twice"),
    (["fps=100000"], "fps must be at most 1000"),
    (["window=10"], "raise it"),
    (["query=\udcff"], "which is no sign of a text; write it in UTF-8"),
    (["speak=null"], "speak=None is no rule"),
    (["camera=", "video="], "give one of video=film.mp4 and camera"),
    (["to="], "to is not set"),
    (["to=null"], "to is not set"),
    (["realtime=soon"], "realtime must be true or false, got 'soon'"),
    (["repeat=3"], "repeat must be true or false, got 3"),
    (["keep_replies=null"], "keep_replies must be true or false, got None"),
])  # fmt: skip
def test_mistakes_are_told(run, film, settings, message, capsys):
    assert run(watch, *ASK, film, "query=what is there to be seen in this film?", *settings) == 1
    assert message in capsys.readouterr().err


def test_a_film_that_is_missing_is_told(run, capsys):
    assert run(watch, *ASK, "video=gone.mp4") == 1
    assert "video gone.mp4 does not exist" in capsys.readouterr().err


def test_a_password_in_the_address_of_a_film_is_not_printed(run, capsys):
    assert run(watch, *ASK, "video=rtsp://me:s3cret@porch/1?key=s3cret") == 1
    printed = capsys.readouterr().err
    assert "does not exist; give the path of a film, or camera=…" in printed
    assert "s3cret" not in printed


def test_queries_behind_the_end_of_the_film_are_told(run, film, capsys):
    assert run(watch, *ASK, film, "queries=[{time_s: 60, text: who?}]") == 0
    assert "never asked, since it ended before 60 s: who?" in capsys.readouterr().err


def test_what_cannot_be_watched_leaves_an_earlier_film_as_it_is(run, film, folder, tmp_path):
    assert run(watch, *ASK, film, "fps=2") == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    assert run(watch, *ASK, "video=broken.mp4") == 1
    assert run(watch, *ASK, film, "start_s=60") == 1
    assert run(watch, *ASK, "camera=no-device") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_of_an_earlier_film_stands_beside_one_that_gave_no_frame(run, film, folder):
    assert run(watch, *ASK, film, "fps=2") == 0
    assert run(watch, *ASK, film, "query=a long question that fills it", "window=4") == 1
    assert {path.name for path in folder.iterdir()} == {"events.jsonl", "report.html"}
    assert "No frame came" in (folder / "report.html").read_text()


def test_a_reader_that_leaves_ends_the_watching_which_leaves_its_files(
    run, film, folder, monkeypatch, capsys
):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as printed:
        monkeypatch.setattr(sys, "stdout", printed)
        assert run(watch, *ASK, film, "query=what?", "format=json") == 141
    assert capsys.readouterr().err.count("\n") <= 3
    assert "Traceback" not in capsys.readouterr().err
    assert lines(folder / "events.jsonl")
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_film_and_its_files_are_there(run, film, folder, monkeypatch, name):
    number, show = getattr(signal, name), Screen.show

    def shown(screen, event):
        show(screen, event)
        if event.time_s >= 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Screen, "show", shown)
    before = signal.getsignal(number)
    assert run(watch, *ASK, film, "fps=2") == 128 + number
    assert signal.getsignal(number) == before
    (watched,) = read_watched(folder / "watched.jsonl")
    assert watched.times_s == (0.0, 0.5, 1.0)
    assert (folder / "report.html").is_file()


class Slowly:
    """Lines as a user types them: each waits until it is let through."""

    def __init__(self, *rows):
        self.rows, self.next = rows, threading.Semaphore(0)

    def __iter__(self):
        for row in self.rows:
            self.next.acquire()
            yield row + "\n"


def until(condition):
    end_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_a_film_is_held_while_it_is_stopped_and_goes_on_where_it_was():
    asked, notes = [], []

    def ask(text):
        if "?" not in text:
            raise DataError("no question")
        asked.append(text)

    typed_lines = Slowly("/stop", "who?", "/halt", "hm", "/go", "/quit")
    typed = Typed(ask, notes.append, typed_lines)
    frames = [LiveFrame(float(n), torch.zeros(3, 1, 1, dtype=torch.uint8)) for n in range(6)]
    coming, taken = typed.gated(frames), []
    taken.append(next(coming).time_s)
    typed_lines.next.release()
    until(lambda: not typed._runs.is_set())
    reader = threading.Thread(target=lambda: taken.append(next(coming).time_s), daemon=True)
    reader.start()
    for _ in range(3):
        typed_lines.next.release()
    until(lambda: len(notes) == 3)
    assert taken == [0.0]
    assert asked == ["who?"]
    assert "/halt is no command; did you mean" in notes[1]
    assert notes[2] == "error: no question"
    typed_lines.next.release()
    reader.join(10)
    assert taken == [0.0, 1.0]
    typed_lines.next.release()
    typed.thread.join(10)
    assert [*coming] == []


def test_a_held_film_goes_on_when_nobody_is_left_who_types():
    frames = [LiveFrame(float(n), torch.zeros(3, 1, 1, dtype=torch.uint8)) for n in range(3)]
    notes = []
    typed = Typed(lambda text: None, notes.append, io.StringIO("/stop\n"))
    typed.thread.join(10)
    assert typed._runs.is_set()
    assert len([*typed.gated(frames)]) == 3


def test_what_is_typed_in_another_encoding_is_read_and_so_is_what_follows(monkeypatch):
    asked = []
    given = io.TextIOWrapper(io.BytesIO("é?\nand now?\n".encode("latin-1")), encoding="utf-8")
    Typed(asked.append, lambda text: None, given).thread.join(10)
    assert asked == ["\ufffd?", "and now?"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_at_a_terminal_a_line_lives_and_what_is_typed_is_asked(run, film, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal("what now?\n"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run(watch, *ASK, film, "fps=2") == 0
    printed = capsys.readouterr()
    assert "what now?" in printed.out
    assert "informative 0." in printed.out
    assert "/stop holds the film" in printed.err


def test_a_camera_is_watched_until_it_ends_and_one_that_is_lost_leaves_what_was_seen(
    run, folder, capsys
):
    pieces = transport_stream(30, 25)
    with served(CameraServer(pieces, 50, TRANSPORT_STREAM)) as server:
        assert run(watch, *ASK, f"camera={server.address}", "query=what?", "fps=10") == 0
    (watched,) = read_watched(folder / "watched.jsonl")
    assert len(watched.times_s) >= 2
    capsys.readouterr()
    with served(CameraServer(pieces, 50, TRANSPORT_STREAM, falls_silent=True)) as server:
        lost = [f"camera={server.address}", "fps=10", "timeout_s=0.7", "speak.threshold=1"]
        assert run(watch, *ASK, *lost) == 1
    assert "error: " in capsys.readouterr().err
    assert lines(folder / "events.jsonl")[-1]["event"] == "scored"
    assert (folder / "report.html").is_file()


def test_what_is_secret_in_the_address_of_a_camera_is_nowhere(run, folder, capsys):
    with served(CameraServer(transport_stream(10, 25), 50, TRANSPORT_STREAM)) as server:
        address = server.address.replace("://", "://me:hunter2@") + "?pwd=hunter3"
        assert run(watch, *ASK, f"camera='{address}'", "query=what?", "fps=10") == 0
    gone = "camera='rtsp://me:hunter2@127.0.0.1:1/live?pwd=hunter3'"
    assert run(watch, *ASK, gone, "timeout_s=1", "to=gone") == 1
    printed = "".join(capsys.readouterr())
    files = [path.read_text() for path in folder.parent.glob("*/*") if path.is_file()]
    assert len(files) >= 3
    assert not any("hunter" in text for text in (printed, *files))
