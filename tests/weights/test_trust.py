"""Artefacts are data: no setting inside a checkpoint or an export runs or reads anything."""

import json
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mmavlm import evaluate, export, predict, train
from mmavlm.core import checksums
from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.quoting import quoted
from mmavlm.hub import from_pretrained
from mmavlm.run import build_backbone
from mmavlm.run.export import write
from mmavlm.stages import FineTune, OptimizerRecipe
from mmavlm.weights.checkpoint import RUN_KEY, read_checkpoint
from mmavlm.weights.offered import offered_parts
from mmavlm.weights.seal import SEAL, sealed
from mmavlm.weights.trust import Fence
from support import SMALL, composed

SECRET = "a-value-of-the-environment"
PROMPT = "prompt='what is the genre of the movie?'"
OVERRIDES = ["experiment=lvu_genre", "model=tiny", "fusion=query_to_visual"]


def call(target, *arguments, **settings):
    """A part that would call something else."""
    return {"_target_": target, **({"_args_": list(arguments)} if arguments else {}), **settings}


def hostile(place):
    """(setting, value) of the ways to run, read or fetch something from a stored config."""
    touch = f"import os; os.system('touch {place}/ran')"
    secret, fusion = str(place / "secret"), "backbone.vision.fusion"
    programs = [
        call("sympy.sympify", a=f"__import__('os').system('touch {place}/ran')"),
        call("builtins.eval", touch),
        call("builtins.exec", touch),
        call("os.system", f"touch {place}/ran"),
        call("posix.system", f"touch {place}/ran"),
        call("subprocess.run", ["touch", f"{place}/ran"]),
        call("subprocess.Popen", ["touch", f"{place}/ran"]),
        call("os.makedirs", f"{place}/ran"),
        call("builtins.open", f"{place}/ran", "w"),
        call("pathlib.Path.touch", f"{place}/ran"),
        call("shutil.copy", secret, f"{place}/ran"),
        call("runpy.run_path", secret),
        call("importlib.import_module", "antigravity"),
        call("torch.load", f=secret, weights_only=False),
        call("torch.hub.load", "someone/evil", "model"),
        call("torch.utils.cpp_extension.load_inline", name="x", cpp_sources="", functions=[]),
        call("torch.serialization.load", f=secret),
        call("numpy.load", secret, allow_pickle=True),
        call("pickle.loads", "x"),
        call("joblib.load", secret),
        call("IPython.utils.process.system", f"touch {place}/ran"),
        call("setuptools._distutils.spawn.spawn", ["touch", f"{place}/ran"]),
        call("distutils.spawn.spawn", ["touch", f"{place}/ran"]),
        call("transformers.AutoModel.from_pretrained", "someone/evil", trust_remote_code=True),
        call("transformers.pipeline", model="someone/evil", trust_remote_code=True),
        call("hydra.utils.instantiate", call("os.system", f"touch {place}/ran")),
        call("hydra.utils.get_method", "os.system"),
        call("functools.partial", call("hydra.utils.get_method", path="os.system")),
        call("omegaconf.OmegaConf.load", secret),
        call("lightning.Trainer", default_root_dir=f"{place}/ran"),
        call("webbrowser.open", "http://example.org"),
        # parts of the library that are not meant to be chosen, and what its modules import
        call("mmavlm.core.metrics_file.write_text", path=f"{place}/ran", text="x"),
        call("mmavlm.core.files.write_whole", path=f"{place}/ran", content="x"),
        call("mmavlm.run.run.instantiate", call("os.system", f"touch {place}/ran")),
        call("mmavlm.export.shutil.rmtree", str(place)),
        call("mmavlm.commands.cli.os.system", f"touch {place}/ran"),
        call("mmavlm.weights.pretrained.PretrainedFolder", "someone/evil"),
        call("mmavlm.weights.pretrained.torch.load", f=secret, weights_only=False),
        call("mmavlm.hub.from_pretrained", "someone/evil"),
        call("mmavlm.movies.ensure_movie_set", root=f"{place}/ran"),
        call("mmavlm.model.fusion.bidirectional.nn.Module"),
        call("mmavlm.model.fusion..Bidirectional"),
        call("mmavlm.model.fusion.Bidirectional.__init__.__globals__.get"),
    ]  # fmt: skip
    offered = "mmavlm.model.fusion.Bidirectional"
    return [
        *((fusion, program) for program in programs),
        ("backbone.vision.temporal.visual_memory", call("os.system", f"touch {place}/ran")),
        ("encoder.config", {"layers": [1, {"deep": [call("os.system", f"touch {place}/ran")]}]}),
        ("backbone.alignment", [call("os.system", f"touch {place}/ran")]),
        (fusion, call(offered, 1, 2)),
        (fusion, call(offered, _partial_="yes")),
        (fusion, call(offered, _recursive_=False)),
        (fusion, call(offered, _convert_="all")),
        (fusion, {"_target_": "${oc.env:TARGET}"}),
        (fusion, {"_target_": ["os.system"]}),
        (fusion, {"_target_": "os.system "}),
        ("backbone.llm.prompt_template", "{prompt} ${oc.env:MMAVLM_SECRET}"),
        ("backbone.llm.prompt_template", "{prompt} ${oc.decode:${oc.env:MMAVLM_SECRET}}"),
        ("backbone.llm.prompt_template", "{prompt} \\${oc.env:MMAVLM_SECRET}"),
        ("backbone.llm.prompt_template", "{prompt} ${${a}:MMAVLM_SECRET}"),
        ("backbone.llm.prompt_template", "{prompt} ${hydra:runtime.cwd}"),
        ("encoder.compile_backend", "${oc.env:MMAVLM_SECRET}"),
        ("backbone.llm.chat_template", secret),
        ("backbone.llm.chat_template", "secret"),
        ("backbone.llm.tokenizer", "someone/evil"),
        ("backbone.llm.tokenizer", "secret"),
        ("backbone.llm.pretrained", secret),
        ("backbone.alignment.text_encoder.pretrained", "http://example.org/model"),
        ("prompt_tokenizer.pretrained", "../secret"),
        ("prompt_tokenizer.subfolder", "../../secret"),
        ("pretrained", "someone/evil"),
        ("encoder.checkpoint_path", "secret.pth"),
        ("encoder.name", "hf-hub:someone/evil"),
        ("encoder.name", "local_model"),
        ("encoder.config", {"attn_implementation": "kernels-community/evil"}),
        ("encoder.config", {"_attn_implementation": "evil"}),
    ]  # fmt: skip


# What only the overrides of a checkpoint can reach: what surrounds a run, and its data.
AROUND = [
    "hydra.run.dir={place}/ran",
    "+hydra.callbacks.x._target_=os.system",
    "hydra/launcher=joblib",
    "hydra.searchpath=[file://{place}]",
    "hydra.job_logging.handlers.x.filename={place}/ran",
    "+experiment@hydra.callbacks=demo",
    "+prepare.root={place}/ran",
    "logger=wandb",
    "+logger.wandb.settings={{base_url: 'http://example.org'}}",
    "experiment=../../../{place}/evil",
    "+experiment@backbone=/etc/passwd",
    "data.root={place}/secret",
    "data.root=secret",
    "data.root='${{oc.env:MMAVLM_SECRET}}'",
    "data.cache={place}/ran",
    "data.index={place}/ran",
    "data.reader.folder=../../secret",
    "data.reader._target_=mmavlm.export.shutil.rmtree",
    "+data.sets.one={{_target_: mmavlm.data.datamodule.VideoDataModule, root: {place}/secret}}",
    "+data.sets.one.reader={{_target_: os.system, command: x}}",
    "paths.run={place}/ran",
    "paths.data=ran",
    "init.weights={place}/secret",
    "callbacks.checkpoint.dirpath={place}/ran",
    "+callbacks.x={{_target_: os.system, command: 'touch {place}/ran'}}",
    "+trainer.plugins=[{{_target_: os.system, command: 'touch {place}/ran'}}]",
    "trainer.default_root_dir={place}/ran",
    "+stage.compare={{genre: '${{oc.env:MMAVLM_SECRET}}'}}",
    "data.task=glob(*)",
    "seed=1,2",
]


SEEN = {"on": False, "events": []}  # files opened, programs started, connections made


def _record(event, arguments):
    if SEEN["on"] and event in ("open", "os.system", "subprocess.Popen", "socket.connect"):
        SEEN["events"].append((event, str(arguments[0])))


@pytest.fixture(scope="module", autouse=True)
def watched():
    sys.addaudithook(_record)  # it cannot be removed, only be off


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder whose `secret` nothing may open and in which nothing may make `ran`."""
    monkeypatch.setenv("MMAVLM_SECRET", SECRET)
    (tmp_path / "secret").write_text("print('ran')")
    return tmp_path


@pytest.fixture(scope="module")
def checkpoint():
    """A checkpoint as a stage writes it, of the tiny model."""
    config = composed(*OVERRIDES, "data.root=data")
    run = {"config": OmegaConf.to_container(config, resolve=True), "overrides": OVERRIDES}
    stage = FineTune(build_backbone(config), OptimizerRecipe(), run=run, tasks=["genre"])
    held = {"state_dict": stage.state_dict()}
    stage.on_save_checkpoint(held)
    return held


def exported(checkpoint, folder):
    folder.mkdir()
    write(checkpoint, folder, None)


def read_config(path):
    """What an attacker writes anew: the config without its checksum."""
    whole = json.loads(path.read_text())
    return {key: value for key, value in whole.items() if key != checksums.KEY}


def with_setting(checkpoint, key, value):
    """The checkpoint of somebody whose config sets `key`."""
    run = deepcopy(checkpoint[RUN_KEY])
    group = run["config"]
    *parents, last = key.split(".")
    for name in parents:
        group[name] = group.get(name) or {}
        group = group[name]
    group[last] = value
    return {**checkpoint, RUN_KEY: run}


def with_override(checkpoint, override):
    run = {**checkpoint[RUN_KEY], "overrides": [*OVERRIDES, override]}
    return {**checkpoint, RUN_KEY: run}


def as_override(key, value):
    def literal(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k}: {literal(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(literal, value)) + "]"
        return quoted(value) if isinstance(value, str) else json.dumps(value)

    return f"++{key}={literal(value)}"


def refuses(act, place):
    """Run `act`, which must be refused, and see that it has opened, run and made nothing."""
    SEEN.update(on=True, events=[])
    try:
        message = act()
    finally:
        SEEN["on"] = False
    assert "may only choose parts of this library" in message, message
    assert SECRET not in message
    assert not (place / "ran").exists()
    assert {event for event, _ in SEEN["events"]} <= {"open"}
    assert not any("secret" in name for _, name in SEEN["events"])


def hub_message(folder):
    with pytest.raises(CheckpointError) as refused:
        from_pretrained(folder)
    return str(refused.value)


def test_no_stored_config_runs_or_reads_anything_through_the_python_api(checkpoint, place):
    exported(checkpoint, place / "model")
    path = place / "model/config.json"
    whole = read_config(path)
    cases = hostile(place)
    assert len(cases) >= 60
    for key, value in cases:
        evil = deepcopy(whole)
        evil["run"] = with_setting({RUN_KEY: whole["run"]}, key, value)[RUN_KEY]
        path.write_text(json.dumps(evil))
        refuses(lambda: hub_message(place / "model"), place)


@pytest.mark.parametrize("command", [evaluate, predict])
def test_no_stored_override_runs_or_reads_anything(run, capsys, checkpoint, place, command):
    overrides = [as_override(key, value) for key, value in hostile(place)]
    overrides += [override.format(place=place) for override in AROUND]
    asked = ["video=film.mp4", PROMPT] if command is predict else []

    def message():
        assert run(command, f"checkpoint={place}/evil.ckpt", *asked) == 1
        out, err = capsys.readouterr()
        assert out == ""
        return f"{override}: {err}"

    for override in overrides:
        torch.save(with_override(checkpoint, override), place / "evil.ckpt")
        refuses(message, place)


def test_no_stored_config_is_exported_that_runs_or_reads(run, capsys, checkpoint, place):
    def message():
        assert run(export, f"checkpoint={place}/evil.ckpt", f"to={place}/ran") == 1
        return capsys.readouterr().err

    cases = hostile(place)
    for key, value in [*cases[::9], *cases[-3:], ("init.weights", str(place / "secret"))]:
        torch.save(with_setting(checkpoint, key, value), place / "evil.ckpt")
        refuses(message, place)


def test_weights_are_taken_from_a_checkpoint_whose_settings_are_hostile(
    run, films, checkpoint, place
):
    """`init.alignment`, as `resume`, takes weights: the settings are never looked at."""
    program = call("os.system", f"touch {place}/ran")
    evil = with_setting(checkpoint, "backbone.vision.fusion", program)
    evil[RUN_KEY]["overrides"] = [as_override("fusion", program), f"hydra.run.dir={place}/ran"]
    stage_2 = ("backbone.vision.projector.", "backbone.llm.", "backbone.vision.fusion.")
    stage_1 = {n: t for n, t in evil["state_dict"].items() if not n.startswith(stage_2)}
    torch.save({**evil, "state_dict": stage_1}, place / "a.ckpt")
    small = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "data.limit_items=4",
             "test=false"]  # fmt: skip
    assert run(train, *small, f"init.alignment={place}/a.ckpt", "hydra.run.dir=one") == 0
    assert not (place / "ran").exists()


def test_a_best_checkpoint_that_a_resumed_one_names_elsewhere_is_not_looked_at(
    run, films, place, capsys
):
    small = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "data.limit_items=4"]
    assert run(train, *small, "test=false", "hydra.run.dir=one") == 0
    held = torch.load("one/checkpoints/last.ckpt", weights_only=True)
    for state in held["callbacks"].values():
        if "best_model_path" in state:
            state |= {"best_model_path": str(place / "private/secret")}
    torch.save(held, "evil.ckpt")
    assert run(train, *small, "resume=evil.ckpt", "hydra.run.dir=two") == 0
    assert "is not looked at" in capsys.readouterr().err


def test_a_link_that_leads_out_of_the_folder_is_refused(checkpoint, place):
    exported(checkpoint, place / "model")
    (place / "model/tokenizer.json").unlink()
    (place / "model/tokenizer.json").symlink_to(place / "secret")
    with pytest.raises(CheckpointError, match="leads out of"):
        from_pretrained(place / "model")


@pytest.mark.parametrize(
    "damage",
    [
        "[" * 100_000,
        '{"model_type": "mmavlm"}',
        '{"model_type": "mmavlm", "run": {"config": {"backbone": 3}}}',
        '{"model_type": "mmavlm", "run": [1]}',
        '{"model_type": "mmavlm", "run": {"config": null, "overrides": []}}',
    ],
)
def test_a_config_of_another_form_is_named(checkpoint, tmp_path, damage):
    exported(checkpoint, tmp_path / "model")
    (tmp_path / "model/config.json").write_text(damage)
    with pytest.raises(CheckpointError, match=r"config.json cannot be read"):
        from_pretrained(tmp_path / "model")


def test_a_model_larger_than_the_memory_is_refused_before_it_is_built(checkpoint, tmp_path):
    exported(checkpoint, tmp_path / "model")
    path = tmp_path / "model/config.json"
    whole = read_config(path)
    for key in ("vision.max_num_frames", "vision.encoder.width"):
        evil = with_setting({RUN_KEY: whole["run"]}, f"backbone.{key}", 10**12)[RUN_KEY]
        evil["config"]["encoder"] = evil["config"]["backbone"]["vision"]["encoder"]
        path.write_text(json.dumps({**whole, "run": evil}))
        with pytest.raises(Exception, match="are free; set smaller sizes"):
            from_pretrained(tmp_path / "model")


@pytest.fixture
def own_fusion(tmp_path, monkeypatch):
    """A user's package with a fusion of their own, and an import that it could be reached by."""
    package = tmp_path / "packages/theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os\nfrom mmavlm.model.fusion import NoFusion\n\nclass Theirs(NoFusion):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    return "theirs.Theirs"


def test_a_fusion_of_a_users_own_is_refused_until_its_package_is_trusted(
    run, capsys, films, tmp_path, own_fusion
):
    own = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "data.limit_items=4",
           f"fusion._target_={own_fusion}", "test=false", "hydra.run.dir=one"]  # fmt: skip
    assert run(train, *own) == 0
    ask = ["checkpoint=one/checkpoints/last.ckpt", "hydra.run.dir=two"]
    capsys.readouterr()
    assert run(evaluate, *ask) == 1
    assert "trust=theirs" in capsys.readouterr().err
    assert run(evaluate, *ask, "trust=theirs") == 0
    assert run(export, ask[0], "to=model") == 1
    assert run(export, ask[0], "to=model", "trust=[theirs]") == 0
    assert "mmavlm.load(\"path/of/this/folder\", trust=['theirs'])" in card("model")
    with pytest.raises(CheckpointError, match="trust=theirs"):
        from_pretrained("model")
    assert type(from_pretrained("model", trust=("theirs",)).vision.fusion).__name__ == "Theirs"


def card(folder):
    return (Path(folder) / "README.md").read_text()


def test_trust_in_a_package_covers_what_it_defines_not_what_it_imports(own_fusion):
    fence = Fence("a checkpoint", trust=("theirs",))
    fence.check("fusion._target_", own_fusion)
    for alias in ("theirs.os.system", "theirs.os", "theirs.NoFusion", "thei.rs", "theirs"):
        with pytest.raises(CheckpointError, match="not a part of this library"):
            fence.check("fusion._target_", alias)


def test_trust_in_the_library_itself_would_admit_everything(checkpoint):
    with pytest.raises(ConfigError, match="admit every function"):
        Fence.around(checkpoint[RUN_KEY], "a checkpoint", ["mmavlm"])


def test_places_are_taken_from_the_users_own_runs_and_from_nobody_else(films, tmp_path, checkpoint):
    held = with_override(checkpoint, f"data.root={films}")
    theirs = held[RUN_KEY]
    own = sealed(theirs)
    Fence.around(own, "mine", ()).check("data.root", str(films))
    Fence.around(theirs, "theirs", [str(films)]).check("data.root", str(films))
    forged = {**own, "overrides": [*own["overrides"], "pretrained=/somewhere"]}
    for run in (theirs, forged, {**theirs, SEAL: "0" * 64}, {**theirs, SEAL: None}):
        with pytest.raises(CheckpointError, match="names a file, folder"):
            Fence.around(run, "theirs", ()).check("data.root", str(films))


def test_another_user_does_not_take_the_seal(checkpoint, tmp_path, monkeypatch):
    mine = sealed(checkpoint[RUN_KEY])
    assert Fence.around(mine, "it", ()).own
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert not Fence.around(mine, "it", ()).own


def test_without_a_home_checkpoints_are_written_without_a_seal(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert SEAL not in sealed(checkpoint[RUN_KEY])


def test_the_command_line_replaces_what_a_checkpoint_may_not_say(
    run, films, tmp_path, checkpoint, capsys
):
    torch.save(with_override(checkpoint, "data.root=/elsewhere"), tmp_path / "theirs.ckpt")
    ask = ["checkpoint=theirs.ckpt", "trainer=cpu", "data.num_workers=0", "data.limit_items=2"]
    assert run(evaluate, *ask) == 1
    assert "make this setting yourself: data.root=…" in capsys.readouterr().err
    assert run(evaluate, *ask, f"data.root={films}", "hydra.run.dir=two") == 0


def test_every_part_that_conf_offers_is_defined_in_the_library():
    from hydra.utils import get_object

    parts = offered_parts()
    assert {"mmavlm.model.fusion.Bidirectional", "mmavlm.model.llm.tiny_llm"} <= parts
    for name in parts:
        found = get_object(name)
        assert callable(found)
        assert found.__module__.startswith("mmavlm.")


@pytest.mark.parametrize(
    "choices",
    [["experiment=mma_mff_lvu_genre"], ["experiment=mma_mff_stage1"], ["temporal=concat"]],
    ids=str,
)
def test_what_the_library_s_own_recipes_set_passes_the_fence(choices):
    config = OmegaConf.to_container(composed("data.root=/data", *choices), resolve=True)
    fence = Fence("it")
    for group in ("encoder", "prompt_tokenizer", "backbone", "stage", "optimizer"):
        fence.check(group, config[group])


def test_ordinary_checkpoints_pass_the_fence_without_a_seal(checkpoint, tmp_path):
    run = {name: value for name, value in checkpoint[RUN_KEY].items() if name != SEAL}
    torch.save({**checkpoint, RUN_KEY: run}, tmp_path / "a.ckpt")
    fence = Fence.around(read_checkpoint(tmp_path / "a.ckpt")[RUN_KEY], "it", ())
    assert not fence.own
    for group in ("encoder", "prompt_tokenizer", "backbone", "stage", "optimizer"):
        fence.check(group, run["config"][group])
