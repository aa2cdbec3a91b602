import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from mmavlm.commands.checks import check_config, check_sources
from mmavlm.core.errors import CheckpointError, ConfigError
from support import composed


def test_a_config_with_all_it_needs_passes(tmp_path):
    (tmp_path / "a.ckpt").touch()
    check_config(composed(f"data.root={tmp_path}", f"resume={tmp_path}/a.ckpt"))
    check_config(composed(f"data.root={tmp_path}", "resume=auto"))


def test_every_set_of_a_mix_is_looked_at(tmp_path):
    config = composed("experiment=mix", f"data.root={tmp_path}")
    check_config(config)
    config.data.sets.breakfast.num_frames = 121
    with pytest.raises(ConfigError, match=r"121 frames were given .* table has 120 rows"):
        check_config(config)
    config.data.sets.breakfast.num_frames = 120
    config.data.sets.msvd_qa.root = "/nowhere"
    with pytest.raises(ConfigError, match="/nowhere does not exist"):
        check_config(config)


def test_films_are_as_long_as_the_model_can_take_them(tmp_path):
    for given in (
        ["experiment=llama_vid_long"],  # 7200 frames, and no table
        ["experiment=llama_vid_long", "vision.position_init=zeros", "vision.max_num_frames=7200"],
        ["experiment=webvid_alignment", "data.num_frames=500"],  # the first three are aligned
    ):
        check_config(composed(*given, f"data.root={tmp_path}"))
    for given in (
        ["experiment=llama_vid_long", "vision.position_init=zeros"],
        ["experiment=lvu_scene", "data.num_frames=7200"],
    ):
        with pytest.raises(ConfigError, match=r"7200 frames were given .* table has 120 rows"):
            check_config(composed(*given, f"data.root={tmp_path}"))


def test_a_root_that_is_yet_to_be_made_is_no_mistake_and_one_that_is_not_set_is():
    config = composed("experiment=demo", "data.root=/nowhere")
    check_config(config)
    OmegaConf.update(config, "prepare", None)
    with pytest.raises(ConfigError, match="/nowhere does not exist"):
        check_config(config)
    with pytest.raises(MissingMandatoryValue, match=r"data\.root"):
        check_config(composed())


@pytest.mark.parametrize("key", ["checkpoint", "init.alignment", "resume", "init.weights"])
def test_a_file_that_a_model_starts_from_must_be_there(key):
    with pytest.raises(CheckpointError, match=r"gone do(es)? not exist"):
        check_sources(composed(f"{key}=gone"))


def test_an_experiment_to_start_with_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match="dem is no experiment; nearest are demo"):
        check_sources(composed("init.experiment=dem"))


@pytest.mark.parametrize("choice", ["vicuna_1", "5", "a" * 5000, "~nobody/a.jinja"])
def test_a_misspelt_chat_template_is_told_before_weights_are_looked_for(choice):
    config = composed("llm=causal", "llm.pretrained=/nowhere", f"llm.chat_template='{choice}'")
    with pytest.raises(ConfigError, match=f"llm.chat_template={choice} is no format") as told:
        check_sources(config)
    assert choice != "vicuna_1" or "nearest are vicuna_v" in str(told.value)


def test_a_chat_template_may_be_a_name_jinja_or_a_file(tmp_path):
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    for choice in ("auto", "none", "null", "chatml", f"{tmp_path}/mine.jinja", "'{{ messages }}'"):
        check_sources(composed("llm=causal", "llm.pretrained=a", f"llm.chat_template={choice}"))


def test_settings_of_a_part_that_is_none_are_named(tmp_path):
    given = ["experiment=ablation", "arm=one_level", f"data.root={tmp_path}"]
    check_config(composed(*given))
    with pytest.raises(ConfigError, match=r"alignment=none builds .* sets alignment\.levels"):
        check_config(composed(*given, "alignment=none"))
