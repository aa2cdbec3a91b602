"""Group DRO: against a slow restatement, on ranks, through a checkpoint."""

import math
from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from mmavlm.core.errors import CheckpointError, ConfigError, DataError
from mmavlm.core.items import Item
from mmavlm.stages import FineTune, GroupDRO, OptimizerRecipe
from ranks import be_rank, spawn_ranks
from support import random_batch, tiny_backbone

TASKS = ["absent"] * 5 + ["present"] * 2 + ["far"]
SIZES = {"absent": 5, "far": 1, "present": 2}


def item(number, task, answer="no"):
    return Item.question(
        video_id="f", source=Path("f.mp4"), prompt="is it?", target=answer,
        item_id=f"i{number}", task=task,
    )  # fmt: skip


ITEMS = [item(number, task) for number, task in enumerate(TASKS)]


def batch_of(numbers):
    rows = len(numbers)
    batch = random_batch((1,) * rows, targets=["no"] * rows)
    return replace(batch, item_id=[f"i{n}" for n in numbers], task=[TASKS[n] for n in numbers])


def group_dro(**settings):
    made = GroupDRO(**settings)
    made.take(ITEMS)
    return made


BATCHES = [[0, 1, 5, 7], [2, 2, 3], [6, 5, 7, 0, 4], [1, 7]]


def losses_of(numbers):
    generator = torch.Generator().manual_seed(sum(numbers))
    return 3 * torch.rand(len(numbers), generator=generator)


def restated(step_size, adjustment):
    """The paper's algorithm, one group after the other: losses, and weights at the end."""
    weights, found = dict.fromkeys(SIZES, 1 / 3), []
    for numbers in BATCHES:
        losses, means = losses_of(numbers).tolist(), {}
        for group, size in SIZES.items():
            own = [loss for n, loss in zip(numbers, losses, strict=True) if TASKS[n] == group]
            if own:
                means[group] = sum(own) / len(own)
                adjusted = means[group] + adjustment / math.sqrt(size)
                weights[group] *= math.exp(step_size * adjusted)
        total = sum(weights.values())
        weights = {group: weight / total for group, weight in weights.items()}
        found.append(sum(weights[group] * mean for group, mean in means.items()))
    return found, weights


@pytest.mark.parametrize(("step_size", "adjustment"), [(0.5, 0.0), (0.1, 2.0), (0.0, 3.0)])
def test_steps_are_those_of_the_algorithm(step_size, adjustment):
    weigh = group_dro(step_size=step_size, adjustment=adjustment)
    found = [weigh(losses_of(numbers), batch_of(numbers))["text"].item() for numbers in BATCHES]
    losses, weights = restated(step_size, adjustment)
    assert found == pytest.approx(losses, rel=1e-5)
    assert weigh.weights.tolist() == pytest.approx(list(weights.values()), rel=1e-5)
    assert weigh.weights.sum().item() == pytest.approx(1)


def test_without_a_step_the_loss_is_the_plain_mean_of_the_groups():
    losses = torch.tensor([1.0, 3.0, 5.0, 6.0])  # absent, absent, present, far
    told = group_dro(step_size=0)(losses, batch_of(BATCHES[0]))
    assert told["text"].item() == pytest.approx((2 + 5 + 6) / 3)
    assert [told[f"weight/{group}"].item() for group in SIZES] == pytest.approx([1 / 3] * 3)


def test_a_large_step_leaves_the_loss_of_the_worst_group_and_its_gradient_alone():
    losses = torch.tensor([1.0, 3.0, 5.0, 6.0], requires_grad=True)
    group_dro(step_size=100)(losses, batch_of(BATCHES[0]))["text"].backward()
    torch.testing.assert_close(losses.grad, torch.tensor([0.0, 0.0, 0.0, 1.0]))


def test_rows_that_teach_nothing_are_of_no_group():
    batch, losses = batch_of(BATCHES[0]), torch.tensor([1.0, 5.0, 6.0])
    talks = list(batch.conversations)
    talks[1] = talks[1].asked
    told = group_dro(step_size=0)(losses, replace(batch, conversations=talks))
    assert told["text"].item() == pytest.approx((1 + 5 + 6) / 3)


def rank_worker(rank, port, ranks, path):
    be_rank(rank, port, ranks)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks
    )
    torch.save(weighed(rank, ranks), f"{path}.{rank}")
    torch.distributed.destroy_process_group()


def weighed(rank=0, ranks=1):
    """Losses and weights of some steps, and the gradient of a factor of all losses."""
    weigh, factor, values = group_dro(step_size=0.3), torch.ones(len(TASKS)), []
    factor.requires_grad_()
    for numbers in ([0, 1, 5, 7], [2, 2, 3, 6]):
        own = numbers[rank::ranks]
        losses = losses_of(numbers)[rank::ranks] * factor[own]
        text = weigh(losses, batch_of(own))["text"]
        text.backward()
        values.append(text.detach())
    return torch.stack(values), weigh.weights, factor.grad


@pytest.mark.distributed
def test_ranks_have_equal_weights_and_losses_and_gradients_whose_mean_is_that_of_one(tmp_path):
    spawn_ranks(rank_worker, 2, tmp_path / "found", ranks=2)
    found = [torch.load(tmp_path / f"found.{rank}", weights_only=True) for rank in range(2)]
    values, weights, gradient = weighed()
    for own in found:
        torch.testing.assert_close(own[0], values)
        torch.testing.assert_close(own[1], weights)
    torch.testing.assert_close((found[0][2] + found[1][2]) / 2, gradient)


class Films(L.LightningDataModule):
    """Batches of the items, as a datamodule that knows them gives them."""

    def items(self, split):
        return ITEMS

    def train_dataloader(self):
        return DataLoader([batch_of(numbers) for numbers in BATCHES], batch_size=None)


class KeepFirstEpoch(L.Callback):
    """Leave a checkpoint of the end of the first epoch."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def train(path, *, resumed=False):
    torch.manual_seed(0)
    stage = FineTune(tiny_backbone(), OptimizerRecipe(lr=1e-3, warmup_steps=0), tasks=[*SIZES],
                     group_loss=GroupDRO(step_size=0.5))  # fmt: skip
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False, max_epochs=2,
                        callbacks=[] if resumed else [KeepFirstEpoch(path)],
                        default_root_dir=path.parent)  # fmt: skip
    trainer.fit(stage, datamodule=Films(), ckpt_path=path if resumed else None, weights_only=True)
    return trainer, stage


def test_a_run_that_goes_on_from_a_checkpoint_has_the_weights_of_one_that_never_stopped(tmp_path):
    logged, whole = train(tmp_path / "half.ckpt")
    _, again = train(tmp_path / "half.ckpt", resumed=True)
    weights = whole.group_loss.weights
    assert weights.tolist() != pytest.approx([1 / 3] * 3, abs=0.01)
    assert torch.equal(again.group_loss.weights, weights)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert logged.callback_metrics["train/weight/far"] == weights[1]


def test_weights_of_other_groups_are_refused():
    stored = group_dro().state_dict()
    other = GroupDRO(groups="answer")
    other.take([item(0, "a", "yes"), item(1, "a", "no")])
    with pytest.raises(CheckpointError, match=r"weights of the groups .*'absent'.* are of"):
        other.load_state_dict(stored)


@pytest.mark.parametrize(
    ("settings", "items", "complaint"),
    [
        ({"step_size": -1}, ITEMS, r"stage\.group_loss\.step_size must be at least 0"),
        ({"adjustment": "x"}, ITEMS, r"stage\.group_loss\.adjustment must be a number"),
        ({"groups": []}, ITEMS, r"stage\.group_loss\.groups is empty"),
        ({"groups": "answer"}, ITEMS, "have one answer alone, such as 'no'"),
        ({"groups": ["scene"]}, ITEMS, "by 'scene', which item 'i0' does not have"),
        ({}, [item(1, "a"), item(1, "b")], "two training items have the name 'i1'"),
    ],
)
def test_what_cannot_be_weighed_is_named(settings, items, complaint):
    with pytest.raises((ConfigError, DataError), match=complaint):
        GroupDRO(**settings).take(items)


def test_a_trainer_without_a_datamodule_is_refused(tmp_path):
    stage = FineTune(tiny_backbone(), OptimizerRecipe(), tasks=["a"], group_loss=GroupDRO())
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, default_root_dir=tmp_path)  # fmt: skip
    with pytest.raises(ConfigError, match="asks a datamodule for the groups"):
        trainer.fit(stage, DataLoader([batch_of([0, 5])], batch_size=None))
