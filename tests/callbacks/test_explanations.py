from types import SimpleNamespace

import pytest
from lightning.pytorch.plugins.precision import Precision

from mmavlm.callbacks import ExplainAnswers
from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import Answer
from mmavlm.stages import FineTune, OptimizerRecipe
from support import random_batch, tiny_backbone

TRAINER = SimpleNamespace(is_global_zero=True, precision_plugin=Precision())


def answered(batch, answers, *overrides):
    """A stage that has given these answers to a batch."""
    stage = FineTune(tiny_backbone(*overrides), OptimizerRecipe(), tasks=["genre", "open"]).eval()
    rows = [
        SimpleNamespace(item_id=item, answers=[Answer(text, -1.0)], ranking=[])
        for item, text in zip(batch.item_id, answers, strict=True)
    ]
    stage.predictions.latest = {row.item_id: row for row in rows}
    return stage


def test_the_first_answers_of_each_task_are_explained_and_empty_ones_passed_over():
    batch = random_batch((4, 3, 4, 1, 4), targets=["a"] * 5)  # tasks: genre and open by turns
    stage = answered(batch, ["", "this", "that", "more", "last"])
    callback = ExplainAnswers(per_task=1, stretches=4)
    callback.on_test_start(TRAINER, stage)
    for _ in range(2):
        callback.on_test_batch_end(TRAINER, stage, None, batch, 0)
    assert [(e.task, e.answer) for e in callback.explained] == [("open", "this"), ("genre", "that")]
    assert [len(e.stretches) for e in callback.explained] == [3, 4]  # a film of three frames
    callback.on_test_start(TRAINER, stage)
    assert callback.explained == []


def test_a_model_without_memory_is_tested_and_nothing_of_it_is_explained(caplog):
    batch = random_batch((4,), targets=["a"])
    stage = answered(batch, ["this"], "temporal=concat")
    callback = ExplainAnswers(per_task=1)
    callback.on_test_start(TRAINER, stage)
    callback.on_test_batch_end(TRAINER, stage, None, batch, 0)
    assert callback.explained == []
    assert "no memory to show" in caplog.text


def test_only_the_first_process_explains():
    batch = random_batch((4,), targets=["a"])
    callback = ExplainAnswers(per_task=1)
    other = SimpleNamespace(is_global_zero=False)
    callback.on_test_batch_end(other, answered(batch, ["this"]), None, batch, 0)
    assert callback.explained == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_task": -1}, "per_task=-1; give how many answers"),
        ({"stretches": 1}, "stretches=1; give 2 or more"),
        ({"stretches": -2}, "stretches=-2; give 2 or more"),
    ],
)
def test_settings_that_explain_nothing_sensible_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ExplainAnswers(**settings)
