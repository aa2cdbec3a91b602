from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from mmavlm.model.fusion import (
    Bidirectional,
    CrossAttentionFusion,
    FeatureChannelFusion,
    NoFusion,
    PromptToVisual,
    QueryToVisual,
    SequenceDimensionFusion,
)

CONF = Path(__file__).parents[3] / "conf"
KINDS = {
    "none": NoFusion,
    "prompt_to_visual": PromptToVisual,
    "query_to_visual": QueryToVisual,
    "bidirectional": Bidirectional,
    "cross_attention": CrossAttentionFusion,
    "feature_channel": FeatureChannelFusion,
    "sequence_dimension": SequenceDimensionFusion,
}


def test_every_file_of_the_group_is_tried():
    assert {file.stem for file in (CONF / "fusion").iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_config_gives_its_fusion_for_the_widths_of_a_model(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(overrides=[f"+fusion={name}"])
    fusion = instantiate(cfg.fusion)(visual_width=16, query_width=8, aligned_width=4)
    assert type(fusion) is KINDS[name]
