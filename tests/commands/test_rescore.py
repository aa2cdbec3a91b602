"""Predictions scored again and two runs compared, as a user types it."""

import json
import shutil
import subprocess
import sys

import pytest

from mmavlm import evaluate
from mmavlm.core.interfaces import Answer
from mmavlm.metrics import (
    CaptionScores,
    Prediction,
    captions,
    read_predictions,
    write_predictions,
)


def scored(name):
    return name.startswith("test/") and name != "test/text"  # the loss needs the model


def read(path):
    return json.loads(path.read_text())


def test_predictions_scored_again_give_the_numbers_of_their_evaluation(
    run, trained, tmp_path, capsys
):
    assert run(evaluate, f"predictions={trained}", "hydra.run.dir=again") == 0
    before = {n: v for n, v in read(trained / "metrics.json").items() if scored(n)}
    assert read(tmp_path / "again/metrics.json") == pytest.approx(before, rel=1e-6)
    assert "genre/top1" in capsys.readouterr().out


def test_captions_scored_again_give_the_numbers_of_their_test(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pycocoevalcap", reason="needs the extra [captions]")
    monkeypatch.setattr(captions, "java", lambda: None)
    metric = CaptionScores()
    rows = []
    for i in range(9):
        caption, references = f"a cat {i % 4}", [f"a cat {i}", "the cat"]
        metric.update([f"i{i}"], [f"v{i // 2}"], [caption], [references])
        rows.append(
            Prediction(f"i{i}", f"v{i // 2}", "caption", "what?", references[0],
                       [Answer(caption, -1.0)], [], references, "caption")
        )  # fmt: skip
    write_predictions(tmp_path / "predictions.jsonl", rows)
    code = run(evaluate, "predictions=predictions.jsonl", "format=json", "hydra.run.dir=again")
    said = capsys.readouterr()
    assert code == 0
    expected = {f"test/caption/{n}": v for n, v in metric.compute().items()}
    values = json.loads(said.out)
    assert values == pytest.approx({**expected, "test/cider_plain": values["test/cider_plain"]})
    assert said.err.count("there is no `java` command") == 1


def worse(folder, trained):
    """A run that answered the first items wrong and the last not at all."""
    rows = read_predictions(trained / "predictions.jsonl")
    wrong = [Answer("nonsense", -1.0)]
    rows[:3] = [Prediction(**{**vars(row), "answers": wrong}) for row in rows[:3]]
    folder.mkdir()
    write_predictions(folder / "predictions.jsonl", rows[:-1])
    return folder


def test_two_runs_are_compared_item_by_item(run, trained, tmp_path, capsys):
    other = worse(tmp_path / "worse", trained)
    code = run(evaluate, f"compare=[{trained},{other}]", "hydra.run.dir=compared", "samples=200")
    assert code == 0
    found = read(tmp_path / "compared/comparison.json")
    items = len(read_predictions(trained / "predictions.jsonl"))
    assert (found["common"], found["only_in_a"], found["only_in_b"]) == (items - 1, 1, 0)
    assert (found["a"], found["b"], found["samples"]) == (str(trained), str(other), 200)
    rows = {f"{row['task']}/{row['score']}": row for row in found["differences"]}
    assert rows["genre/top1"]["difference"] <= 0
    assert rows["genre/rank_top1"]["difference"] == 0
    shown = capsys.readouterr().out
    assert f"{items - 1} items in both runs, 1 in A alone, 0 in B alone" in shown
    assert f"{found['changed']} of {items - 1} answers changed" in " ".join(shown.split())
    assert "rank_top5" in shown
    [top1] = [line for line in shown.splitlines() if line.split()[:1] == ["top1"]]
    assert top1.split()[-1] == str(items - 1), "a row is one line of 80 columns"


def test_rows_that_are_gone_are_told(run, trained, tmp_path, capsys):
    cut = worse(tmp_path / "cut", trained)
    shutil.copy(trained / "metrics.json", cut)
    assert run(evaluate, f"predictions={cut}", "hydra.run.dir=again") == 0
    assert "rows of task genre, of which the run counted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predictions=gone"], "gone does not exist; give the folder of a run that was tested"),
        (["predictions=broken.jsonl"], "broken.jsonl has 1 rows that cannot be used"),
        (["predictions=broken.jsonl"], "line 1: no JSON"),
        (["compare=[RUN]"], "compare takes two runs, such as compare=[runA,runB], got"),
        (["compare=RUN"], "compare takes two runs"),
        (["compare=[RUN,gone]"], "gone does not exist"),
        (["compare=[RUN,RUN]", "samples=0"], "samples must be 1 or more, got 0"),
        (["compare=[RUN,RUN]", "predictions=RUN"], "give either predictions=… or compare="),
        (["predictions=RUN", "rule=last"], "rule='last' is unknown; choose one of whole"),
        (["predictions=RUN", "format=xml"], "format='xml' is unknown; choose table or json"),
        (["predictions=RUN", "checkpoint=a.ckpt"], "checkpoint=… runs a model"),
    ],
)
def test_a_mistake_gets_one_message(run, trained, tmp_path, capsys, arguments, message):
    (tmp_path / "broken.jsonl").write_text("{\n")
    code = run(evaluate, *(text.replace("RUN", str(trained)) for text in arguments))
    error = capsys.readouterr().err
    assert code == 1
    assert message in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_scoring_loads_neither_model_nor_lightning():
    code = "import mmavlm.evaluate, sys; print([m for m in LOADED if m in sys.modules])".replace(
        "LOADED", "('mmavlm.run', 'mmavlm.model.backbone', 'mmavlm.stages', 'lightning')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
