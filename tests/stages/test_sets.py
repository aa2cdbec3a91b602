"""Metrics of a mix of sets: told for each set as if it were alone, and together."""

from dataclasses import replace

import lightning as L
import pytest
from torch.utils.data import DataLoader

from mmavlm.core.errors import ConfigError
from mmavlm.stages import FineTune, OptimizerRecipe, SemanticAlignment
from support import random_batch, tiny_backbone

SETS = ("films", "qa")
TASKS = ["films/genre", "qa/open"]


def mixed_batch():
    batch = random_batch((4, 2, 3, 4), targets=["comedy", "a ball", "action", "a dog"])
    return replace(batch, task=TASKS * 2)


def validated(stage, batch, tmp_path):
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False,
                        default_root_dir=tmp_path)  # fmt: skip
    [metrics] = trainer.validate(stage, DataLoader([batch], batch_size=None), verbose=False)
    return metrics


def answering(**settings):
    answers = {"num_beams": 1, "num_answers": 1, "max_new_tokens": 2}
    return FineTune(tiny_backbone(), OptimizerRecipe(), tasks=TASKS, **answers, **settings)


def test_accuracy_and_loss_are_told_for_each_set(tmp_path):
    batch = mixed_batch()
    found = validated(answering(sets=SETS), batch, tmp_path)
    assert {"val/films/genre/top1", "val/qa/open/top1"} <= found.keys()
    for name, rows in zip(SETS, ([0, 2], [1, 3]), strict=True):
        alone = validated(answering(), batch.rows(rows), tmp_path)
        assert found[f"val/{name}/text"] == pytest.approx(alone["val/text"], rel=1e-4)
        assert found[f"val/{name}/accuracy"] == alone["val/accuracy"]


def test_recall_and_loss_are_told_for_each_set(tmp_path):
    def aligning(**settings):
        return SemanticAlignment(
            tiny_backbone("stage=semantic_alignment"), OptimizerRecipe(), **settings
        )

    batch = mixed_batch()
    found = validated(aligning(sets=SETS), batch, tmp_path)
    recalls = []
    for name, rows in zip(SETS, ([0, 2], [1, 3]), strict=True):
        alone = validated(aligning(), batch.rows(rows), tmp_path)
        recalls.append(alone["val/recall"])
        assert found[f"val/{name}/recall"] == alone["val/recall"]
        assert found[f"val/{name}/joint/v2t_r1"] == alone["val/joint/v2t_r1"]
        assert found[f"val/{name}/loss"] == pytest.approx(alone["val/loss"], rel=1e-4)
    assert found["val/recall"] == pytest.approx(sum(recalls) / 2)


def test_answers_may_be_compared_by_another_rule_in_each_set():
    stage = answering(sets=SETS, compare={"qa": "first_word"})
    assert [stage.rules[task] for task in TASKS] == ["whole", "first_word"]


def test_a_rule_for_no_set_is_refused():
    with pytest.raises(ConfigError, match=r"stage.compare names \['coin'\], but there are \['film"):
        answering(sets=SETS, compare={"coin": "whole"})
