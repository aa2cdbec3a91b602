"""One step on two processes equals one step on one process with the whole batch."""

import os
import socket
import warnings

import lightning as L
import pytest
import torch
import torch.multiprocessing as mp
from torch.utils.data import DataLoader

from mmavlm.batch import VideoTextBatch
from mmavlm.stages import FineTune, OptimizerRecipe, SemanticAlignment
from support import random_batch, rows_of, tiny_backbone

TARGETS = ("comedy", "action", "romance", "a long answer")
STAGES = {
    "finetune": "stage=finetune",
    "alignment": "stage=semantic_alignment",
    "alignment from a gradient cache": "stage=semantic_alignment",
}


def whole_batch():
    batch = random_batch((4, 4, 4, 4), targets=TARGETS)
    return VideoTextBatch(
        frames=batch.frames, frame_mask=batch.frame_mask, timestamps_s=batch.timestamps_s,
        prompt=["what happens?"] * 4, target=["comedy"] * 2 + ["action"] * 2,
        video_id=batch.video_id, item_id=batch.item_id, task=["open"] * 4,
    )  # fmt: skip


def joined(rows):
    first = rows[0]
    return VideoTextBatch(
        frames=torch.cat([r.frames for r in rows]),
        frame_mask=torch.cat([r.frame_mask for r in rows]),
        timestamps_s=torch.cat([r.timestamps_s for r in rows]),
        **{
            name: [value for r in rows for value in getattr(r, name)]
            for name in ("prompt", "target", "video_id", "item_id", "task")
        },
    ) if len(rows) > 1 else first  # fmt: skip


def build(name):
    backbone = tiny_backbone(STAGES[name], "fusion=none")
    recipe = OptimizerRecipe(lr=1e-2, warmup_steps=0)
    if name.startswith("alignment"):
        chunk = 1 if "cache" in name else None
        return SemanticAlignment(backbone, recipe, grad_cache_chunk=chunk)
    return FineTune(backbone, recipe, tasks=["open"])


def step(name, batch, strategy, devices):
    """Weights after one gradient step on a batch, and the metrics of validating on it."""
    torch.manual_seed(0)
    stage = build(name)
    # a plain gradient step shows the gradient itself; Adam would hide its scale
    stage.configure_optimizers = lambda: torch.optim.SGD(stage.parameters(), lr=0.1)
    trainer = L.Trainer(
        accelerator="cpu", devices=devices, strategy=strategy, max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip
    loader = DataLoader([batch], batch_size=None)
    trainer.fit(stage, loader, loader)
    weights = {n: p.detach().clone() for n, p in stage.named_parameters() if p.requires_grad}
    return weights, trainer.callback_metrics


def worker(rank, name, port, path):
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "NODE_RANK": "0", "LOCAL_RANK": str(rank), "RANK": str(rank),
    }  # fmt: skip
    torch.set_num_threads(1)
    batch = whole_batch()
    mine = joined([rows_of(batch, 2 * rank), rows_of(batch, 2 * rank + 1)])
    strategy = L.pytorch.strategies.DDPStrategy(
        process_group_backend="gloo", find_unused_parameters=True
    )
    warnings.filterwarnings("error", ".*sync_dist=True")
    result = step(name, mine, strategy, devices=2)
    if rank == 0:
        torch.save(result, path)


@pytest.fixture(scope="module", params=list(STAGES))
def results(request, tmp_path_factory):
    """The weights at the start, and what a step leaves on one process and on two."""
    name, path = request.param, tmp_path_factory.mktemp("two") / "result.pt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, (name, port, path), nprocs=2)
    start = {n: p for n, p in build(name).named_parameters() if p.requires_grad}
    one = step(name, whole_batch(), "auto", devices=1)
    return start, one, torch.load(path, weights_only=True)


@pytest.mark.distributed
def test_a_step_on_two_processes_equals_one_with_the_whole_batch(results):
    start, (one, _), (two, _) = results
    assert any(not torch.equal(value, start[n]) for n, value in one.items())
    for parameter, value in one.items():
        torch.testing.assert_close(two[parameter], value, atol=1e-5, rtol=1e-4, msg=parameter)


@pytest.mark.distributed
def test_metrics_of_two_processes_are_those_of_the_whole_split_without_a_warning(results):
    _, (_, one), (_, two) = results
    # losses are means over the batches of each process, and alignment sees no other batch there
    compared = [name for name in one if name.startswith("val/") and name.count("/") == 2]
    assert compared
    for metric in [*compared, *({"val/accuracy", "val/recall"} & set(one))]:
        torch.testing.assert_close(two[metric], one[metric], equal_nan=True, msg=metric)
