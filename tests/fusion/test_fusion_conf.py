from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from mmavlm.fusion import Bidirectional, NoFusion, PromptToVisual, QueryToVisual

CONF = Path(__file__).parents[2] / "conf"
KINDS = {
    "none": NoFusion,
    "prompt_to_visual": PromptToVisual,
    "query_to_visual": QueryToVisual,
    "bidirectional": Bidirectional,
}


def test_every_file_of_the_group_is_tried():
    assert {file.stem for file in (CONF / "fusion").iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_config_gives_its_fusion_for_the_widths_of_a_model(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(overrides=[f"+fusion={name}"])
    assert type(instantiate(cfg.fusion)(visual_width=16, query_width=8)) is KINDS[name]
