"""The controlled experiment, small: two arms, two seeds, a few films, to its tables."""

import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmavlm import train
from mmavlm.core.interfaces import Answer
from mmavlm.core.metrics_file import write_metrics
from mmavlm.metrics import Prediction, write_predictions
from mmavlm.metrics.planted_bias import SCORES
from mmavlm.run.arms import read_arms, write_arms

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


@pytest.mark.slow
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
    page = (sweep / "arms.html").read_text()
    assert "Against baseline" in page
    assert 'href="two_stages-2/report.html"' in page
    assert "two stages" in (sweep / "arms.svg").read_text()
    assert (sweep / "two_stages-2/ablation_alignment/report.html").is_file()

    written = {p: p.stat().st_mtime_ns for p in sweep.glob("*/report.html")}
    (sweep / "baseline-2/config.yaml").unlink()  # what a run leaves last
    (sweep / "arms.md").unlink()
    assert run(train, *FEW) == 0
    again = {p.parent.name for p, t in written.items() if p.stat().st_mtime_ns != t}
    assert again == {"baseline-2"}
    assert json.loads((sweep / "arms.json").read_text()) == told

    (sweep / "two_stages-1/metrics.json").unlink()
    assert read_arms(sweep)[1] == ["two_stages with seed 1"]


def left(folder, arm, seed, right, *, whole=True, remedy=None):
    """What a run of the sweep leaves, to which every question was answered right or wrong."""
    laid_over = [f"remedy={remedy}"] if remedy else []
    job = folder / "-".join([arm, *filter(None, [remedy]), str(seed)])
    (job / ".hydra").mkdir(parents=True)
    OmegaConf.save([f"arm={arm}", *laid_over, f"seed={seed}"], job / ".hydra/overrides.yaml")
    write_predictions(job / "predictions.jsonl", answers(right))
    if whole:
        write_metrics(job / "metrics.json", {"test/text": 0.5})


QUESTIONS = (
    ("plant", "yes", "present_unlikely"), ("bin", "no", "absent_likely"),
    ("clock", "yes", "present_likely"), ("mirror", "yes", "present_likely"),
    ("lamp", "no", "absent_unlikely"), ("cat", "no", "absent_unlikely"),
)  # fmt: skip


def answers(right):
    """A prediction for each question, all right or all wrong."""
    return [asked(name, truth, task, right) for name, truth, task in QUESTIONS]


def asked(name, truth, task, right):
    said = truth if right else {"yes": "no", "no": "yes"}[truth]
    return Prediction(
        f"film0_{name}", "film0", task, "is it?", truth, [Answer(said, 0.0)], [], [truth]
    )


def test_what_is_not_finished_is_named_and_left_out(tmp_path, capsys):
    left(tmp_path, "baseline", 1, right=False)
    left(tmp_path, "mine", 1, right=True)
    left(tmp_path, "mine", 2, right=True, whole=False)
    left(tmp_path, "another", 2, right=True)  # no seed that the baseline has
    write_arms(tmp_path, {"baseline": ["mine", "another", "never_started"]})
    told = json.loads((tmp_path / "arms.json").read_text())
    assert sorted(told["missing"]) == [
        "another with seed 1", "baseline with seed 2", "mine with seed 2",
    ]  # fmt: skip
    assert list(told["means"]) == ["baseline", "mine", "another"]
    assert list(told["against"]["baseline"]) == ["mine"]
    assert told["against"]["baseline"]["mine"]["accuracy"]["difference"] == 1
    assert "Not finished: " in capsys.readouterr().out


def test_the_page_of_arms_tells_what_differs_for_sure_from_what_may_be_chance(tmp_path):
    for seed in range(1, 6):
        left(tmp_path, "baseline", seed, right=seed == 1)
        left(tmp_path, "same", seed, right=seed == 2)
        left(tmp_path, "mine", seed, right=True)
    write_arms(tmp_path, {"baseline": ["same", "mine"]})
    accuracy, habit = first_sentences(tmp_path)
    chance = "may be chance, with 5 seeds and p ≥ 0.05 for all arms at once (Holm)."
    assert accuracy == (
        "Against baseline, accuracy: differs in mine by +80.0 points (95 % interval +24.5 to "
        f"+135.5); in 1 other arm a difference {chance}"
    )
    assert habit == (
        "Against baseline, habit: in 2 the difference is the same in all seeds, of which no p is "
        "made."
    )
    few = tmp_path / "few"
    left(few, "baseline", 1, right=False)
    left(few, "mine", 1, right=True)
    left(few, "mine", 2, right=True, whole=False)
    write_arms(few, {"baseline": ["mine"]})
    one, missing = first_sentences(few)
    assert one.startswith("One seed cannot tell the arms from baseline")
    assert missing == "Not finished: baseline with seed 2, mine with seed 2."


def first_sentences(folder):
    lead = (folder / "arms.html").read_text().partition('class="lead">')[2]
    return re.findall(r"<p>(.*?)</p>", lead.partition("</section>")[0])


def test_a_folder_without_finished_runs_gets_no_tables(tmp_path):
    left(tmp_path, "baseline", 1, right=True, whole=False)
    write_arms(tmp_path, {"baseline": []})
    assert not list(tmp_path.glob("arms.*"))


def test_every_arm_is_run_and_compared():
    config = OmegaConf.load(CONF / "experiment/ablation.yaml").hydra
    arms = config.sweeper.params.arm.split(",")
    assert set(arms) == {path.stem for path in (CONF / "arm").glob("*.yaml")}
    compared = config.callbacks.arms.compare
    assert arms == ["baseline", *compared.baseline]
    assert set(compared.two_stages) < set(arms)
    assert len(config.sweeper.params.seed.split(",")) >= 5


def test_what_is_laid_over_an_arm_is_compared_with_the_arm_alone(tmp_path):
    left(tmp_path, "baseline", 1, right=False)
    left(tmp_path, "baseline", 1, right=True, remedy="group_dro")
    decodings = tmp_path / "baseline-1/decodings"
    decodings.mkdir()
    for name, right in (("plain", False), ("no_film", True)):
        write_predictions(decodings / f"{name}.jsonl", answers(right))
    write_arms(tmp_path, {})
    told = json.loads((tmp_path / "arms.json").read_text())
    names = ["baseline + no_film", "baseline + group_dro"]
    assert sorted(told["against"]["baseline"]) == sorted(names)
    assert sorted(told["means"]) == sorted(["baseline", *names])
    assert told["against"]["baseline"]["baseline + no_film"]["both"]["difference"] == 1
