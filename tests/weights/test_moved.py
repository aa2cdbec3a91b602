"""Files in `earlier/` were written before the parts of a model moved to where they are now.

A demo of small widths wrote `stage_2.ckpt` in its second epoch and `export/` from it, and
`answers.json` holds what the exported model gave for `random_batch((4, 2))`.
"""

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object

from mmavlm.core.generation import Generation
from mmavlm.hub import from_pretrained
from mmavlm.stages import FineTune
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.weights import moved, seal
from mmavlm.weights.checkpoint import RUN_KEY, load_trainable, read_checkpoint
from mmavlm.weights.weight_files import WeightFile, write_weights
from support import random_batch

EARLIER = Path(__file__).parent / "earlier"
CHECKPOINT, EXPORT = EARLIER / "stage_2.ckpt", EARLIER / "export"


@pytest.fixture(scope="module")
def model():
    return from_pretrained(EXPORT)


@torch.no_grad()
def test_an_earlier_export_answers_as_it_did(model):
    expected, batch = json.loads((EARLIER / "answers.json").read_text()), random_batch((4, 2))
    assert {k: float(v) for k, v in model(batch).items()} == pytest.approx(
        expected["losses"], rel=1e-5
    )
    ranked = model.rank(batch, ["comedy", "drama", "a long answer"])
    torch.testing.assert_close(ranked, torch.tensor(expected["rank"]), rtol=1e-5, atol=1e-5)
    found = model.generate(batch, Generation(num_beams=3, num_answers=2, max_new_tokens=4))
    for row, expected_row in zip(found, expected["generated"], strict=True):
        assert [answer.text for answer in row] == [text for text, _ in expected_row]
        scores = [log_prob for _, log_prob in expected_row]
        assert [answer.log_prob for answer in row] == pytest.approx(scores, rel=1e-5)


def test_the_weights_of_an_earlier_checkpoint_are_those_of_its_export(model):
    weights = read_checkpoint(CHECKPOINT)["state_dict"].items()
    state = {name.removeprefix("backbone."): tensor for name, tensor in weights}
    before = {name: p.clone() for name, p in model.named_parameters()}
    load_trainable(model, state, "the earlier checkpoint")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_what_the_optimizer_of_an_earlier_checkpoint_knows_is_of_the_same_parameters(model):
    (stored,) = read_checkpoint(CHECKPOINT)["optimizer_states"]
    named = [(f"backbone.{name}", parameter) for name, parameter in model.named_parameters()]
    optimizer, _ = OptimizerRecipe().build(named, total_steps=1, epoch_steps=1)
    groups = zip(optimizer.param_groups, stored["param_groups"], strict=True)
    for group, of_before in groups:
        for parameter, number in zip(group["params"], of_before["params"], strict=True):
            assert stored["state"][number]["exp_avg"].shape == parameter.shape


def test_a_run_goes_on_from_an_earlier_checkpoint(model):
    stage = FineTune(model, OptimizerRecipe(), tasks=["genre"])
    stored = torch.load(CHECKPOINT, weights_only=True)  # as Lightning reads it
    stage.on_load_checkpoint(stored)
    assert stored["state_dict"].keys() == read_checkpoint(CHECKPOINT)["state_dict"].keys()
    assert stored["state_dict"].keys() <= {name for name, _ in stage.named_parameters()}


def test_every_part_that_earlier_settings_name_exists():
    told = json.dumps(read_checkpoint(CHECKPOINT)[RUN_KEY]["config"])
    targets = {part.split('"')[0] for part in told.split('"_target_": "')[1:]}
    assert "mmavlm.model.backbone.VideoLanguageModel" in targets
    for target in targets:
        assert callable(get_object(target))


def test_settings_move_with_their_parts():
    run = {
        "config": {"backbone": {"encoder": {"width": 8}, "max_num_frames": 8, "llm": None}},
        "overrides": [
            "backbone.visual_norm_eps=1e-5", "++backbone.fusion.heads=2", "backbone.llm.seed=1",
            "fusion._target_=mmavlm.fusion.CrossAttentionFusion",
        ],
    }  # fmt: skip
    today = moved.run_settings(run)
    assert today["config"]["backbone"].keys() == {"llm", "vision"}
    assert today["config"]["vision"] == moved.BRANCH | {
        "encoder": {"width": 8},
        "max_num_frames": 8,
    }
    assert today["overrides"] == [
        "vision.norm_eps=1e-5", "++backbone.vision.fusion.heads=2", "backbone.llm.seed=1",
        "fusion._target_=mmavlm.model.fusion.CrossAttentionFusion",
    ]  # fmt: skip
    assert moved.run_settings(today) is today


def test_a_seal_stays_good_for_moved_settings_and_no_other_is_given():
    run = {"config": {"fusion": {"_target_": "mmavlm.fusion.NoFusion"}}, "overrides": []}
    assert seal.is_own(moved.run_settings(seal.sealed(run)))
    assert not seal.is_own(moved.run_settings({**run, "seal": "0" * 64}))


def test_a_weight_file_with_earlier_names_is_read_with_those_of_today(tmp_path):
    state = {"visual_norm.weight": torch.ones(2), "temporal.query_tokens": torch.zeros(1, 2, 2)}
    write_weights(state, tmp_path / "earlier.safetensors")
    file = WeightFile(tmp_path / "earlier.safetensors")
    assert file.parts == ["vision.norm", "vision.temporal.query_tokens"]
    assert torch.equal(file.state(["vision.norm"])["vision.norm.weight"], torch.ones(2))
