"""Settings of one stage that meet the class of another."""

import pytest
from hydra.utils import get_class

from mmavlm.core.errors import ConfigError
from mmavlm.run.run import require_settings_of
from support import composed


def test_settings_of_an_experiment_for_another_stage_are_named():
    stage = composed("experiment=own_videos", "stage=semantic_alignment").stage
    with pytest.raises(ConfigError, match=r"SemanticAlignment takes no .*max_new_tokens"):
        require_settings_of(get_class(stage._target_), stage)


@pytest.mark.parametrize("experiment", ["own_videos", "webvid_alignment", "mix"])
def test_experiments_give_their_stage_what_it_takes(experiment):
    stage = composed(f"experiment={experiment}").stage
    require_settings_of(get_class(stage._target_), stage)
