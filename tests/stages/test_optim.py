import math
from itertools import pairwise

import lightning as L
import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from mmavlm.core.errors import ConfigError
from mmavlm.stages import OptimizerRecipe
from mmavlm.stages.base import Stage
from mmavlm.stages.optim import parameter_groups


def lr_course(recipe, total, epoch):
    model = nn.Linear(2, 2)
    optimizer, schedule = recipe.build(
        model.named_parameters(), total_steps=total, epoch_steps=epoch
    )
    course = []
    for _ in range(total):
        course.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return course


def test_the_rate_warms_up_linearly_and_follows_a_cosine_to_zero():
    course = lr_course(OptimizerRecipe(lr=2.0, warmup_steps=4), total=20, epoch=10)
    expected = [2 * t / 4 for t in range(4)]
    expected += [1 + math.cos(math.pi * (t - 4) / 16) for t in range(4, 20)]
    assert course == pytest.approx(expected)


def test_without_floors_the_schedule_is_transformers_own_bit_for_bit():
    for warmup, total in ((4, 20), (0, 7), (7, 7), (1, 1), (333, 1000)):
        recipe = OptimizerRecipe(lr=0.7, warmup_steps=warmup)
        optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.7)
        schedule = get_cosine_schedule_with_warmup(optimizer, warmup, total)
        expected = []
        for _ in range(total):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert lr_course(recipe, total=total, epoch=total) == expected


def test_the_rate_goes_from_the_warm_up_s_first_to_the_peak_to_the_least():
    recipe = OptimizerRecipe(lr=1e-4, warmup_steps=10, warmup_lr=1e-6, min_lr=8e-5)
    course = lr_course(recipe, total=51, epoch=25)
    steps = [(b - a) for a, b in pairwise(course[:11])]
    assert (course[0], max(course), course[10]) == pytest.approx((1e-6, 1e-4, 1e-4))
    assert steps == pytest.approx([9.9e-6] * 10)
    assert course[10:] == sorted(course[10:], reverse=True)
    assert course[31] < 9e-5 < course[30]  # halfway down
    assert 8e-5 < course[-1] < 8.01e-5


@pytest.mark.parametrize("name", ["min_lr", "warmup_lr"])
def test_a_floor_above_the_peak_is_refused(name):
    with pytest.raises(ConfigError, match=rf"optimizer\.{name}=0.2 is above optimizer\.lr=0.1"):
        OptimizerRecipe(lr=0.1, **{name: 0.2})


def test_warm_up_ends_with_the_first_epoch():
    course = lr_course(OptimizerRecipe(lr=1.0, warmup_steps=1000), total=20, epoch=5)
    assert max(course) == course[5] == pytest.approx(1.0)


class OneWeight(Stage):
    """The stage's optimizer over a model that is nothing but a weight."""

    def __init__(self, recipe):
        super().__init__(nn.Linear(1, 1), recipe)

    def training_step(self, batch, batch_idx):
        return self.backbone(batch).sum()


@pytest.mark.parametrize(
    "until",
    [{"max_epochs": 2}, {"max_epochs": 20, "max_steps": 2}, {"max_epochs": -1, "max_steps": 2}],
)
@pytest.mark.parametrize(("accumulate", "epoch_steps"), [(1, 6), (2, 3)])
def test_an_epoch_is_that_of_the_loader_however_long_training_goes_on(
    tmp_path, until, accumulate, epoch_steps
):
    stage = OneWeight(OptimizerRecipe(lr=1.0, warmup_steps=1000))
    rates = []
    stage.on_train_batch_start = lambda *_: rates.append(stage.optimizers().param_groups[0]["lr"])
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False, **until,
                        accumulate_grad_batches=accumulate, default_root_dir=tmp_path)  # fmt: skip
    trainer.fit(stage, torch.ones(6, 1, 1))
    assert rates[accumulate] == pytest.approx(1 / epoch_steps)


def test_matrices_decay_and_vectors_do_not_and_frozen_ones_are_left_out():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Embedding(4, 3))
    model[2].requires_grad_(False)
    decay, keep = parameter_groups(model.named_parameters(), 0.05)
    assert decay["weight_decay"] == 0.05
    assert [p.shape for p in decay["params"]] == [(3, 3)]
    assert keep["weight_decay"] == 0.0
    assert len(keep["params"]) == 3


def test_the_recipe_is_adamw_with_its_betas():
    optimizer, _ = OptimizerRecipe().build(
        nn.Linear(2, 2).named_parameters(), total_steps=2, epoch_steps=1
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("wrong", [{"lr": "fast"}, {"weight_decay": -0.1}, {"warmup_steps": None}])
def test_what_is_no_rate_is_named(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"optimizer\.{name} must be a number"):
        OptimizerRecipe(**wrong)


def test_one_kernel_moves_weights_as_many_small_ones_do():
    torch.manual_seed(0)
    ours, plain = nn.Linear(7, 5), nn.Linear(7, 5)
    plain.load_state_dict(ours.state_dict())
    optimizer, _ = OptimizerRecipe(lr=0.1).build(
        ours.named_parameters(), total_steps=9, epoch_steps=0
    )
    groups = parameter_groups(plain.named_parameters(), 0.05)
    reference = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.999))
    for _ in range(5):
        for parameter, other in zip(ours.parameters(), plain.parameters(), strict=True):
            parameter.grad = torch.randn_like(parameter)
            other.grad = parameter.grad.clone()
        optimizer.step()
        reference.step()
    for parameter, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-5, atol=1e-6)
