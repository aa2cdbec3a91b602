import pytest
from hydra import compose, initialize_config_dir

from mmavlm.commands import mistakes
from mmavlm.commands.familiar import FAMILIAR
from mmavlm.commands.mistakes import refuse_mistakes
from mmavlm.core.config_files import choices, config_dir
from mmavlm.core.errors import ConfigError
from mmavlm.core.nearest import plain


def told(*arguments, config="train"):
    with pytest.raises(ConfigError) as raised:
        refuse_mistakes(config, arguments)
    return str(raised.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("data.batchsize=2", "data.batch_size=2"),
        ("data.nun_frames=3", "data.num_frames=3"),
        ("optimiser.lr=1e-3", "optimizer.lr=1e-3"),
        ("experimnt=demo", "experiment=demo"),
        ("chekpoint=a.ckpt", "checkpoint=a.ckpt"),
        ("data.reader.histry_s=3", "data.reader.history_s=3"),
        ("memory.lenght=3", "memory.length=3"),
        ("batch_size=2", "data.batch_size=2"),
        ("num_beams=3", "stage.num_beams=3"),
        ("trainer.epochs=3", "trainer.max_epochs=3"),
        ("train.epochs=3", "trainer.max_epochs=3"),
        ("model.model_name_or_path=x", "pretrained=x"),
        ("hydra.runn.dir=x", "hydra.run.dir=x"),
        ("~trainerr", "trainer"),
        ("+data.batchsize=2", "data.batch_size=2"),
        ("+epochs=3", "trainer.max_epochs=3"),
        ("--epochs=3", "trainer.max_epochs=3"),
        ("lvu_genre", "experiment=lvu_genre"),
    ],
)
def test_a_setting_that_is_not_there_is_told_with_the_one_that_was_meant(given, meant):
    message = told(given)
    assert message.startswith(f"{given}: ")
    assert meant in message.partition(": ")[2]
    assert "+" not in message.partition(": ")[2], "adding it would change nothing"


@pytest.mark.parametrize(("elsewhere", "here"), FAMILIAR.items())
def test_words_known_from_elsewhere_lead_to_settings_that_are_there(elsewhere, here, known):
    assert elsewhere == plain(elsewhere), "or it would never be found"
    key, _, value = here.partition("=")
    assert key in known
    assert not value or "." in key or value in choices(key)


@pytest.fixture(scope="module")
def known():
    """Every setting and group of the commands with a config."""
    found = set()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        for name in ("train", "predict", "export"):
            config = compose(name, return_hydra_config=True)
            found |= {str(key) for key in config} | {f"hydra.run.{key}" for key in config.hydra.run}
            for group in ("data", "trainer", "optimizer", "stage", "memory", "init"):
                found |= {f"{group}.{key}" for key in config[group]}
    return found | {group.name for group in config_dir().iterdir() if group.is_dir()}


def test_the_words_of_other_tools_are_told_all_at_once():
    given = ["epochs=3", "lr=1e-3", "bs=4", "gpus=2", "bf16=true", "model_name_or_path=x",
             "output_dir=y", "resume_from_checkpoint=z", "ckpt_path=d", "wandb=true"]  # fmt: skip
    lines = told(*given).splitlines()
    meant = ["trainer.max_epochs=3", "optimizer.lr=1e-3", "data.batch_size=4", "trainer.devices=2",
             "trainer.precision=bf16-mixed", "pretrained=x", "hydra.run.dir=y", "resume=z",
             "checkpoint=d", "logger=wandb"]  # fmt: skip
    assert lines[0] == "10 mistakes:"
    for line, argument, right in zip(lines[1:], given, meant, strict=True):
        assert line.strip().startswith(argument)
        assert line.endswith(f"did you mean {right}?")


@pytest.mark.parametrize(
    ("arguments", "choice", "near"),
    [
        (["experiment=own_video"], "experiment=own_video", "own_videos, zero_shot_own_videos"),
        (["experiment=[lvu_genre,eval_pop]"], "experiment=eval_pop", "eval_pope"),
        (["-m", "fusion=none,bidirectinal"], "fusion=bidirectinal", "bidirectional"),
        (["fusion=bidirectinal", "-m", "seed=1,2"], "fusion=bidirectinal", "bidirectional"),
        (["+data@data.sets.x=lvuu"], "data=lvuu", "lvu"),
        (["+arm=basline"], "arm=basline", "baseline"),
        (["seed=1", "memory=elephant"], "memory=elephant", ""),
    ],
)
def test_a_choice_that_is_not_there_is_told_with_the_nearest(arguments, choice, near):
    message = told(*arguments)
    assert message.startswith(f"{choice} is no choice; nearest are {near}")
    listed = message.partition("nearest are ")[2].partition(" (")[0].split(", ")
    assert 3 <= len(listed) <= 5
    assert set(listed) <= set(choices(choice.partition("=")[0]))


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["remedy=null"], "remedy=null chooses nothing; choose remedy=none"),
        (["-m", "contrast=thin,null"], "contrast=null chooses nothing; choose contrast=none"),
        (["experiment=null"], "experiment=null chooses nothing; leave it out"),
    ],
)
def test_a_group_of_which_nothing_is_chosen_is_told_how_to_choose_so(arguments, instead):
    assert told(*arguments) == instead


def test_a_misspelt_choice_does_not_hide_a_misspelt_setting():
    lines = told("experiment=mixx", "data.sets.lvu.num_frames=3", "data.epoch_item=3").splitlines()
    assert lines[1].strip().startswith("experiment=mixx is no choice; nearest are mix")
    assert lines[2].strip().startswith("data.epoch_item=3: ")
    assert lines[2].endswith("did you mean data.epoch_items=3?")
    assert len(lines) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["experiment=lvu_genre", "data.root=x", "model=tiny", "fusion=bidirectional"],
        ["experiment=ablation", "+arm=baseline", "seed=1"],
        ["experiment=mix", "+data.weights.coin=1", "+data@data.sets.coin=coin"],
        ["+callbacks.stop._target_=support.StopAtEpoch", "+callbacks.stop.epoch=2"],
        ["+trainer.min_epochs=2", "++trainer.fast_dev_run=true", "~callbacks.progress"],
        ["-m", "experiment=demo", "fusion=none,prompt_to_visual", "memory.length=4,8"],
        ["-m", "seed=range(1,4)", "memory=glob(*)"],
        ["callbacks.progress=null", "backbone.llm=null", "hydra.run.dir=x", "logger=wandb"],
        ["--cfg", "job", "--resolve", "data.root=x"],
    ],
)
def test_what_is_there_is_no_mistake(arguments):
    refuse_mistakes("train", arguments)


def test_settings_of_a_folder_of_ones_own_are_known(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nown: 1\n")
    refuse_mistakes("train", ["--config-dir", str(tmp_path), "experiment=mine", "own=2"])
    near = told("--config-dir", str(tmp_path), "experiment=mien", "own=2")
    assert "experiment=mien is no choice; nearest are mine" in near


@pytest.mark.parametrize("place", ["file://{folder}/theirs/conf", "pkg://theirs.conf"])
def test_settings_on_the_search_path_are_known_and_of_several_folders(tmp_path, monkeypatch, place):
    folder = tmp_path / "a, b"  # a name that Hydra reads in quotes alone
    for name, file in (("theirs/conf", "mine"), ("more", "other")):
        (folder / name / "experiment").mkdir(parents=True)
        (folder / name / f"experiment/{file}.yaml").write_text("# @package _global_\nown: 1\n")
    (folder / "theirs/conf/__init__.py").touch()
    (folder / "theirs/__init__.py").touch()
    monkeypatch.syspath_prepend(str(folder))
    path = f"hydra.searchpath=['{place.format(folder=folder)}']"
    refuse_mistakes("train", [path, "experiment=mine", "own=2"])
    both = ["--config-dir", str(folder / "more"), path]
    refuse_mistakes("train", [*both, "experiment=[mine,other]", "own=2"])
    near = told(*both, "experiment=mien", "own=2")
    assert "experiment=mien is no choice; nearest are mine" in near
    assert "did you mean own=3?" in told(path, "experiment=mine", "owne=3")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("pkg://gone.conf", "names pkg://gone.conf, but there is no such package here; install "
                            "gone with pip"),
        ("pkg://mmavlm.nothing", "names pkg://mmavlm.nothing, but there is no such package"),
        ("file:///nowhere", "file:///nowhere is no folder of yamls; give one that is there"),
    ],
)  # fmt: skip
def test_a_search_path_that_leads_nowhere_is_told(place, message):
    assert message in told(f"hydra.searchpath=[{place}]", "fusion=none")


@pytest.mark.parametrize(
    ("launcher", "plugin", "extra"),
    [
        ("submitit_slurm", "hydra-submitit-launcher", "cluster"),
        ("submitit_local", "hydra-submitit-launcher", "cluster"),
        ("ray", "hydra-ray-launcher", "ray"),
    ],
)
def test_a_launcher_whose_plugin_is_missing_is_told_with_the_extra_that_brings_it(
    launcher, plugin, extra, monkeypatch
):
    there = mistakes._Look._options
    monkeypatch.setattr(
        mistakes._Look,
        "_options",
        lambda look, one: ["basic"] if one.key_or_group == mistakes.LAUNCHER else there(look, one),
    )
    message = told(f"hydra/launcher={launcher}", "hydra.launcher.whatever=1")
    assert message.startswith(f"hydra/launcher={launcher} needs {plugin}, not installed here")
    assert f"mmavlm[{extra}]" in message


def test_a_launcher_that_there_is_none_of_is_told_with_those_there_are():
    assert "nearest are " in told("-m", "hydra/launcher=slurmm", "seed=1,2")
