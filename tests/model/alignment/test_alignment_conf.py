from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from mmavlm.model.alignment import (
    Aligned,
    AllFrames,
    FirstK,
    FirstLast,
    FirstMiddleLast,
    SigmoidLoss,
    equal_texts_info_nce,
    info_nce,
    symmetric_info_nce,
)

CONF = Path(__file__).parents[3] / "conf"
LOSSES = {
    "info_nce": info_nce,
    "symmetric": symmetric_info_nce,
    "mma_code": symmetric_info_nce,
    "equal_texts": equal_texts_info_nce,
    "sigmoid": SigmoidLoss,
}


def compose_alignment(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        groups = ["+aligned_frames=first_k", "+cross_layers=[0,1]", f"+{overrides[0]}"]
        return compose(overrides=[*groups, *overrides[1:]]).alignment


def test_every_file_of_the_group_is_tried():
    assert {file.stem for file in (CONF / "alignment").iterdir()} == {*LOSSES, "none"}


@pytest.mark.parametrize("name", LOSSES)
def test_a_config_gives_an_alignment_that_learns(text_encoder, name):
    cfg = compose_alignment(f"alignment={name}")
    alignment = instantiate(cfg, text_encoder=text_encoder)(visual_width=6, query_width=5)
    expected = LOSSES[name]
    if expected is SigmoidLoss:
        assert isinstance(alignment.loss, SigmoidLoss)
    else:
        assert alignment.loss.func is expected
    assert alignment.frames == FirstK(3)
    assert alignment.gather == (name != "mma_code")
    learned = any(key.endswith("log_scale") for key, _ in alignment.named_parameters())
    assert learned == (name in ("symmetric", "mma_code", "sigmoid"))
    mask = torch.ones(2, 3, dtype=torch.bool)
    crossed = torch.randn(2, 3, 2, 2, 5)
    films = Aligned(torch.randn(2, 3, 4, 6), torch.randn(2, 3, 2, 5), mask, crossed)
    losses = alignment(films, ["a cat", "a dog"])
    torch.stack(list(losses.values())).sum().backward()
    assert list(losses) == (["high", "cross"] if name == "mma_code" else ["low", "high"])
    assert text_encoder.embed.weight.grad.abs().sum() > 0


def test_levels_frames_and_temperature_can_be_set_on_the_command_line(text_encoder):
    cfg = compose_alignment(
        "alignment=info_nce",
        "alignment.levels=[high]",
        "aligned_frames.k=2",
        "alignment.temperature.initial=0.5",
    )
    alignment = instantiate(cfg, text_encoder=text_encoder)(visual_width=6, query_width=5)
    assert alignment.levels == ("high",)
    assert alignment.frames == FirstK(2)
    assert alignment.temperature().item() == pytest.approx(2)


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("first_k", FirstK(3)),
        ("first_last", FirstLast()),
        ("first_middle_last", FirstMiddleLast()),
        ("all", AllFrames()),
    ],
)
def test_a_choice_of_frames_is_a_group_of_its_own(name, frames):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(overrides=[f"+aligned_frames={name}"])
    assert instantiate(cfg.aligned_frames) == frames


def test_no_alignment_is_none():
    assert compose_alignment("alignment=none") is None
