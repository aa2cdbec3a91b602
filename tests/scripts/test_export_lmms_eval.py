"""The tasks written for lmms-eval, read as it reads them."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import yaml

from benchmark_sets import WRITERS, write_benchmarks
from public_sets import write_public_sets

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from export_lmms_eval import _reader as reader_of
from export_lmms_eval import main
from mmavlm.metrics.lmms_eval import aggregations, answered, row_of


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    films = [folder / f"{name}.mp4" for name in ("film_a", "film_b")]
    for film in films:
        film.touch()
    return write_benchmarks(folder, films)


def read_task(path):
    """A task's yaml with its functions: `!function utils.f` is f of the utils.py beside it."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader, node):
        module, name = node.value.split(".")
        spec = importlib.util.spec_from_file_location(module, path.parent / f"{module}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return getattr(loaded, name)

    Loader.add_constructor("!function", function)
    return yaml.load(path.read_text(), Loader)


@pytest.mark.parametrize("name", WRITERS)
def test_a_task_shows_asks_and_scores_as_mmavlm_does(roots, tmp_path, capsys, name):
    assert main([name, "--root", str(roots[name]), "--to", str(tmp_path)]) == 0
    folder = tmp_path / name
    assert capsys.readouterr().out.strip() == str(folder)
    task = read_task(folder / f"mmavlm_{name}.yaml")
    assert (task["task"], task["dataset_path"]) == (f"mmavlm_{name}", "json")
    assert (task["test_split"], task["output_type"]) == ("test", "generate_until")
    rows = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
    docs = [json.loads(row) for row in rows]
    reader = reader_of(name, [])
    items = reader(roots[name], "test", None)
    assert [task["doc_to_visual"](doc) for doc in docs] == [[str(i.film.source)] for i in items]
    settings = task["lmms_eval_specific_kwargs"]["default"]
    assert [task["doc_to_text"](doc, settings) for doc in docs] == [i.prompt for i in items]
    assert [doc[task["doc_to_target"]] for doc in docs] == [i.target for i in items]
    # every third answer is the truth, others are of all kinds
    said = ["Yes.", "no", "hm", "AB", "B"]
    answers = [item.target if i % 3 else said[i % 5] for i, item in enumerate(items)]
    results = [task["process_results"](d, [a]) for d, a in zip(docs, answers, strict=True)]
    scores = reader.scores(sorted({item.task for item in items}))
    scores.update(items, answers)
    expected = {key.replace("/", "_"): value for key, value in scores.compute().items()}
    assert {entry["metric"] for entry in task["metric_list"]} == set(results[0])
    for entry in task["metric_list"]:
        value = entry["aggregation"]([result[entry["metric"]] for result in results])
        theirs = expected[f"{name}_{entry['metric']}"]
        assert value == theirs or (math.isnan(value) and math.isnan(theirs))
        assert isinstance(entry["higher_is_better"], bool)


def test_a_reading_of_answers_can_be_chosen(roots, tmp_path):
    arguments = ["elv_halluc", "--root", str(roots["elv_halluc"]), "--to", str(tmp_path)]
    assert main([*arguments, "parsing=elv"]) == 0
    assert "'elv'" in (tmp_path / "elv_halluc/utils.py").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [("lvu", "data=lvu is no benchmark"), ("nonsense", "there is no data=nonsense")],
)
def test_a_set_that_is_no_benchmark_is_a_mistake(tmp_path, capsys, name, message):
    write_public_sets(tmp_path, {"train": ["a"], "val": ["b"], "test": []}, frames=12)
    assert main([name, "--root", str(tmp_path), "--to", str(tmp_path / "tasks")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "tasks").exists()


def test_stretches_of_films_are_refused(roots, tmp_path, capsys):
    root = WRITERS["pope"](tmp_path / "cut", [Path(roots["pope"]).parent / "film_a.mp4"])
    path = root / "pope/pope_random.jsonl"
    rows = [{**json.loads(line), "start_s": 1.5} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["pope", "--root", str(root), "--to", str(tmp_path)]) == 1
    assert "does not cut" in capsys.readouterr().err


def test_all_values_of_the_same_rows_are_computed_once_and_of_others_anew(roots, monkeypatch):
    reader = reader_of("pope", [])
    items = reader(roots["pope"], "test", None)
    benchmark = reader.scores(sorted({item.task for item in items}))
    compute, computed = benchmark.compute, []
    monkeypatch.setattr(benchmark, "compute", lambda: computed.append(1) or compute())
    found = aggregations(benchmark, {"right": "all/accuracy", "said_yes": "all/yes_ratio"}, "here")
    true, false = (
        [answered(row_of(item), [item.target if right else "hm"], ["right"])["right"]
         for item in items]
        for right in (True, False)
    )  # fmt: skip
    assert found["right"](true) == 1
    assert 0 < found["said_yes"]([dict(row) for row in true]) < 1
    assert len(computed) == 1
    assert found["right"](false) == 0
    assert found["right"](true) == 1
    assert len(computed) == 3
