"""Exported folders by transformers' auto classes."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer

import mmavlm
from mmavlm import export
from mmavlm.core import checksums
from mmavlm.core.errors import CheckpointError, ConfigError, VideoError
from mmavlm.hub import from_pretrained
from mmavlm.loaded.auto import MmavlmConfig, MmavlmModel
from mmavlm.loaded.processor import MmavlmProcessor

PROMPTS = ["what is the genre of the movie?", "who is she?"]


@pytest.fixture(scope="module", autouse=True)
def registered():
    mmavlm.register_auto_classes()
    mmavlm.register_auto_classes()  # twice does no harm


@pytest.fixture
def folder(run, trained, tmp_path):
    assert run(export, f"checkpoint={trained}/checkpoints/best.ckpt", f"to={tmp_path}/model") == 0
    return tmp_path / "model"


@pytest.fixture
def inputs(folder, films):
    clips = sorted((films / "lvu/videos").glob("*.mp4"))[:2]
    return AutoProcessor.from_pretrained(folder)(videos=clips, text=PROMPTS)


def test_the_auto_classes_give_a_model_its_config_and_its_processor(folder):
    config = AutoConfig.from_pretrained(folder)
    assert isinstance(config, MmavlmConfig)
    assert config.run == json.loads((folder / "config.json").read_text())["run"]
    assert isinstance(AutoProcessor.from_pretrained(folder), MmavlmProcessor)
    model = AutoModel.from_pretrained(folder)
    assert isinstance(model, MmavlmModel)
    assert not model.training
    assert AutoTokenizer.from_pretrained(folder)("a dog")["input_ids"]


@torch.no_grad()
def test_the_model_is_that_of_from_pretrained(folder, inputs):
    model, own = AutoModel.from_pretrained(folder), from_pretrained(folder).state_dict()
    state = {name.removeprefix("backbone."): t for name, t in model.state_dict().items()}
    assert state.keys() == own.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in state.items())
    out = model(**inputs)
    assert out.loss is None
    assert out.media_tokens.shape[0] == 2
    labelled = model(**inputs, labels=["comedy", "a woman"])
    assert torch.isfinite(labelled.loss)
    assert torch.equal(labelled.media_tokens, out.media_tokens)


def test_it_says_what_the_loaded_model_says(folder, inputs, films):
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    settings = {"num_beams": 2, "min_new_tokens": 3, "max_new_tokens": 5}
    ids = model.generate(**inputs, **settings)
    texts = [text.strip() for text in processor.batch_decode(ids)]
    assert processor.decode(ids[0]).strip() == texts[0]
    clips = sorted((films / "lvu/videos").glob("*.mp4"))[:2]
    loaded = mmavlm.load(folder, **{f"stage.{name}": value for name, value in settings.items()})
    for clip, prompt, text in zip(clips, PROMPTS, texts, strict=True):
        assert loaded.ask(clip, prompt, num_answers=1).text == text
    usual = processor.batch_decode(model.generate(**inputs))
    for clip, prompt, text in zip(clips, PROMPTS, usual, strict=True):
        assert mmavlm.load(folder).ask(clip, prompt, num_answers=1).text == text.strip()


def test_the_processor_sees_films_as_the_model_was_trained(inputs):
    assert inputs["pixel_values_videos"].shape == (2, 4, 3, 64, 64)
    assert inputs["pixel_values_videos"].dtype == torch.uint8
    assert inputs["frame_mask"].shape == inputs["timestamps_s"].shape == (2, 4)
    assert [talk.prompt for talk in inputs["conversations"]] == PROMPTS
    assert inputs.to("cpu")["conversations"] == inputs["conversations"]


def test_weights_are_cast_and_saved_and_come_back(folder, tmp_path):
    half = AutoModel.from_pretrained(folder, dtype="bfloat16", device_map="cpu", trust=("theirs",))
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.backbone.vision.projector.weight.add_(1)
    model.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
    assert from_pretrained(tmp_path / "again") is not None
    with pytest.raises(ConfigError, match="exists already; name a folder that is to be made"):
        model.save_pretrained(tmp_path / "again")


@pytest.mark.parametrize("auto", [AutoModel, AutoProcessor])
def test_the_fence_holds_whoever_trusts_remote_code(folder, tmp_path, auto):
    theirs = tmp_path / "theirs"
    shutil.copytree(folder, theirs)
    told = json.loads((theirs / "config.json").read_text())
    told["run"]["config"]["backbone"]["_target_"] = "os.system"
    told["run"]["overrides"].append("backbone._target_=os.system")
    del told[checksums.KEY]
    told["auto_map"] = {"AutoModel": "theirs.Model", "AutoProcessor": "theirs.Processor"}
    (theirs / "config.json").write_text(json.dumps(told))
    (theirs / "theirs.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    with pytest.raises(CheckpointError, match="is not a part of this library"):
        auto.from_pretrained(theirs, trust_remote_code=True)
    assert not (tmp_path / "run").exists()


def test_what_has_no_meaning_here_is_refused(folder, inputs, tmp_path):
    with pytest.raises(ConfigError, match="takes no attn_implementation; its settings are those"):
        MmavlmModel.from_pretrained(folder, attn_implementation="eager")
    with pytest.raises(ConfigError, match="the model lies on one device"):
        AutoModel.from_pretrained(folder, device_map={"": 0})
    with pytest.raises(ConfigError, match="is loaded with its weights; call from_pretrained"):
        AutoModel.from_config(AutoConfig.from_pretrained(folder))
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    with pytest.raises(ConfigError, match="generate takes no top_z; choose of length_penalty"):
        model.generate(**inputs, top_z=1)
    with pytest.raises(ValueError, match="2 films need as many answers, got 1"):
        model(**inputs, labels=["comedy"])
    with pytest.raises(ConfigError, match="2 films and 1 prompts; give one for each"):
        processor(["a.mp4", "b.mp4"], ["why?"])
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        processor("gone.mp4", "why?")
