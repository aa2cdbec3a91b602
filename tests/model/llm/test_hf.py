import sys

import pytest
import torch
from models import LLAMA, T5, asking, save, seen
from safetensors.torch import load_file, save_file
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.generation import Generation
from mmavlm.model.llm import HFLanguageModel, LoraSettings
from mmavlm.model.text import load_tokenizer

PROMPTS, TARGETS = ["what is the genre of the movie?", "hi"], ["comedy", "a zebra"]
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module", params=["llama", "t5"])
def instructblip(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("instructblip")
    text = {"model_type": request.param} | {"llama": LLAMA, "t5": T5}[request.param]
    vision = TINY | {"image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    model = InstructBlipForConditionalGeneration(
        InstructBlipConfig(vision_config=vision, qformer_config=TINY, text_config=text)
    )
    model.save_pretrained(folder)
    load_tokenizer(None).save_pretrained(folder)
    return model.eval(), str(folder)


def video(llm, rows=2):
    return torch.randn(rows, 3, llm.width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "t5"])
@pytest.mark.parametrize("how", [{}, {"max_shard_size": "100KB"}])
def test_saved_models_are_read_whole_or_in_shards(kind, how, tmp_path):
    folder = save(kind, tmp_path, **how)
    llm = HFLanguageModel(folder, dtype="float32")
    stored = {}
    for file in tmp_path.glob("*.safetensors"):
        stored |= load_file(file)
    state = llm.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())
    assert torch.isfinite(llm.loss(asking(PROMPTS, TARGETS), seen(video(llm))))


def test_it_is_frozen_unless_told_otherwise(llama):
    assert not any(p.requires_grad for p in HFLanguageModel(llama).parameters())
    trained = HFLanguageModel(llama, dtype="float32", trainable=True).train()
    assert all(p.requires_grad for p in trained.parameters())
    assert trained.model.training


def test_weights_are_held_in_the_dtype_asked_for(llama):
    assert HFLanguageModel(llama).model.dtype == torch.bfloat16
    assert HFLanguageModel(llama, dtype="float16").model.dtype == torch.float16


def test_the_language_model_of_an_instructblip_is_read_alone(instructblip):
    whole, folder = instructblip
    llm = HFLanguageModel(folder, part="language_model", dtype="float32")
    assert type(llm.model) is type(whole.language_model)
    expected = whole.language_model.state_dict()
    state = llm.model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert llm.rank(asking(PROMPTS), seen(video(llm)), TARGETS).shape == (2, 2)
    answers = llm.generate(
        asking(PROMPTS), seen(video(llm)), Generation(num_beams=2, num_answers=2, max_new_tokens=3)
    )
    assert [len(row) for row in answers] == [2, 2]


def test_a_tokenizer_may_lie_elsewhere(llama, tmp_path):
    model_only = tmp_path / "model"
    save("llama", model_only)
    for file in model_only.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer could be read from"):
        HFLanguageModel(str(model_only))
    assert HFLanguageModel(str(model_only), tokenizer=llama).answer_length("comedy") == 2


def test_an_instructblip_taken_whole_is_refused_with_the_remedy(instructblip):
    with pytest.raises(CheckpointError, match=r"'instructblip'.* set llm.part=language_model"):
        HFLanguageModel(instructblip[1])


def test_a_part_of_a_model_that_has_none_is_refused(llama):
    with pytest.raises(ConfigError, match=r"llm.part is 'language_model' of .* type 'llama'"):
        HFLanguageModel(llama, part="language_model")


def test_missing_weights_are_never_made_up(tmp_path):
    folder = save("llama", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.norm.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing: model.norm.weight"):
        HFLanguageModel(folder)


def test_weights_the_model_has_no_use_for_are_named(tmp_path):
    folder = save("llama", tmp_path)
    state = load_file(tmp_path / "model.safetensors") | {"model.extra": torch.zeros(1)}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 unexpected: model.extra"):
        HFLanguageModel(folder)


def test_adapters_alone_learn_and_begin_as_the_model_was(llama):
    plain = HFLanguageModel(llama, dtype="float32")
    adapted = HFLanguageModel(llama, dtype="float32", lora={"rank": 2}).eval()
    learning = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    torch.testing.assert_close(
        adapted.rank(asking(PROMPTS), seen(video(plain)), TARGETS),
        plain.rank(asking(PROMPTS), seen(video(plain)), TARGETS),
    )
    adapted.train().loss(asking(PROMPTS, TARGETS), seen(video(plain))).backward()
    assert any(p.grad is not None and p.grad.any() for p in adapted.parameters())


def test_adapters_learn_in_single_precision(llama):
    llm = HFLanguageModel(llama, lora=LoraSettings(target_modules=["q_proj"]))
    assert {p.dtype for p in llm.parameters() if p.requires_grad} == {torch.float32}
    assert torch.isfinite(llm.loss(asking(PROMPTS, TARGETS), seen(video(llm))))
    answers = llm.generate(
        asking(PROMPTS), seen(video(llm)), Generation(num_beams=1, max_new_tokens=2)
    )
    assert len(answers) == 2


def test_adapters_without_a_place_are_refused(llama):
    with pytest.raises(ConfigError, match=r"peft cannot adapt LlamaForCausalLM.*target_modules"):
        HFLanguageModel(llama, lora={"target_modules": ["nowhere"]})


def test_lora_without_peft_says_what_to_install(llama, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"llm.lora needs peft, .*pip install 'mmavlm\[lora\]'"):
        HFLanguageModel(llama, lora={})


@pytest.mark.parametrize(("kind", "layer"), [("4bit", "Linear4bit"), ("8bit", "Linear8bitLt")])
def test_adapters_learn_on_quantised_weights(llama, kind, layer):
    pytest.importorskip("bitsandbytes")
    llm = HFLanguageModel(
        llama, dtype="float32", quantization=kind, lora={"rank": 2}, gradient_checkpointing=True
    ).train()
    assert layer in {type(module).__name__ for module in llm.modules()}
    learning = {name: p for name, p in llm.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in learning)
    shown = video(llm).requires_grad_()
    llm.loss(asking(PROMPTS, TARGETS), seen(shown)).backward()
    assert all(p.grad is not None for p in learning.values())
    assert shown.grad.any()
    answers = llm.eval().generate(
        asking(PROMPTS), seen(shown.detach()), Generation(num_beams=1, max_new_tokens=2)
    )
    assert len(answers) == 2


def test_quantization_without_bitsandbytes_says_what_to_install(llama, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"llm.quantization=4bit needs .*'\.\[quant\]'"):
        HFLanguageModel(llama, quantization="4bit")


def test_an_unknown_quantization_is_refused(llama):
    with pytest.raises(ConfigError, match=r"llm.quantization is '3bit'; choose null, '8bit' or"):
        HFLanguageModel(llama, quantization="3bit")


def test_training_everything_and_adapters_exclude_each_other(llama):
    with pytest.raises(ConfigError, match=r"llm.trainable=true .* neither llm.lora nor"):
        HFLanguageModel(llama, trainable=True, lora={})


def test_an_unknown_dtype_is_refused(llama):
    with pytest.raises(ConfigError, match=r"llm.dtype is 'int3'; choose one of auto, float32"):
        HFLanguageModel(llama, dtype="int3")
