"""What a run that goes on may have other than its checkpoint."""

import logging
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mmavlm import evaluate, train
from mmavlm.core.errors import ConfigError
from mmavlm.run.changes import changed_settings, require_same_settings
from mmavlm.stages import OptimizerRecipe
from mmavlm.weights.checkpoint import RUN_KEY
from support import SMALL, composed

RUN = ["experiment=lvu_genre", "data.root=films"]
LAST = Path("checkpoints/last.ckpt")


def written_by(*overrides, at_end=True):
    config = OmegaConf.to_container(composed(*RUN, *overrides), resolve=True)
    progress = {"epoch_loop.batch_progress": {"is_last_batch": at_end}}
    return {RUN_KEY: {"config": config}, "loops": {"fit_loop": progress}}


def goes_on(*overrides, **checkpoint):
    require_same_settings(composed(*RUN, *overrides), written_by(**checkpoint), LAST)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.batch_size=3", "data.batch_size: 16 → 3"),
        ("optimizer.lr=1e-3", "optimizer.lr: 0.0001 → 0.001"),
        ("data.root=other", "data.root: films → other"),
        ("data.limit_items=5", "data.limit_items: None → 5"),
        ("seed=1", "  seed: 42 → 1"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches: 1 → 2"),
        ("+trainer.gradient_clip_algorithm=value", "gradient_clip_algorithm: None → value"),
        ("trainer.devices=2", "trainer.devices: 1 → 2"),
        ("memory.length=7", "  memory.length: 20 → 7"),
    ],
)
def test_what_a_run_learns_by_must_be_as_it_was_or_be_accepted(override, line, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(ConfigError) as refused:
        goes_on(override)
    assert line in str(refused.value)
    accept = str(refused.value).rpartition("'")[0].rpartition("'")[2]
    goes_on(override, accept)
    assert line in caplog.text


@pytest.mark.parametrize(
    "override",
    ["trainer.max_epochs=40", "data.num_workers=0", "callbacks.progress=null", "test=false",
     "logger=tensorboard", "trainer.accelerator=cpu", "data.index=null", "encoder.chunk_size=1",
     "resume=auto", "data.max_broken=1"],
)  # fmt: skip
def test_what_changes_nothing_that_is_learnt_may_differ(override):
    goes_on(override)
    goes_on(override, at_end=False)


def test_a_group_is_accepted_with_all_that_lies_below_it():
    goes_on("data.batch_size=3", "data.limit_items=5", "resume_accept=[data]")
    with pytest.raises(ConfigError, match=r"resume_accept=\[optimizer\.lr\]"):
        goes_on("data.batch_size=3", "optimizer.lr=1", "resume_accept=[data]")


def test_a_place_within_an_epoch_is_left_where_batches_are_others():
    goes_on("data.batch_size=3", "resume_accept=[data]")
    with pytest.raises(ConfigError, match=r"within an epoch.*resume=checkpoints/last\.ckpt"):
        goes_on("data.batch_size=3", "resume_accept=[data]", at_end=False)
    goes_on("data.root=moved", "optimizer.lr=1", "resume_accept=[data,optimizer]", at_end=False)


def test_a_checkpoint_that_tells_of_no_settings_is_taken():
    require_same_settings(composed(*RUN), {RUN_KEY: {}}, LAST)


@pytest.mark.parametrize("experiment", ["lvu_genre", "mix", "webvid_alignment", "demo"])
def test_a_run_never_differs_from_itself(experiment):
    config = OmegaConf.to_container(
        composed(f"experiment={experiment}", "data.root=films"), resolve=True
    )
    assert changed_settings(config, config) == {}


def test_another_set_of_a_mix_is_told_by_its_name():
    mix = ["experiment=mix", "data.root=films"]
    before, now = (
        OmegaConf.to_container(composed(*mix, *more), resolve=True)
        for more in ([], ["data.sets.msvd_qa.reader.counted=true", "data.sets.msvd_qa.index=null"])
    )
    keys = set(changed_settings(before, now))
    assert "data.sets.msvd_qa.reader.counted" in keys


def test_an_accepted_recipe_takes_the_place_of_the_stored_one():
    layer = torch.nn.Linear(2, 2)
    parameters = list(layer.named_parameters())
    how = {"total_steps": 10, "epoch_steps": 2}
    optimizer, schedule = OptimizerRecipe(lr=0.1).build(parameters, **how)
    for _ in range(4):
        optimizer.step()
        schedule.step()
    stored = optimizer.state_dict(), schedule.state_dict()
    same = OptimizerRecipe(lr=0.1)
    before = repr(stored)
    same.lay_over(*stored)
    assert repr(stored) == before
    other = OptimizerRecipe(lr=0.01, weight_decay=0.3, betas=(0.8, 0.9))
    other.lay_over(*stored)
    optimizer, schedule = other.build(parameters, **how)
    optimizer.load_state_dict(stored[0])
    schedule.load_state_dict(stored[1])
    expected = OptimizerRecipe(lr=0.01).build(parameters, **how)
    for _ in range(4):
        expected[0].step()
        expected[1].step()
    for _ in range(3):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([group["lr"] for group in expected[0].param_groups])
        for one in ((optimizer, schedule), expected):
            one[0].step()
            one[1].step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)


def test_a_run_refuses_and_then_accepts_another_batch_size(run, trained, films, tmp_path, capsys):
    arguments = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "trainer.max_epochs=2",
                 f"resume={trained}/checkpoints/last.ckpt", "data.batch_size=2",
                 "optimizer.lr=0.01", "test=false", "hydra.run.dir=on"]  # fmt: skip
    assert run(train, *arguments) == 1
    said = capsys.readouterr().err
    assert "data.batch_size: 4 → 2" in said
    assert "'resume_accept=[optimizer.lr,data.batch_size]'" in said
    assert not (tmp_path / "on/checkpoints").exists()
    assert run(train, *arguments, "resume_accept=[optimizer.lr,data.batch_size]") == 0
    before, after = (
        torch.load(path, weights_only=True)
        for path in (trained / "checkpoints/last.ckpt", tmp_path / "on/checkpoints/last.ckpt")
    )
    steps = after["global_step"] - before["global_step"]
    assert steps >= 2 * before["global_step"] - 1
    assert after["lr_schedulers"][0]["base_lrs"] == [0.01, 0.01]
    assert run(train, *arguments, "resume.accept=[data]") == 1
    assert "did you mean resume_accept=[data]" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["null", "-1", "1.5", str(2**32), "data.seed"])
def test_a_seed_that_is_none_is_named(run, films, capsys, seed):
    setting = "data.seed=null" if seed == "data.seed" else f"seed={seed}"
    assert run(train, "experiment=lvu_genre", *SMALL, f"data.root={films}", setting) == 1
    assert "error: " in (said := capsys.readouterr().err)
    assert "seed" in said
    assert "Traceback" not in said


def test_a_comparison_needs_a_seed(run, trained, capsys):
    assert run(evaluate, f"compare=[{trained},{trained}]", "seed=null") == 1
    assert "error: seed is null; give a whole number" in capsys.readouterr().err


def of_films(*overrides):
    run = ["experiment=ablation", "data.root=films"]
    return composed(*run, *overrides)


def test_films_made_anew_are_another_set_but_twins_beside_them_are_not():
    config = OmegaConf.to_container(of_films(), resolve=True)
    before = {RUN_KEY: {"config": config}, "loops": {}}
    with pytest.raises(ConfigError, match=r"prepare\.settings\.bias: 0\.9 → 0\.6"):
        require_same_settings(of_films("prepare.settings.bias=0.6"), before, LAST)
    require_same_settings(of_films("prepare.settings.counterfactual=true"), before, LAST)
