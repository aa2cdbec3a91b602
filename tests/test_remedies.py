"""The experiment of remedies, small: what is laid over an arm beside the arm alone."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmavlm import train
from mmavlm.metrics.planted_bias import SCORES

CONF = Path(__file__).parents[1] / "conf"
FEW = [
    "-m", "experiment=remedies", "arm=baseline", "seed=1", "trainer=cpu", "trainer.max_epochs=1",
    "callbacks.progress=null", "data.root=films", "hydra.sweep.dir=sweep",
    "prepare.settings.films=40", "prepare.settings.frames=1", "prepare.images.size=32",
]  # fmt: skip
BEGIN = "init.checkpoint=${hydra:sweep.dir}/baseline-none-${seed}/checkpoints/last.ckpt"


@pytest.mark.slow
def test_remedies_of_training_and_of_decoding_stand_in_one_table_beside_the_arm(run, tmp_path):
    assert run(train, *FEW) == 0
    sweep = tmp_path / "sweep"
    decodings = OmegaConf.load(CONF / "callbacks/decodings.yaml").decodings
    names = {*decodings.views, *decodings.suffixes, *decodings.saliencies, *decodings.abstaining}
    settings = json.loads((sweep / "baseline-none-1/decodings/settings.json").read_text())
    assert settings.keys() == {"plain", *names}

    laid = ("counterfactual", "dpo_text", "dpo_twin")
    for remedy in laid:
        begin = [BEGIN] if remedy.startswith("dpo") else []
        assert run(train, *FEW, f"remedy={remedy}", "callbacks=default", *begin) == 0
    told = json.loads((sweep / "arms.json").read_text())
    expected = {f"baseline + {name}" for name in (*names, *laid)}
    assert told["missing"] == []
    assert told["means"].keys() == {"baseline", *expected}
    assert told["against"]["baseline"].keys() == expected
    assert all(of_score.keys() == SCORES.keys() for of_score in told["means"].values())


SMALL_SET = [*FEW[4:7], "data.root=films", "hydra.run.dir=run", *FEW[9:]]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["remedy=dpo_twin"], "goes on from a trained model (init.required=true)"),
        (["remedy=dpo_text"], "goes on from a trained model (init.required=true)"),
        (["remedy=longer_counterfactual"], "goes on from a trained model (init.required=true)"),
        (["remedy=longer"], "goes on from a trained model (init.required=true)"),
        (["remedy=hard_negatives"], "are for the alignment, and nothing is aligned here"),
    ],
)
def test_a_remedy_that_would_change_nothing_is_refused(run, tmp_path, capsys, given, complaint):
    assert run(train, "experiment=ablation", "arm=baseline", *given, *SMALL_SET) == 1
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run/metrics.json").exists()
