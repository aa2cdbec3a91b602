"""A trained model as a folder: what is in it, and that it answers as the checkpoint does."""

import json
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import lavis_model
import small_instructblip
from mmavlm import evaluate, export, predict, train
from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.hub import from_pretrained
from mmavlm.model.text import load_tokenizer
from mmavlm.run import build_backbone
from mmavlm.run.export import of_the_model
from mmavlm.stages import FineTune, OptimizerRecipe, SemanticAlignment
from mmavlm.weights.convert import convert
from mmavlm.weights.untrained import allow_untrained
from mmavlm.weights.weight_files import write_weights
from support import SMALL, composed, random_batch, tiny_backbone

PROMPT = "prompt='what is the genre of the movie?'"


@pytest.fixture
def best(trained):
    return trained / "checkpoints/best.ckpt"


@pytest.fixture
def exported(run, best, tmp_path):
    assert run(export, f"checkpoint={best}", f"to={tmp_path}/model") == 0
    return tmp_path / "model"


def test_a_folder_holds_trained_weights_settings_tokenizers_and_card_and_no_pickle(exported, best):
    files = {str(file.relative_to(exported)) for file in exported.rglob("*") if file.is_file()}
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= files
    assert "qformer_tokenizer/tokenizer.json" in files
    assert {name.rsplit(".", 1)[1] for name in files} == {"json", "safetensors", "md"}
    assert not list(exported.parent.glob(".*"))
    state = torch.load(best, weights_only=True)["state_dict"]
    weights = load_file(exported / "model.safetensors")
    assert {f"backbone.{name}" for name in weights} == set(state)
    assert all(torch.equal(t, state[f"backbone.{name}"]) for name, t in weights.items())


def test_no_place_of_the_machine_is_told(exported, films, trained):
    for name in ("config.json", "README.md"):
        text = (exported / name).read_text()
        assert str(films) not in text
        assert str(trained) not in text


@pytest.mark.parametrize(
    "overrides", [["temporal=concat"], ["temporal=video_qformer", "sound=clip_qformer"]]
)
def test_a_model_without_memory_is_exported_and_comes_back(run, tmp_path, overrides):
    model = tiny_backbone("experiment=own_videos", "alignment=none", *overrides)
    write_weights(model.state_dict(), tmp_path / "all.safetensors")
    settings = ["experiment=own_videos", "model=tiny", "alignment=none", *overrides]
    assert run(export, *settings, "init.weights=all.safetensors", "to=model") == 0
    (tmp_path / "all.safetensors").unlink()
    found = from_pretrained(tmp_path / "model").state_dict()
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())
    assert "| temporal |" in (tmp_path / "model/README.md").read_text()


def test_the_card_is_one_the_hub_reads(exported):
    card = ModelCard((exported / "README.md").read_text())
    assert card.data.library_name == "mmavlm"
    assert card.data.pipeline_tag == "video-text-to-text"
    assert "MergeAdjacent (length=20)" in card.text


def test_predict_takes_the_folder_and_answers_alike(run, exported, best, films, capsys):
    video = next((films / "lvu/videos").glob("*.mp4"))
    answers = []
    for checkpoint in (best, exported):
        code = run(predict, f"checkpoint={checkpoint}", f"video={video}", PROMPT,
                   "candidates=[comedy,action]", "format=json")  # fmt: skip
        assert code == 0
        answers.append(json.loads(capsys.readouterr().out.splitlines()[-1])["answers"])
    assert answers[0] == answers[1]


def test_evaluate_takes_the_folder_and_measures_alike(run, exported, trained, films, tmp_path):
    arguments = [f"checkpoint={exported}", f"data.root={films}", "trainer=cpu"]
    assert run(evaluate, *arguments, "hydra.run.dir=again") == 0
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    before = json.loads((trained / "metrics.json").read_text())
    tested = {name: value for name, value in before.items() if name.startswith("test/")}
    assert {name: again[name] for name in tested} == pytest.approx(tested, abs=1e-5)


@torch.no_grad()
def test_from_pretrained_gives_the_trained_model(exported, best):
    state = torch.load(best, weights_only=True)["state_dict"]
    model, other = from_pretrained(exported), tiny_backbone().eval()
    weights = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    other.load_state_dict(weights, strict=False)
    batch = random_batch()
    tokens = [m.video_tokens(m.vision.remember(m.watch(batch))) for m in (model, other)]
    assert torch.equal(*tokens)
    assert not model.training
    assert model.rank(batch, ["comedy", "action"]).shape == (2, 2)


@pytest.mark.parametrize("text", ["what is it?", "<eos> ünd \t mehr", ""])
def test_the_tokenizers_in_the_folder_read_as_the_models_own(exported, text):
    for subfolder in ("", "qformer_tokenizer"):
        stored = load_tokenizer(str(exported), subfolder)
        assert stored(text)["input_ids"] == load_tokenizer(None)(text)["input_ids"]


def test_a_hub_name_serves_as_well(exported, monkeypatch):
    asked, wanted = [], set()

    def fetch(name, *, revision, allow_patterns):
        asked.append((name, revision))
        wanted.update(allow_patterns)
        return str(exported)

    monkeypatch.setattr("mmavlm.weights.pretrained.snapshot_download", fetch)
    model = from_pretrained("someone/a-model", revision="v1")
    assert set(asked) == {("someone/a-model", "v1")}
    assert {"*.json", "*.jinja", "model.safetensors"} <= wanted
    norm = load_file(exported / "model.safetensors")["vision.norm.weight"]
    assert torch.equal(model.vision.norm.weight, norm)


def test_frozen_weights_from_a_file_of_their_own_go_along(run, films, tmp_path):
    state = tiny_backbone().state_dict().items()
    encoder = {n: t + 1 for n, t in state if n.startswith("vision.encoder")}
    save_file(encoder, tmp_path / "encoder.safetensors")
    settings = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "test=false",
                f"init.weights={tmp_path}/encoder.safetensors", "hydra.run.dir=one"]  # fmt: skip
    assert run(train, *settings) == 0
    assert run(export, "checkpoint=one/checkpoints/last.ckpt", "to=model") == 0
    (tmp_path / "encoder.safetensors").unlink()
    assert load_file(tmp_path / "model/frozen.safetensors").keys() == encoder.keys()
    found = from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in encoder.items())
    moved = tmp_path / "it's moved"
    shutil.move(tmp_path / "model", moved)
    video = next((films / "lvu/videos").glob("*.mp4"))
    quoted = str(moved).replace("'", "\\'")
    assert run(predict, f"checkpoint='{quoted}'", f"video={video}", PROMPT, "num_answers=1") == 0


CHAT = "{% for m in messages %}{{ m.role }} {{ m.content }} </s>{% endfor %}"


def checkpoint_of(stage_class, overrides, path, **settings):
    """A checkpoint of a stage that has learnt noise."""
    config = composed(*overrides)
    told = {"config": OmegaConf.to_container(config, resolve=True), "overrides": overrides}
    stage = stage_class(build_backbone(config), OptimizerRecipe(), run=told, **settings)
    for parameter in stage.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    checkpoint = {"state_dict": stage.state_dict()}
    stage.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return stage.backbone


@pytest.mark.parametrize("stage", [1, 2])
def test_a_model_on_instructblip_comes_back_whole(run, tmp_path, stage):
    folder = small_instructblip.save(tmp_path / "instructblip")
    overrides = [*small_instructblip.overrides(folder), f"data.root={tmp_path}/data"]
    if stage == 1:
        overrides.append("stage=semantic_alignment")
        model = checkpoint_of(SemanticAlignment, overrides, tmp_path / "a.ckpt")
    else:
        (tmp_path / "chat.jinja").write_text(CHAT)
        overrides += ["llm.lora={rank: 2}", "fusion=bidirectional", "fusion.heads=4",
                      f"llm.chat_template={tmp_path}/chat.jinja"]  # fmt: skip
        model = checkpoint_of(FineTune, overrides, tmp_path / "a.ckpt", tasks=["open"])
    assert run(export, "checkpoint=a.ckpt", "to=model", "license=apache-2.0") == 0
    (tmp_path / "chat.jinja").unlink(missing_ok=True)
    for file in folder.rglob("*token*"):  # the words come from the export from here on
        file.unlink() if file.is_file() else None
    found = from_pretrained(tmp_path / "model")
    state = found.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    batch = random_batch()
    prompts = [m.vision.prompt_tokenizer.encode(batch.prompt).ids for m in (found, model)]
    assert torch.equal(*prompts)
    if stage == 2:
        turns = batch.conversations[0].turns
        assert found.llm.rendering.turns(turns) == model.llm.rendering.turns(turns)
        assert found.llm.rendering.chats
        assert torch.equal(found.rank(batch, ["comedy"]), model.eval().rank(batch, ["comedy"]))
    card = (tmp_path / "model/README.md").read_text()
    assert f"come from `{folder}`" in card
    assert "license: apache-2.0" in card
    assert f"{tmp_path}/data" not in card + (tmp_path / "model/config.json").read_text()


def test_a_trained_model_goes_to_lavis_from_checkpoint_and_folder_alike(run, tmp_path):
    folder = small_instructblip.save(tmp_path / "instructblip")
    overrides = [*small_instructblip.overrides(folder), "data.root=none"]
    model = checkpoint_of(FineTune, overrides, tmp_path / "a.ckpt", tasks=["open"])
    assert run(export, "checkpoint=a.ckpt", "to=model") == 0
    convert(tmp_path / "a.ckpt", tmp_path / "one.pth", partial=True)
    convert(tmp_path / "model", tmp_path / "two.pth", partial=True)
    one, two = (
        torch.load(tmp_path / name, weights_only=True)["model"] for name in ("one.pth", "two.pth")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert torch.equal(one["llm_proj.weight"], model.vision.projector.weight)
    assert torch.equal(one["image_pe.weight"], model.vision.frame_positions.weight)
    assert not any(name.startswith(("visual_encoder", "llm_model")) for name in one)


def test_weights_of_a_file_are_exported_and_asked_without_training(run, films, tmp_path, capsys):
    folder = small_instructblip.save(tmp_path / "instructblip")
    theirs = lavis_model.state_dict(layers=2)
    kept = {n: t for n, t in theirs.items() if not lavis_model.frozen(n)}
    torch.save({"model": kept}, tmp_path / "malmm.pth")
    convert(tmp_path / "malmm.pth", tmp_path / "malmm.safetensors", partial=True)
    settings = ["experiment=lvu_genre", *small_instructblip.overrides(folder), "data.num_frames=4",
                "alignment=none", f"init.weights={tmp_path}/malmm.safetensors"]  # fmt: skip
    assert run(export, *settings, "to=model") == 0
    found = load_file(tmp_path / "model/model.safetensors")
    assert torch.equal(found["vision.projector.weight"], theirs["llm_proj.weight"])
    assert not (tmp_path / "model/frozen.safetensors").exists()
    capsys.readouterr()
    video = next((films / "lvu/videos").glob("*.mp4"))
    arguments = [f"video={video}", PROMPT, "candidates=[comedy,movie]", "format=json"]
    assert run(predict, "checkpoint=model", *arguments) == 0
    answers = json.loads(capsys.readouterr().out.splitlines()[-1])["answers"]
    assert sum(answer["probability"] for answer in answers) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpoint=BEST", "to=."], "to=. exists already; name a folder that is to be made"),
        (["checkpoint=gone.ckpt", "to=model"], "checkpoint gone.ckpt does not exist"),
        (["checkpoint=BEST", "to=BEST/model"], "best.ckpt/model cannot be written ("),
        (["to=model"], "there is nothing to export; give checkpoint="),
    ],
)
def test_a_mistake_gets_one_message(run, best, capsys, arguments, message):
    assert run(export, *(a.replace("BEST", str(best)) for a in arguments)) == 1
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_export_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"config.json cannot be read .* mmavlm.export"):
        from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"a model of type 'llama', expected 'mmavlm'"):
        from_pretrained(tmp_path)


def test_training_cannot_be_resumed_from_an_export(run, exported, films, capsys):
    arguments = ["experiment=lvu_genre", *SMALL, f"data.root={films}", f"resume={exported}"]
    assert run(train, *arguments) == 1
    assert "is an exported model, which has no optimizer" in capsys.readouterr().err


def test_places_of_the_sets_of_a_mix_stay_behind():
    told = ["experiment=mix", "data.sets.lvu.root=/home/me", "data.sets.lvu.task=genre"]
    assert of_the_model(told) == ["experiment=mix", "data.sets.lvu.task=genre"]


@pytest.mark.parametrize("lora", ["null", "{rank: 2}"])
def test_new_rows_of_an_embedding_go_along_and_come_back(run, tmp_path, lora):
    if lora != "null":
        pytest.importorskip("peft", reason="needs the lora extra")
    folder, words = tmp_path / "llama", load_tokenizer(None)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=len(words), num_attention_heads=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    words.add_tokens(["zebra-token"])
    words.save_pretrained(folder)
    overrides = ["llm=causal", f"llm.pretrained={folder}", "llm.dtype=float32",
                 f"llm.lora={lora}", "llm.resize_embeddings=true",
                 f"data.root={tmp_path}"]  # fmt: skip
    model = checkpoint_of(FineTune, overrides, tmp_path / "a.ckpt", tasks=["open"])
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    new = {name: t for name, t in saved.items() if ".new_rows." in name}
    assert {t.shape for t in new.values()} == {(1, 32)}
    assert not any(".old." in name for name in saved)
    assert run(export, "checkpoint=a.ckpt", "to=model") == 0
    found = from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(found[name], t) for name, t in model.state_dict().items())
    with pytest.raises(ConfigError, match=r"nothing was loaded into .*new rows of llm.resize"):
        allow_untrained(composed(*overrides), model)
