import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mmavlm.commands.arguments import given_keys, read_arguments
from mmavlm.commands.cli import MistakeError, run_job, user_message
from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.quoting import quoted


def test_a_mistake_in_a_job_becomes_its_message_and_keeps_nothing_of_the_job():
    def job(cfg):
        raise ConfigError(f"{cfg.x} is no colour; choose red or blue")

    with pytest.raises(MistakeError, match="3 is no colour") as raised:
        run_job(job, OmegaConf.create({"x": 3}))
    assert raised.value.__context__ is None


def test_a_fault_of_the_library_in_a_job_stays_what_it_is():
    with pytest.raises(ZeroDivisionError):
        run_job(lambda cfg: 1 / cfg.x, OmegaConf.create({"x": 0}))


def building(config):
    with pytest.raises(InstantiationException) as raised:
        instantiate(OmegaConf.create(config))
    return raised.value


def test_a_part_that_refuses_its_settings_is_named_with_what_it_says(monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    error = building({"backbone": {"size": {"_target_": "fractions.Fraction", "numerator": "a"}}})
    message = user_message(error)
    assert message.startswith("backbone.size cannot be built from its settings: Invalid literal")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert user_message(error) is None, "who asks where it comes from gets all of it"


def test_a_mistake_that_a_part_explains_is_told_in_its_words():
    error = building(
        {"_target_": "mmavlm.core.settings.at_least", "group": "a", "least": 1, "b": 0}
    )
    assert user_message(error) == "a.b must be at least 1, got 0"


def read(monkeypatch, *arguments, texts=()):
    monkeypatch.setattr("sys.argv", ["mmavlm", *arguments])
    read_arguments(texts)
    once = sys.argv[1:]
    read_arguments(texts)
    assert sys.argv[1:] == once, "reading twice changes nothing"
    return {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides(once)}


@pytest.mark.parametrize(
    "text", ["what's this, or that?", "film (1) [cut].mp4", "'tis é", "a\\", "a=b", '"so" he said']
)
def test_prompts_and_files_are_taken_as_they_stand(monkeypatch, text):
    assert read(monkeypatch, f"prompt={text}", texts=("prompt",)) == {"prompt": text}


def test_a_text_that_comes_in_quotes_keeps_its_meaning(monkeypatch):
    values = read(monkeypatch, "prompt='a, b'", "video=null", texts=("prompt", "video"))
    assert values == {"prompt": "a, b", "video": None}


def test_a_home_folder_and_signs_that_mean_nothing_are_no_mistake(monkeypatch):
    values = read(monkeypatch, "data.root=~/My Films", "checkpoint=runs/epoch=3.ckpt", "x=[1,2]")
    assert values == {
        "data.root": str(Path.home() / "My Films"),
        "checkpoint": "runs/epoch=3.ckpt",
        "x": [1, 2],
    }


def test_commas_tell_jobs_of_a_sweep_apart(monkeypatch):
    monkeypatch.setattr("sys.argv", ["mmavlm", "-m", "prompt=a,b"])
    read_arguments(("prompt",))
    assert sys.argv[1:] == ["-m", "prompt=a,b"]


def test_what_asks_for_a_sweep_may_stand_anywhere(monkeypatch):
    monkeypatch.setattr("sys.argv", ["mmavlm", "seed=1,2", "-m", "x=1"])
    read_arguments()
    assert sys.argv[1:] == ["-m", "seed=1,2", "x=1"]


def test_what_cannot_be_read_is_named_with_a_way_to_write_it():
    with pytest.raises(ConfigError, match=r"candidates=\[it's\] cannot be read.*'…','…'"):
        given_keys(["candidates=[it's]"])


PRINTED = st.characters(exclude_categories=["Cs", "Cc"])


@settings(max_examples=200)
@given(
    st.text(st.sampled_from("\\${}:'\" ab,.e"), min_size=1)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
)
def test_texts_are_never_resolved(text):
    argument = f"prompt={text}"
    with pytest.MonkeyPatch.context() as patch:
        value = read(patch, argument, texts=("prompt",))["prompt"]
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if text != "null" and not is_quoted and not text.startswith("~/"):
        assert OmegaConf.create({"prompt": value, "a": "other", "b": "other"}).prompt == text


@pytest.mark.parametrize("text", ["'${oc.env:HOME}'", '"a ${x}"'])
def test_a_text_in_quotes_is_not_resolved_either(monkeypatch, text):
    value = read(monkeypatch, f"prompt={text}", texts=("prompt",))["prompt"]
    assert OmegaConf.create({"prompt": value, "x": "other"}).prompt == text[1:-1]


@settings(max_examples=50)
@given(st.text(PRINTED))
def test_quoted_values_are_read_back(text):
    (override,) = OverridesParser.create().parse_overrides([f"x={quoted(text)}"])
    assert override.value() == text


def test_the_folder_of_a_run_stands_for_its_best_checkpoint(monkeypatch, tmp_path):
    kept = tmp_path / "run (1)/checkpoints"
    kept.mkdir(parents=True)
    argument = f"checkpoint={kept.parent}"
    with pytest.raises(CheckpointError, match=r"holds nothing; expected best\.ckpt or last\.ckpt"):
        read(monkeypatch, argument)
    for name in ("last.ckpt", "best.ckpt"):
        (kept / name).touch()
        assert read(monkeypatch, argument) == {"checkpoint": str(kept / name)}
    assert read(monkeypatch, f"checkpoint={tmp_path}") == {"checkpoint": str(tmp_path)}
