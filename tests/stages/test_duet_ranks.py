"""The duet on two processes: it learns and scores what one process does."""

import json
from dataclasses import replace
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from torch.utils.data import DataLoader

from mmavlm.core.conversation import Conversation
from mmavlm.movies.duet_set import DuetSettings, make_duet_set
from mmavlm.run.build import build_backbone
from mmavlm.stages import Duet, OptimizerRecipe
from ranks import be_rank, spawn_ranks
from support import composed

SETTINGS = ["experiment=duet_movies", "data.num_frames=6", "data.batch_size=2", "llm.width=32"]
FILMS = DuetSettings(films=10, size=32)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_duet_set(tmp_path_factory.mktemp("duet"), FILMS)


def data_of(films):
    """The films; three questions are the validation, of which two processes repeat one."""
    data = instantiate(composed(*SETTINGS, f"data.root={films}").data)
    data.image_size = 64
    data.eval_batch_size = 1
    questions = data.items("train")
    data.items = lambda split: questions[:3] if split == "val" else questions
    return data


def unlearned(batch):
    """The same conversations, in which no word is to be learned."""
    return _changed(batch, lambda turn: replace(turn, learned=False))


def unlabelled(batch):
    """The same conversations, in which no frame has a label."""
    return _changed(batch, lambda turn: replace(turn, labels=()))


def _changed(batch, change):
    talks = [Conversation(tuple(map(change, t.turns)), t.media) for t in batch.conversations]
    return replace(batch, conversations=talks)


def batches(data):
    """What two processes learn from: the one has nothing to say, the other no label."""
    data.setup("fit")
    first, second, *_ = data.train_dataloader()
    return [unlearned(first), unlabelled(second)]


def stage_of(films):
    torch.manual_seed(0)
    backbone = build_backbone(composed(*SETTINGS, f"data.root={films}"))
    head = backbone.llm.model.lm_head  # of its own, and without a word to learn in no loss
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    stage = Duet(backbone, OptimizerRecipe())
    # a plain gradient step shows the gradient itself; Adam would hide its scale
    stage.configure_optimizers = lambda: torch.optim.SGD(stage.parameters(), lr=0.1)
    return stage


def trained_and_watched(films, folder, share, **how):
    """A step on a share of the batches, then the validation: weights, metrics, scores."""
    stage, data = stage_of(films), data_of(films)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        limit_val_batches=0, **how,
    )  # fmt: skip
    learned = batches(data)[share]
    trainer.accumulate_grad_batches = len(learned)
    trainer.fit(stage, DataLoader(learned, batch_size=None, sampler=range(len(learned))))
    trainer.limit_val_batches = 1.0
    trainer.validate(stage, datamodule=data, verbose=False)
    stage.gather()
    folder.mkdir(exist_ok=True)
    stage.write(folder)
    weights = {n: p.detach().clone() for n, p in stage.named_parameters() if p.requires_grad}
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return SimpleNamespace(weights=weights, metrics=metrics)


def worker(rank, port, films, folder):
    be_rank(rank, port)
    strategy = L.pytorch.strategies.DDPStrategy(process_group_backend="gloo")
    own = slice(rank, rank + 1)
    found = trained_and_watched(films, folder / str(rank), own, devices=2, strategy=strategy,
                                use_distributed_sampler=True)  # fmt: skip
    torch.save(vars(found), folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def results(films, tmp_path_factory):
    """What one process comes to, and each of two, and the folder of their scores."""
    folder = tmp_path_factory.mktemp("ranks")
    spawn_ranks(worker, films, folder)
    one = trained_and_watched(films, folder / "one", slice(None))
    two = [torch.load(folder / f"{n}.pt", weights_only=True) for n in range(2)]
    return one, [SimpleNamespace(**found) for found in two], folder


def watched(folder):
    return [json.loads(line) for line in (folder / "watched_val.jsonl").open()]


@pytest.mark.distributed
def test_a_process_with_nothing_to_say_and_one_without_labels_learn_as_one_process(results):
    one, two, _ = results
    for name, value in one.weights.items():
        assert torch.equal(two[0].weights[name], two[1].weights[name]), name
        torch.testing.assert_close(two[0].weights[name], value, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.distributed
def test_every_process_holds_the_scores_of_all_films_and_none_twice(results):
    _, _, folder = results
    expected = {row["question_id"]: row for row in watched(folder / "one")}
    assert len(expected) == 3
    for rank in range(2):
        rows = watched(folder / str(rank))
        assert len(rows) == len(expected)
        for row in rows:
            other = expected[row["question_id"]]
            assert row["times_s"] == other["times_s"]
            for head, scores in row["scores"].items():
                torch.testing.assert_close(scores, other["scores"][head], atol=1e-4, rtol=1e-4)


@pytest.mark.distributed
def test_the_precision_over_two_processes_is_that_of_one(results):
    one, two, _ = results
    assert 0 < one.metrics["val/ap"] < 1
    for found in two:
        assert found.metrics["val/ap"] == pytest.approx(one.metrics["val/ap"], abs=1e-6)
