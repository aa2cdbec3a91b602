from dataclasses import replace

import lightning as L
import pytest
from torch.utils.data import DataLoader

from mmavlm.core.errors import ConfigError
from mmavlm.metrics import captions
from mmavlm.stages import FineTune, OptimizerRecipe
from support import asking, random_batch, tiny_backbone


@pytest.fixture
def stage():
    return FineTune(tiny_backbone(), OptimizerRecipe(), tasks=["genre", "open"], num_beams=1,
                    num_answers=1, max_new_tokens=2)  # fmt: skip


@pytest.fixture
def trainer(tmp_path):
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                     enable_progress_bar=False, enable_model_summary=False,
                     default_root_dir=tmp_path)  # fmt: skip


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_loss_of_a_split_goes_by_the_name_of_the_same_term_in_training(stage, trainer, split):
    batch = random_batch()
    evaluate = {"val": trainer.validate, "test": trainer.test}[split]
    [metrics] = evaluate(stage, DataLoader([batch], batch_size=None), verbose=False)
    term = stage.eval().losses(batch)["text"]
    assert metrics[f"{split}/text"] == pytest.approx(term.item(), rel=1e-5)
    assert f"{split}/loss" not in metrics


def test_predictions_hold_the_references_of_their_item(stage, trainer):
    batch = replace(random_batch(), references=[("comedy", "farce"), ("a long answer",)])
    trainer.test(stage, DataLoader([batch], batch_size=None), verbose=False)
    rows = list(stage.predictions.read())
    assert [row.references for row in rows] == [["comedy", "farce"], ["a long answer"]]
    assert [row.truth for row in rows] == batch.target


def test_answers_are_compared_as_the_stage_says_and_rankings_whole():
    classes = {"genre": ["comedy", "a drama"]}
    stage = FineTune(tiny_backbone(), OptimizerRecipe(), tasks=["genre"], classes=classes,
                     compare="first_word")  # fmt: skip
    metrics = {split: scores.metrics for split, scores in stage.scores.items()}
    assert [metric.compare for metric in metrics["test"]] == ["first_word", "whole"]


def test_captions_have_scores_of_captions_beside_tasks_with_accuracy(trainer, monkeypatch):
    pytest.importorskip("pycocoevalcap", reason="needs the extra [captions]")
    monkeypatch.setattr(captions, "java", lambda: None)
    compare = {"open": "caption"}
    stage = FineTune(tiny_backbone(), OptimizerRecipe(), tasks=["genre", "open"], num_beams=1,
                     num_answers=1, max_new_tokens=2, compare=compare)  # fmt: skip
    batch = replace(random_batch((4, 2, 3, 1), targets=["comedy", "a long answer"] * 2),
                    references=[("comedy",), ("a long answer", "an answer")] * 2)  # fmt: skip
    loader = DataLoader([batch], batch_size=None)
    [validated] = trainer.validate(stage, loader, verbose=False)
    [tested] = trainer.test(stage, loader, verbose=False)
    assert {"val/cider_plain", "val/accuracy", "val/open/cider_plain_low"} < validated.keys()
    assert {"test/open/bleu4_plain", "test/open/rouge_l_plain", "test/genre/top1"} < tested.keys()
    assert not {"test/open/top1", "test/genre/cider_plain", "test/open/cider"} & tested.keys()
    assert [row.compare for row in stage.predictions.read()] == ["whole", "caption"] * 2


def test_what_cannot_be_scored_is_told_once_when_the_stage_is_built(monkeypatch, caplog):
    monkeypatch.setattr(captions, "java", lambda: None)
    settings = {"tasks": ["open"], "monitor": "val/cider_plain"}
    FineTune(tiny_backbone(), OptimizerRecipe(), compare="caption", **settings)
    FineTune(tiny_backbone(), OptimizerRecipe(), **settings)
    assert len(caplog.records) == 1
    assert "left out" in caplog.text


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("num_beams", "x", "a whole number, got 'x'"),
        ("num_answers", 0, "at least 1, got 0"),
        ("align_weight", -1.0, "at least 0, got -1.0"),
    ],
)
def test_numbers_that_count_nothing_are_refused(name, value, wanted):
    with pytest.raises(ConfigError, match=f"stage.{name} must be {wanted}"):
        FineTune(tiny_backbone(), OptimizerRecipe(), tasks=["open"], **{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compare": "last"}, r"stage\.compare='last' is unknown; choose one of whole, first_word"),
        ({"compare": {"open": "last"}}, r"stage\.compare\.open='last' is unknown"),
        (
            {"compare": {"plot": "whole"}},
            r"stage\.compare names \['plot'\], but there are \['open'\]",
        ),
        ({"compare": "caption"}, r"captions have no accuracy; set stage\.monitor=val/cider_plain"),
    ],
)
def test_a_comparison_that_fits_no_task_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FineTune(tiny_backbone(), OptimizerRecipe(), tasks=["open"], **settings)


@pytest.mark.parametrize(
    ("fit_classes", "given", "longest", "told"),
    [
        (True, 3, 5, ["max_new_tokens raised from 3 to 5"]),
        (True, 5, 5, []),
        (False, 3, 3, ["max_new_tokens=3 cuts generated answers"]),
        (False, 4, 4, []),  # in full, if without its end
    ],
)
def test_answers_grow_to_the_longest_class_if_classes_are_to_fit(
    fit_classes, given, longest, told, caplog
):
    backbone, name = tiny_backbone(), "movie movie movie movie"
    assert backbone.llm.answer_length(name) == 5
    with caplog.at_level("INFO", logger="mmavlm.stages.answering"):
        stage = FineTune(backbone, OptimizerRecipe(), tasks=["genre"], max_new_tokens=given,
                         classes={"genre": ["movie", name]}, fit_classes=fit_classes)  # fmt: skip
    assert (stage.generation.max_new_tokens, stage.run["max_new_tokens"]) == (longest, longest)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"stage.{line}" for line in told
    ]


def test_a_suffix_stands_behind_each_question_of_an_evaluation_and_none_of_training():
    settings = {"tasks": ["genre", "open"], "num_beams": 1, "num_answers": 1}
    careful = FineTune(tiny_backbone(), OptimizerRecipe(), prompt_suffix="Be careful.", **settings)
    plain = FineTune(tiny_backbone(), OptimizerRecipe(), **settings)
    batch = random_batch()
    longer = asking(batch, prompt=[f"{prompt} Be careful." for prompt in batch.prompt])
    (loss, found), (other, expected) = careful.eval().answer(batch), plain.eval().answer(longer)
    assert [row.prompt for row in found] == longer.prompt
    assert [row.answers for row in found] == [row.answers for row in expected]
    assert loss == other
    assert careful.losses(batch)["text"] == plain.losses(batch)["text"] != loss


def test_answers_of_an_evaluation_can_be_drawn():
    settings = {"tasks": ["genre", "open"], "num_beams": 1, "num_answers": 1, "max_new_tokens": 4}
    batch, said = random_batch(), {}
    for name, more in {"greedy": {}, "drawn": {"temperature": 3.0}}.items():
        stage = FineTune(tiny_backbone(), OptimizerRecipe(), **settings, **more).eval()
        first, again = ([a.text for r in stage.answer(batch)[1] for a in r.answers] for _ in "12")
        assert first == again, "draws depend on the seed alone"
        said[name] = first
    assert said["greedy"] != said["drawn"]
    with pytest.raises(ConfigError, match=r"temperature=3.0 draws one answer, and num_beams=5"):
        FineTune(tiny_backbone(), OptimizerRecipe(), tasks=["open"], temperature=3.0)
