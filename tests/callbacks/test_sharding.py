import lightning as L
import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from mmavlm.callbacks.sharding import FrozenShardsStrategy, frozen_blocks
from mmavlm.core.errors import ConfigError
from mmavlm.stages import FineTune, OptimizerRecipe
from ranks import be_rank, spawn_ranks
from support import random_batch, tiny_backbone

FASTER = ["compile=inductor", "compiler=aot_eager", "activations=recomputed"]


def stack():
    """A frozen stack of two layers, with a small norm, under a trainable head."""
    layers = nn.ModuleList([nn.Linear(20, 20, bias=False) for _ in range(2)])
    body = nn.Sequential(nn.Sequential(*layers), nn.LayerNorm(20)).requires_grad_(False)
    return nn.ModuleDict({"body": body, "head": nn.Linear(20, 1000)})


def test_the_smallest_frozen_modules_of_the_size_are_taken_children_first():
    model = stack()
    assert list(frozen_blocks(model, 400)) == [model.body[0][1], model.body[0][0]]
    assert list(frozen_blocks(model, 800)) == [model.body[0]]
    assert list(frozen_blocks(model, 801)) == [model.body]
    assert list(frozen_blocks(model, 10_000)) == []


def test_what_is_left_of_a_module_is_a_block_if_it_is_large_enough():
    large, *small = (nn.Linear(20, width, bias=False) for width in (40, 15, 15))
    body = nn.Sequential(large, *small).requires_grad_(False)
    assert list(frozen_blocks(body, 500)) == [large, body]


def test_modules_with_something_trainable_or_quantised_stay_whole():
    model = stack()
    model.body[0][0].weight.requires_grad_(True)
    model.body[0][1].weight = nn.Parameter(torch.ones(20, 20).to(torch.int8), requires_grad=False)
    assert list(frozen_blocks(model, 400)) == []


def test_a_shared_weight_counts_once():
    shared = nn.Linear(20, 20, bias=False).requires_grad_(False)
    assert list(frozen_blocks(nn.ModuleList([shared, shared]), 400)) == [shared]


def step(strategy, devices, overrides=()):
    """Weights after one gradient step, and validation losses on both sides of it."""
    torch.manual_seed(0)
    stage = FineTune(
        tiny_backbone("fusion=none", "llm.trainable=false", "qformer.dropout=0", *overrides),
        OptimizerRecipe(lr=1e-2),
        tasks=["genre", "open"],
    )
    # a plain gradient step shows the gradient itself; Adam would hide its scale
    stage.configure_optimizers = lambda: torch.optim.SGD(stage.parameters(), lr=0.1)
    trainer = L.Trainer(
        accelerator="cpu", devices=devices, strategy=strategy, max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip
    loader = DataLoader([random_batch()], batch_size=None)
    trainer.fit(stage, loader, loader)
    during = trainer.callback_metrics["val/text"].item()
    after = trainer.validate(stage, loader, verbose=False)[0]["val/text"]
    trained = {n: p.detach().clone() for n, p in stage.named_parameters() if p.requires_grad}
    sharded = {n: p.to_local().numel() / p.numel() for n, p in stage.named_parameters()
               if isinstance(p, DTensor)}  # fmt: skip
    meshes = {p.device_mesh.shape for p in stage.parameters() if isinstance(p, DTensor)}
    return {"trained": trained, "losses": [during, after], "sharded": sharded, "meshes": meshes}


def worker(rank, port, path, ranks, share, overrides):
    be_rank(rank, port, ranks)
    strategy = FrozenShardsStrategy(
        min_numel=1000, share=share, process_group_backend="gloo", find_unused_parameters=True
    )
    result = step(strategy, ranks, overrides)
    if rank == 0:
        torch.save(result, path)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("ranks", "share", "mesh", "overrides"),
    [(2, "all", (2,), []), (4, 2, (2, 2), []), (2, "all", (2,), FASTER)],
    ids=["shards", "copies", "shards, compiled and recomputed"],
)
def test_shards_train_and_answer_as_the_whole_does(ranks, share, mesh, overrides, tmp_path):
    spawn_ranks(worker, tmp_path / "result.pt", ranks, share, overrides, ranks=ranks)
    two = torch.load(tmp_path / "result.pt", weights_only=True)
    assert two["meshes"] == {mesh}
    one = step("auto", devices=1)
    frozen = ("backbone.vision.encoder.", "backbone.llm.")
    assert all(name.startswith(frozen) for name in two["sharded"])
    assert all(any(name.startswith(part) for name in two["sharded"]) for part in frozen)
    assert all(share == pytest.approx(0.5, abs=0.02) for share in two["sharded"].values())
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert one["trained"].keys() == two["trained"].keys()
    for name, value in one["trained"].items():
        torch.testing.assert_close(two["trained"][name], value, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("share", ["some", 0, -1, 2.0, True])
def test_a_share_that_is_no_number_of_processes_is_refused(share):
    with pytest.raises(ConfigError, match=r"strategy.share=.*all, node, or a number from 1"):
        FrozenShardsStrategy(share=share)


@pytest.mark.parametrize("share", [3, "node"])
def test_processes_that_copies_cannot_share_evenly_are_refused(share, monkeypatch):
    strategy = FrozenShardsStrategy(share=share)
    monkeypatch.setattr(FrozenShardsStrategy, "world_size", 4)
    monkeypatch.setattr(FrozenShardsStrategy, "num_processes", 3)
    with pytest.raises(ConfigError, match=rf"share={share} has 3 processes .* the 4 there are"):
        strategy.mesh()
