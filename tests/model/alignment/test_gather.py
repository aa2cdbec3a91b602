import copy
from itertools import product

import pytest
import torch
import torch.distributed as dist
from bag_of_words import BagOfWords
from torch.nn.parallel import DistributedDataParallel

from mmavlm.model.alignment import (
    Aligned,
    HardNegatives,
    MultiLevelAlignment,
    SigmoidLoss,
    Temperature,
    equal_texts_info_nce,
    info_nce,
    symmetric_info_nce,
)
from mmavlm.model.alignment.gather import RankRows
from mmavlm.model.alignment.hard_negatives import padded
from ranks import be_rank, spawn_ranks

DV, D = 6, 5
LOSSES = {
    "info_nce": info_nce,
    "symmetric": symmetric_info_nce,
    "equal_texts": equal_texts_info_nce,
    "sigmoid": SigmoidLoss(bias=-1.0).double(),
}
SPLITS = {"equal": (4, 4), "uneven": (6, 2)}
HARD = {
    f"{of}-{sides}": HardNegatives(of, sides) for of in ("own", "all") for sides in ("film", "both")
}


def build(loss, hard_negatives=None) -> MultiLevelAlignment:
    torch.manual_seed(0)
    temperature = Temperature(0.2, learnable=True)
    # copied, or the cases would add up their gradients in one bias
    loss = copy.deepcopy(loss)
    return MultiLevelAlignment(
        BagOfWords(), DV, D, embed_dim=8, loss=loss, temperature=temperature,
        hard_negatives=hard_negatives,
    ).double()  # fmt: skip


def batch():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(8, 3, 4, DV, generator=generator, dtype=torch.double)
    outputs = torch.randn(8, 3, 2, D, generator=generator, dtype=torch.double)
    mask = torch.arange(3) < torch.tensor([3, 1, 2, 3, 3, 2, 1, 3])[:, None]
    return tokens, outputs, mask, ["a cat", "a dog", "b", "a cat", "c d", "b", "e f", "a dog"]


def part_of(rows: slice):
    *films, texts = batch()
    return Aligned(*(part[rows] for part in films)), texts[rows]


def false_of(rows: slice):
    """Texts that are not true of the films: more of some than of others, of the last three none."""
    false = [["a cow", "b"], [], ["a cat", "c", "e f"], [], ["a dog"], [], [], []]
    return padded(false[rows])


def step(model, rows: slice, *, false: bool = False):
    """Losses by level, and gradients by name, of some rows of the batch."""
    losses = model(*part_of(rows), *([false_of(rows)] if false else []))
    torch.stack(list(losses.values())).sum().backward()
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    gradients = {name: p.grad for name, p in plain.named_parameters()}
    return {level: loss.item() for level, loss in losses.items()}, gradients


def run_rank(rank: int, port: int, folder: str):
    be_rank(rank, port)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results = {}
    for split, sizes in SPLITS.items():
        rows = slice(0, sizes[0]) if rank == 0 else slice(sizes[0], None)
        for name, loss in LOSSES.items():
            results[split, name] = step(DistributedDataParallel(build(loss)), rows)
        for (name, loss), (kind, hard) in product(LOSSES.items(), HARD.items()):
            model = DistributedDataParallel(build(loss, hard))
            results[split, name, kind] = step(model, rows, false=True)
    alone = build(info_nce).eval()
    results["eval"] = {k: v.item() for k, v in alone(*part_of(slice(3))).items()}
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    spawn_ranks(run_rank, str(folder))
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.distributed
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_equal_one_process_with_the_whole_batch(ranks, split, name):
    expected = step(build(LOSSES[name]), slice(None))
    assert_alike(expected, [rank[split, name] for rank in ranks])


@pytest.mark.distributed
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_equal_one_process_where_films_have_false_texts(ranks, split, kind, name):
    expected = step(build(LOSSES[name], HARD[kind]), slice(None), false=True)
    assert_alike(expected, [rank[split, name, kind] for rank in ranks])


def assert_alike(expected, found):
    losses, gradients = expected
    for rank_losses, rank_gradients in found:
        assert rank_losses == pytest.approx(losses, abs=1e-12)
        assert rank_gradients.keys() == gradients.keys()
        for key, gradient in gradients.items():
            torch.testing.assert_close(rank_gradients[key], gradient, atol=1e-12, rtol=1e-9)


@pytest.mark.distributed
def test_in_evaluation_each_rank_compares_its_own_batch(ranks):
    alone = build(info_nce).eval()(*part_of(slice(3)))
    for rank in ranks:
        assert rank["eval"] == pytest.approx({k: v.item() for k, v in alone.items()})


def test_one_process_gathers_its_own_rows_untouched():
    rows = torch.randn(3, 2)
    assert RankRows.exchange(3, rows.device) == RankRows.alone(3)
    assert RankRows.alone(3).gather(rows) is rows
