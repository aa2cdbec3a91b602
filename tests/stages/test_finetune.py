from dataclasses import replace

import lightning as L
import pytest
from torch.utils.data import DataLoader

from mmavlm.stages import FineTune, OptimizerRecipe
from support import random_batch, tiny_backbone


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
    rows = stage.predictions.rows.values()
    assert [row.references for row in rows] == [["comedy", "farce"], ["a long answer"]]
    assert [row.truth for row in rows] == batch.target


def test_answers_are_compared_as_the_stage_says_and_rankings_whole():
    classes = {"genre": ["comedy", "a drama"]}
    stage = FineTune(tiny_backbone(), OptimizerRecipe(), tasks=["genre"], classes=classes,
                     compare="first_word")  # fmt: skip
    rules = {key: metric.compare for key, metric in stage.accuracy.items()}
    assert {key.split("|")[-1]: rule for key, rule in rules.items()} == {
        "generated": "first_word",
        "ranked": "whole",
    }
