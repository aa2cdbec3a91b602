"""Which settings a stage takes, from the config and from the data."""

import pytest
from hydra.utils import get_class, instantiate
from torch import nn

from mmavlm.core.errors import ConfigError
from mmavlm.run.build import build_stage, require_settings_of, settings_of_data
from mmavlm.stages import FineTune, Preference, SemanticAlignment
from mmavlm.stages.base import Stage
from support import composed


def test_settings_of_an_experiment_for_another_stage_are_named():
    stage = composed("experiment=own_videos", "stage=semantic_alignment").stage
    with pytest.raises(ConfigError, match=r"SemanticAlignment takes no .*max_new_tokens"):
        require_settings_of(get_class(stage._target_), stage)


@pytest.mark.parametrize("experiment", ["own_videos", "webvid_alignment", "mix"])
def test_experiments_give_their_stage_what_it_takes(experiment):
    stage = composed(f"experiment={experiment}").stage
    require_settings_of(get_class(stage._target_), stage)


@pytest.mark.parametrize("remedy", ["dpo_text", "dpo_film", "dpo_twin", "dpo_both"])
@pytest.mark.parametrize("experiment", ["own_videos", "ablation", "msvd_qa", "mix"])
def test_preferences_are_laid_over_any_experiment_that_answers(experiment, remedy):
    stage = composed(f"experiment={experiment}", f"remedy={remedy}").stage
    assert get_class(stage._target_) is Preference
    require_settings_of(Preference, stage)


@pytest.mark.parametrize("experiment", ["webvid_alignment", "duet_movies"])
def test_a_stage_that_answers_nothing_is_decoded_against_nothing(experiment):
    config = composed(f"experiment={experiment}", "contrast=no_film")
    with pytest.raises(ConfigError, match=r"generates and ranks no answers that contrast=… could"):
        build_stage(config, None, [], ["train"])


class Mine(Stage):
    """A stage of one's own, which knows of its data what it asks for."""

    def __init__(self, backbone, optimizer, *, classes, run=None):
        super().__init__(backbone, optimizer, run)
        self.classes = classes


@pytest.mark.parametrize(
    ("stage", "taken"),
    [
        (Mine, {"classes"}),
        (SemanticAlignment, {"sets"}),
        (FineTune, {"tasks", "tasks_with_options", "classes", "sets"}),
        (Preference, {"tasks", "tasks_with_options", "classes", "sets", "items"}),
    ],
)
def test_a_stage_is_given_what_its_constructor_takes_of_the_data(films, stage, taken):
    data = instantiate(composed("experiment=lvu_genre", f"data.root={films}").data)
    given = settings_of_data(stage, data, ["train"])
    assert set(given) == taken
    assert all(value == getattr(data, name) for name, value in given.items() if name == "classes")


def test_a_stage_without_a_number_is_called_by_its_class():
    assert Mine(nn.Identity(), None, classes={}).title == "Mine"
