"""Remedies in the data, laid over experiments: balanced, group-weighted, group DRO, twins."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from mmavlm import evaluate, train
from mmavlm.commands.replay import laid_over_checkpoint
from mmavlm.weights.checkpoint import RUN_KEY
from mmavlm.weights.seal import sealed
from support import composed

REMEDIES = ("balanced", "group_weighted", "group_dro", "counterfactual")
FEW = [
    "experiment=ablation", "arm=baseline", "trainer=cpu", "trainer.max_epochs=1",
    "callbacks.progress=null", "data.root=films", "hydra.run.dir=run",
    "prepare.settings.films=40", "prepare.settings.frames=1", "prepare.images.size=32",
]  # fmt: skip


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("experiment", ["ablation", "msvd_qa", "mix", "[ablation,eval_pope]"])
def test_a_remedy_is_laid_over_any_experiment_that_answers(experiment, remedy):
    arm = ["arm=baseline"] if "ablation" in experiment else []
    plain, laid = (
        composed(f"experiment={experiment}", *arm, f"remedy={name}", "data.root=r")
        for name in ("none", remedy)
    )
    plain, laid = (OmegaConf.to_container(c, resolve=True) for c in (plain, laid))
    changed = {"data", "stage", "prepare"}
    assert {k: v for k, v in laid.items() if k not in changed} == {
        k: v for k, v in plain.items() if k not in changed
    }
    assert laid["data"] != plain["data"]
    if experiment == "ablation":
        assert laid["prepare"]["settings"]["counterfactual"] is (remedy == "counterfactual" or None)
    else:
        assert laid["prepare"] is None


def test_another_set_is_asked_without_what_was_made_for_training(tmp_path):
    given = ["experiment=ablation", "remedy=group_dro", "prepare.settings.films=40", "data.root=a"]
    path = tmp_path / "last.ckpt"
    run = sealed({"stage": "FineTune", "config": {}, "overrides": given})
    torch.save({RUN_KEY: run, "state_dict": {}}, path)
    asked = laid_over_checkpoint([f"checkpoint={path}", "experiment=eval_pope", "data.root=b"])
    assert "experiment=[ablation,eval_pope]" in asked
    assert "remedy=group_dro" in asked
    assert not [argument for argument in asked if argument.startswith("prepare")]
    assert given[2] in laid_over_checkpoint([f"checkpoint={path}"])


@pytest.mark.slow
@pytest.mark.parametrize("remedy", ["group_dro", "counterfactual"])
def test_a_run_with_a_remedy_makes_what_it_needs_and_its_checkpoint_answers_another_set(
    run, tmp_path, remedy
):
    assert run(train, *FEW, f"remedy={remedy}") == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert "test/accuracy" in metrics
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    if remedy == "group_dro":
        kept = torch.load(checkpoint, weights_only=True)["callbacks"]["GroupDRO"]
        assert len(kept["groups"]) == 4
        assert kept["log_weights"].exp().sum().item() == pytest.approx(1)
    else:
        assert (tmp_path / "films/counterfactual.jsonl").is_file()
        (tmp_path / "films/counterfactual.jsonl").unlink()
    asked = ["experiment=eval_pope", "data.root=films", f"checkpoint={checkpoint}"]
    assert run(evaluate, *asked, "trainer=cpu", "hydra.run.dir=asked") == 0
    assert (tmp_path / "asked/metrics.json").is_file()
