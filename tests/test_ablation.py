"""The controlled experiment, small: two arms, two seeds, a few films, to its tables."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmavlm import train
from mmavlm.metrics.planted_bias import SCORES
from mmavlm.run_arms import read_arms

CONF = Path(__file__).parents[1] / "conf"
FEW = [
    "-m", "experiment=ablation", "arm=baseline,two_stages", "seed=1,2", "trainer=cpu",
    "trainer.max_epochs=1", "callbacks.progress=null", "data.root=films", "hydra.sweep.dir=sweep",
    "prepare.settings.films=40", "prepare.settings.frames=1", "prepare.images.size=32",
]  # fmt: skip


@pytest.fixture
def sweep(run, tmp_path):
    assert run(train, *FEW) == 0
    return tmp_path / "sweep"


def test_a_sweep_ends_in_means_differences_and_a_figure_and_is_not_run_again(run, sweep):
    told = json.loads((sweep / "arms.json").read_text())
    assert told["missing"] == []
    assert list(told["means"]) == ["baseline", "two_stages"]
    for of_score in told["means"].values():
        assert of_score.keys() == SCORES.keys()
        assert all(list(m["values"]) == ["1", "2"] for m in of_score.values())
    assert told["against"]["baseline"]["two_stages"]["accuracy"]["seeds"] == [1, 2]
    assert told["against"]["two_stages"] == {}
    assert "| two_stages | accuracy | " in (sweep / "arms.md").read_text()
    assert "two stages" in (sweep / "arms.svg").read_text()
    assert (sweep / "two_stages-2/ablation_alignment/report.html").is_file()

    written = {p: p.stat().st_mtime_ns for p in sweep.glob("*/report.html")}
    (sweep / "baseline-2/report.html").unlink()
    (sweep / "arms.md").unlink()
    assert run(train, *FEW) == 0
    again = {p.parent.name for p, t in written.items() if p.stat().st_mtime_ns != t}
    assert again == {"baseline-2"}
    assert json.loads((sweep / "arms.json").read_text()) == told

    (sweep / "two_stages-1/metrics.json").unlink()
    assert read_arms(sweep)[1] == ["two_stages with seed 1"]
    assert run(train, *FEW, "optimizer.lr=0.5") == 1  # other settings in the same folder


def test_every_arm_is_run_and_compared():
    config = OmegaConf.load(CONF / "experiment/ablation.yaml").hydra
    arms = config.sweeper.params.arm.split(",")
    assert set(arms) == {path.stem for path in (CONF / "arm").glob("*.yaml")}
    compared = config.callbacks.arms.compare
    assert arms == ["baseline", *compared.baseline]
    assert set(compared.two_stages) < set(arms)
    assert len(config.sweeper.params.seed.split(",")) >= 5
