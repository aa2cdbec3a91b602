"""Ranks with unequal numbers of broken videos: none waits for another for ever."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from mmavlm.core.errors import DataError
from mmavlm.data.broken import BrokenBudget
from mmavlm.stages import FineTune, OptimizerRecipe, SemanticAlignment
from ranks import be_rank, spawn_ranks
from support import random_batch, tiny_backbone


class Data(L.LightningDataModule):
    """Three batches; of rank 1 the second has no row left."""

    def __init__(self, rank, max_broken):
        super().__init__()
        self.rank = rank
        self.broken = BrokenBudget(max_broken)
        self.broken.expect("train", [f"v{i}" for i in range(10)])

    def train_dataloader(self):
        whole = [random_batch((4, 4), seed=seed) for seed in range(3)]
        if self.rank == 1:
            empty = whole[1].rows([])
            object.__setattr__(empty, "broken", ("v0: is empty", "v1: is empty"))
            whole[1] = empty
        return DataLoader(whole, batch_size=None)


def build(name):
    recipe = OptimizerRecipe(lr=1e-2, warmup_steps=0)
    if name == "alignment":
        return SemanticAlignment(tiny_backbone("stage=semantic_alignment", "fusion=none"), recipe)
    return FineTune(tiny_backbone("stage=finetune", "fusion=none"), recipe, tasks=["genre", "open"])


def worker(rank, port, name, folder, max_broken):
    be_rank(rank, port)
    stage = build(name)
    trainer = L.Trainer(
        accelerator="cpu", devices=2, max_epochs=1, logger=False, enable_checkpointing=False,
        strategy=L.pytorch.strategies.DDPStrategy(
            process_group_backend="gloo", find_unused_parameters=True
        ),
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    try:
        trainer.fit(stage, datamodule=Data(rank, max_broken))
        said = "finished"
    except DataError as error:
        said = str(error)
    weights = {n: p.detach() for n, p in stage.named_parameters() if p.requires_grad}
    torch.save({"said": said, "weights": weights}, folder / f"{rank}.pt")


def run(name, folder, max_broken):
    """What both ranks say and hold in the end."""
    spawn_ranks(worker, name, folder, max_broken)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.distributed
@pytest.mark.parametrize("name", ["finetune", "alignment"])
def test_a_rank_whose_whole_batch_is_broken_leaves_no_other_waiting(name, tmp_path):
    one, two = run(name, tmp_path, max_broken=1.0)
    assert one["said"] == two["said"] == "finished"
    for parameter, value in one["weights"].items():
        assert torch.equal(two["weights"][parameter], value), parameter


@pytest.mark.distributed
def test_all_ranks_stop_where_one_has_too_many_broken_videos(tmp_path):
    one, two = run("finetune", tmp_path, max_broken=0.0)
    assert "another rank found too many broken videos" in one["said"]
    assert "v0: is empty" in two["said"]
