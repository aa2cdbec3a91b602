"""MovieLLM's comparison from end to end: stories, features, training, judge, report."""

import json

import pytest
from omegaconf import OmegaConf

from mmavlm import cache, evaluate, train
from mmavlm.metrics import read_predictions
from mmavlm.movies import __main__ as movies
from support import composed

BRIEF = ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "trainer.accelerator=cpu",
         "callbacks.progress=null", "data.root=stories"]  # fmt: skip
CATEGORIES = {"who", "where", "what", "why", "order", "count", "temporal"}


def without_shown(name):
    config = composed(f"experiment={name}", "data.root=/data")
    plain = OmegaConf.to_container(config, resolve=False)
    shown = plain["data"]["reader"].pop("show")
    return plain, shown


def test_base_and_ours_differ_in_the_films_alone():
    (base, nothing), (ours, films) = map(without_shown, ("movie_llm_base", "movie_llm_ours"))
    assert base == ours
    assert (nothing, films) == ([], ["film"])


@pytest.mark.slow
def test_stories_become_films_features_answers_verdicts_and_a_report(run, tmp_path, capsys):
    stories = ("kind=stories", "out=stories", "films=10", "fan_out=1,2,6")
    assert run(movies, *stories) == 0
    features = "data.cache=stories/features"
    experiment = "experiment=movie_llm_ours"
    assert run(cache, experiment, "data.root=stories", features, "data.keep_frames=false") == 0
    first = ["experiment=movie_llm_start", *BRIEF, "test=false", "hydra.run.dir=start"]
    assert run(train, *first) == 0
    start = "init.checkpoint=start/checkpoints/last.ckpt"
    base = ["experiment=movie_llm_base", *BRIEF, start, "hydra.run.dir=base"]
    assert run(train, *base) == 0
    ours = [experiment, *BRIEF, start, features, "data.keep_frames=false", "hydra.run.dir=ours"]
    assert run(train, *ours) == 0
    assert run(evaluate, "compare=[base,ours]", "judge=overlap", "hydra.run.dir=compared") == 0
    assert run(evaluate, "predictions=ours", "judge=overlap", "hydra.run.dir=judged") == 0

    rows = read_predictions(tmp_path / "ours/predictions.jsonl")
    asked = [json.loads(r) for r in (tmp_path / "stories/test.jsonl").read_text().splitlines()]
    assert {row.item_id for row in rows} == {row["id"] for row in asked}
    seen = {json.loads(r)["video"] for split in ("train", "val")
            for r in (tmp_path / f"stories/{split}.jsonl").read_text().splitlines()}  # fmt: skip
    assert not seen & {row.video_id for row in rows}
    judged = json.loads((tmp_path / "compared/judged.json").read_text())["pairs"]
    assert {pair["task"] for pair in judged} == CATEGORIES | {"all"}
    assert next(pair for pair in judged if pair["task"] == "all")["count"] == len(asked)
    compared = json.loads((tmp_path / "compared/comparison.json").read_text())
    assert compared["common"] == len(asked)
    page = (tmp_path / "ours/report.html").read_text()
    assert page.count('<article class="card sheet">') == 2  # films of the test split
    assert 'class="evidence"' in page
    assert "Films and what was answered" not in (tmp_path / "base/report.html").read_text()
