"""One step on several processes equals one step on one process with the whole batch."""

import warnings
from dataclasses import replace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from mmavlm.core.batch import Batch
from mmavlm.core.items import Item
from mmavlm.model.contrast_views import Shuffle
from mmavlm.stages import FineTune, OptimizerRecipe, Preference, SemanticAlignment
from ranks import be_rank, spawn_ranks
from support import asking, random_batch, rows_of, tiny_backbone

TARGETS = ("comedy", "action")  # of one length: a rank takes the mean over its own tokens
ROWS = 8
ALIGNMENT = ("stage=semantic_alignment", "fusion=none")
STAGES = {
    "finetune": ("stage=finetune", "fusion=none"),
    "preference": ("stage=finetune", "fusion=none", "alignment=none"),
    "alignment": ALIGNMENT,
    "alignment from a gradient cache": ALIGNMENT,
    "alignment with a rank's own negatives": (*ALIGNMENT, "alignment.gather=false"),
}
PROCESSES = (2, pytest.param(4, marks=pytest.mark.slow))


def whole_batch():
    batch = random_batch((4,) * ROWS, targets=TARGETS * (ROWS // 2))
    return replace(asking(batch, prompt=["what happens?"] * ROWS), task=["open"] * ROWS)


def joined(rows):
    first = rows[0]
    return Batch.questions(
        frames=torch.cat([r.frames for r in rows]),
        frame_mask=torch.cat([r.frame_mask for r in rows]),
        timestamps_s=torch.cat([r.timestamps_s for r in rows]),
        **{
            name: [value for r in rows for value in getattr(r, name)]
            for name in ("prompt", "target", "video_id", "item_id", "task")
        },
    ) if len(rows) > 1 else first  # fmt: skip


def share(rank, processes):
    """The rows of the whole batch that a rank takes."""
    rows = ROWS // processes
    return joined([rows_of(whole_batch(), rows * rank + row) for row in range(rows)])


def build(name):
    backbone = tiny_backbone(*STAGES[name])
    recipe = OptimizerRecipe(lr=1e-2, warmup_steps=0)
    if name.startswith("alignment"):
        chunk = 1 if "cache" in name else None
        return SemanticAlignment(backbone, recipe, grad_cache_chunk=chunk)
    if name == "preference":
        return Preference(backbone, recipe, tasks=["open"], items=items(), film_weight=1.0,
                          film_view=Shuffle())  # fmt: skip
    return FineTune(backbone, recipe, tasks=["open"])


def items():
    """The rows of the whole batch as items; the other target is false of each."""
    batch = whole_batch()
    asked = zip(batch.item_id, batch.conversations, batch.task, strict=True)
    return [Item(item_id=name, conversation=talk, task=task) for name, talk, task in asked]


def step(name, batches, strategy="auto", devices=1):
    """Weights after one gradient step on some batches, and the metrics of validating on them."""
    torch.manual_seed(0)
    stage = build(name)
    # a plain gradient step shows the gradient itself; Adam would hide its scale
    stage.configure_optimizers = lambda: torch.optim.SGD(stage.parameters(), lr=0.1)
    trainer = L.Trainer(
        accelerator="cpu", devices=devices, strategy=strategy, max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0,
        accumulate_grad_batches=len(batches),
    )  # fmt: skip
    loader = DataLoader(batches, batch_size=None)
    trainer.fit(stage, loader, loader)
    weights = {n: p.detach().clone() for n, p in stage.named_parameters() if p.requires_grad}
    return weights, trainer.callback_metrics


def worker(rank, port, name, processes, path):
    be_rank(rank, port, processes)
    strategy = L.pytorch.strategies.DDPStrategy(
        process_group_backend="gloo", find_unused_parameters=True
    )
    warnings.filterwarnings("error", ".*sync_dist=True")
    result = step(name, [share(rank, processes)], strategy, devices=processes)
    if rank == 0:
        torch.save(result, path)


@pytest.fixture(scope="module", params=PROCESSES)
def processes(request):
    """How many there are."""
    return request.param


@pytest.fixture(scope="module", params=list(STAGES))
def results(request, processes, tmp_path_factory):
    """The weights at the start, and what a step leaves on one process and on several."""
    name, path = request.param, tmp_path_factory.mktemp("ranks") / "result.pt"
    spawn_ranks(worker, name, processes, path, ranks=processes)
    start = {n: p for n, p in build(name).named_parameters() if p.requires_grad}
    # without gathering, ranks see what batches whose gradients are accumulated see
    apart = "own negatives" in name
    alone = [share(rank, processes) for rank in range(processes)] if apart else [whole_batch()]
    return start, step(name, alone), torch.load(path, weights_only=True)


@pytest.mark.distributed
def test_a_step_on_several_processes_equals_one_with_the_whole_batch(results):
    start, (one, _), (several, _) = results
    assert any(not torch.equal(value, start[n]) for n, value in one.items())
    for parameter, value in one.items():
        torch.testing.assert_close(several[parameter], value, atol=1e-5, rtol=1e-4, msg=parameter)


@pytest.mark.distributed
def test_metrics_of_several_processes_are_those_of_the_whole_split_without_a_warning(results):
    _, (_, one), (_, several) = results
    # losses are means over the batches of each process, and alignment sees no other batch there
    compared = [name for name in one if name.startswith("val/") and name.count("/") == 2]
    assert compared
    for metric in [*compared, *({"val/accuracy", "val/recall"} & set(one))]:
        torch.testing.assert_close(several[metric], one[metric], equal_nan=True, msg=metric)
