"""Models of ours in lmms-eval, on a task of a folder."""

import json
from pathlib import Path

import pytest
from PIL import Image

import mmavlm

lmms_eval = pytest.importorskip("lmms_eval", reason="lmms-eval is not installed beside mmavlm")

from mmavlm.core.errors import ConfigError, DataError  # noqa: E402
from mmavlm.loaded.harness import Mmavlm, conversation_of, manifest  # noqa: E402

TASK = """\
task: own_films
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
process_results: !function utils.process_results
generation_kwargs: {max_new_tokens: 4, temperature: 0, num_beams: 1, do_sample: false}
metric_list:
  - {metric: right, aggregation: mean, higher_is_better: true}
"""
UTILS = """\
def doc_to_visual(doc): return [doc["video"]]
def doc_to_text(doc, lmms_eval_specific_kwargs=None): return doc["question"]
def process_results(doc, results): return {"right": float(results[0] == doc["answer"])}
"""


def test_a_model_answers_a_task_as_it_answers_in_python(trained, films, tmp_path):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    model = mmavlm.load(trained, device="cpu")
    clips = sorted((films / "lvu/videos").glob("*.mp4"))[:3]
    asked = "what is the genre of the movie?"
    said = [
        model.chat(**{"stage.max_new_tokens": 4, "num_beams": 1}).show(clip).say(asked).text
        for clip in clips
    ]
    rows = [
        {"video": str(clip), "question": asked, "answer": text if number else "something else"}
        for number, (clip, text) in enumerate(zip(clips, said, strict=True))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "own.yaml").write_text(TASK % (tmp_path / "rows.jsonl"))
    (tmp_path / "utils.py").write_text(UTILS)
    found = simple_evaluate(
        Mmavlm(str(trained), device="cpu"),
        tasks=["own_films"],
        task_manager=TaskManager(include_path=str(tmp_path)),
        bootstrap_iters=0,
    )
    assert found["results"]["own_films"]["right,none"] == pytest.approx(2 / 3)
    assert [s["filtered_resps"][0] for s in found["samples"]["own_films"]] == said


def test_lmms_eval_finds_the_model_by_its_entry_point():
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    lines = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'mmavlm = "{manifest.__module__}:{manifest.__name__}"' in lines
    registry = ModelRegistryV2()
    registry.register_manifest(manifest())
    assert registry.get_model_class("mmavlm") is Mmavlm


def test_messages_with_pictures_in_memory_and_stretches_of_films_are_read(tmp_path):
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
        {"role": "user", "content": [
            {"type": "image", "url": Image.new("RGBA", (8, 8))},
            {"type": "video", "url": "a.mp4", "start_time": 1.5, "end_time": 2.0},
            {"type": "text", "text": "which?"},
        ]},
    ]  # fmt: skip
    talk = conversation_of(messages, tmp_path)
    picture, film = talk.media
    assert (picture.kind, picture.source.parent) == ("picture", tmp_path)
    assert (film.kind, film.start_s, film.end_s) == ("film", 1.5, 2.0)
    assert [turn.text for turn in talk.turns] == ["be brief", "which?"]


@pytest.mark.parametrize("shown", [b"bytes", "https://x.org/a.mp4", None])
def test_what_cannot_be_shown_is_named(tmp_path, shown):
    with pytest.raises(DataError, match=type(shown).__name__):
        conversation_of([{"role": "user", "content": [{"type": "video", "url": shown}]}], tmp_path)


def test_several_questions_at_once_are_refused(trained):
    with pytest.raises(ConfigError, match="batch_size=4"):
        Mmavlm(str(trained), batch_size=4)
