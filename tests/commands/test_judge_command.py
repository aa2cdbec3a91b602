"""Predictions that are judged, as a user types it."""

import json
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from mmavlm import evaluate
from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction, write_predictions

TRUTHS = ["the red cup", "in the garden", "the red cup", "two"]
PROMPTS = ["What is taken?", "Where is it put?", "What is it that is taken?", "How many are there?"]
TASKS = ["what", "where", "what", "count"]
GOOD = ["the red cup", "in the garden", "the red cup", "two"]
BAD = ["the cup", "in the prison", "a ball", "two"]


def predictions(path, answers, *, shown=True):
    rows = [
        Prediction(f"q{n}", "film.mp4" if shown else f"q{n}", TASKS[n], PROMPTS[n], TRUTHS[n],
                   [Answer(answer, -1.0)], [], [TRUTHS[n]])
        for n, answer in enumerate(answers)
    ]  # fmt: skip
    write_predictions(path, rows)
    return path


@pytest.fixture
def good(tmp_path):
    return predictions(tmp_path / "good.jsonl", GOOD)


@pytest.fixture
def bad(tmp_path):
    return predictions(tmp_path / "bad.jsonl", BAD)


def read(path):
    return json.loads(path.read_text())


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def server():
    """An endpoint that says what `server.says` makes of the request's text; it keeps all texts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = "\n".join(message["content"] for message in body["messages"])
            self.server.asked.append(text)
            answer = {"choices": [{"message": {"content": self.server.says(text)}}]}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    server.says = lambda text: '{"correct": true, "score": 4}'
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def judge_of(server):
    address = f"http://127.0.0.1:{server.server_port}/v1"
    return ["judge=endpoint", f"judge.base_url={address}", "judge.model=m", "judge.retries=0"]


def test_answers_are_judged_by_task_and_all_together(run, bad, tmp_path, capsys):
    assert run(evaluate, f"predictions={bad}", "judge=overlap", "hydra.run.dir=out") == 0
    told = read(tmp_path / "out/judged.json")
    found = {row["task"]: row for row in told["scores"]}
    assert set(found) == {"what", "where", "count", "all"}
    assert found["all"]["count"] == 4
    assert found["all"]["accuracy"]["value"] == 0.75  # "the cup" and "in the prison" share words
    assert found["count"]["score"]["value"] == 5
    verdicts = rows(tmp_path / "out/verdicts.jsonl")
    assert [verdict["item_id"] for verdict in verdicts] == ["q0", "q1", "q2", "q3"]
    said = capsys.readouterr().out
    assert "overlap 2, not comparable" in said
    assert (tmp_path / "out/metrics.json").is_file()


@pytest.mark.parametrize("flipped", [False, True])
def test_two_runs_are_judged_against_each_other(run, good, bad, tmp_path, flipped):
    a, b = (good, bad) if flipped else (bad, good)
    assert run(evaluate, f"compare=[{a},{b}]", "judge=overlap", "hydra.run.dir=out") == 0
    pairs = {row["task"]: row for row in read(tmp_path / "out/judged.json")["pairs"]}
    won, lost = ("lost", "won") if flipped else ("won", "lost")
    assert pairs["all"][won]["value"] == 0.75
    assert pairs["all"][lost]["value"] == 0
    assert pairs["all"]["tied"]["value"] == 0.25
    assert (pairs["all"]["difference"] > 0) is not flipped
    assert (tmp_path / "out/comparison.json").is_file()


def test_video_chatgpts_five_scores_have_a_line_of_their_own(run, good, tmp_path):
    aspects = "aspects=[correctness,detail,context,temporal,consistency]"
    code = run(evaluate, f"predictions={good}", "judge=overlap", aspects, "hydra.run.dir=out")
    assert code == 0
    found = read(tmp_path / "out/judged.json")["scores"]
    whole = {row["aspect"]: row for row in found if row["task"] in ("all", "what")}
    assert {aspect: row["score"]["value"] for aspect, row in whole.items()} == dict.fromkeys(
        ("correctness", "detail", "context", "temporal", "consistency"), 5
    )
    # two questions about one film with one reference are one case of consistency
    assert [row["count"] for row in found if row["aspect"] == "consistency"] == [1]


def test_tasks_are_judged_by_what_is_named_for_them(run, good, tmp_path):
    aspects = "aspects={what: [detail, consistency], count: short}"
    code = run(evaluate, f"predictions={good}", "judge=overlap", aspects, "hydra.run.dir=out")
    assert code == 0
    found = read(tmp_path / "out/judged.json")["scores"]
    assert {(row["task"], row["aspect"]) for row in found} == {
        ("what", "detail"), ("what", "consistency"), ("count", "short"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("aspects=[taste]", "'taste' is unknown; choose of short, correctness"),
        ("aspects={wat: [short]}", "the task wat, of which there is none: what"),
        ("aspects=[]", "names nothing to be judged"),
        ("aspects={count: [consistency]}", "no film with two questions"),
        ("workers=0", "workers must be at least 1"),
        ("judge=overlp", "overlap"),
    ],
)
def test_what_cannot_be_judged_is_told(run, good, setting, told, capsys):
    judge = [] if setting.startswith("judge") else ["judge=overlap"]
    assert run(evaluate, f"predictions={good}", *judge, setting) == 1
    assert told in " ".join(capsys.readouterr().err.split())


def test_one_verdict_that_cannot_be_had_is_a_row_and_a_count(run, good, server, tmp_path, capsys):
    fine = server.says
    server.says = lambda text: "no" if "Where is it put?" in text else fine(text)
    assert run(evaluate, f"predictions={good}", *judge_of(server), "hydra.run.dir=out") == 0
    found = {row["task"]: row for row in read(tmp_path / "out/judged.json")["scores"]}
    assert (found["all"]["count"], found["all"]["failed"]) == (3, 1)
    assert found["where"]["score"] is None
    assert found["all"]["score"]["value"] == 4
    failed = next(v for v in rows(tmp_path / "out/verdicts.jsonl") if v["item_id"] == "q1")
    assert "none of 4 answers" in failed["error"]
    assert "1 verdicts could not be had" in " ".join(capsys.readouterr().out.split())
    # asked again, only that one costs anything
    before = len(server.asked)
    server.says = fine
    assert run(evaluate, f"predictions={good}", *judge_of(server), "hydra.run.dir=out") == 0
    assert ["Where is it put?" in text for text in server.asked[before:]] == [True]
    assert read(tmp_path / "out/judged.json")["scores"][-1]["count"] == 4


def test_verdicts_are_paid_for_once_whatever_run_they_are_of(run, good, bad, server):
    server.says = lambda text: '{"better": "tie", "first": 3, "second": 3}'
    for runs in (f"[{bad},{good}]", f"[{good},{bad}]"):
        assert run(evaluate, f"compare={runs}", *judge_of(server), "workers=4") == 0
    asked = [re.sub(r"\s+", " ", text) for text in server.asked]
    assert len(asked) == len(set(asked)) == 7  # both orders, and one where the answers are equal


def test_a_server_that_is_gone_stops_the_run_and_keeps_what_was_paid_for(
    run, good, server, tmp_path, capsys
):
    assert run(evaluate, f"predictions={good}", *judge_of(server)) == 0
    paid = len(server.asked)
    gone = [*judge_of(server)]
    gone[1] = "judge.base_url=http://127.0.0.1:9/v1"
    assert run(evaluate, f"predictions={good}", *gone) == 0  # all are kept
    assert len(server.asked) == paid
    other = predictions(tmp_path / "other.jsonl", BAD)
    assert run(evaluate, f"predictions={other}", *gone) == 1
    assert "did not answer" in capsys.readouterr().err


def test_a_judge_without_its_address_is_told(run, good, capsys):
    assert run(evaluate, f"predictions={good}", "judge=endpoint", "judge.model=m") == 1
    assert "judge.base_url" in capsys.readouterr().err


def test_json_is_one_line_with_the_judges_numbers(run, good, bad, capsys):
    assert run(evaluate, f"compare=[{bad},{good}]", "judge=overlap", "format=json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["judged"]["pairs"][-1]["task"] == "all"
    assert run(evaluate, f"predictions={good}", "judge=overlap", "format=json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["judged"]["scores"][-1]["accuracy"]["value"] == 1
    assert told["test/what/top1"] == 1


def test_a_run_that_was_shown_nothing_is_compared_with_one_that_saw_the_films(run, good, tmp_path):
    blind = predictions(tmp_path / "blind.jsonl", BAD, shown=False)
    assert run(evaluate, f"compare=[{blind},{good}]", "judge=overlap", "hydra.run.dir=out") == 0
    differences = read(tmp_path / "out/comparison.json")["differences"]
    assert {row["task"] for row in differences} == set(TASKS)
