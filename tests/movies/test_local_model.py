import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.movies.generators import TextGenerator, TextRequest, ask
from mmavlm.movies.generators.local import LocalModel
from mmavlm.movies.stories.plan import Plot

REQUEST = TextRequest("plot", "Write a plot.", {"chapters": 1}, {}, seed=3, max_tokens=12)
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def save_model(folder, *, context=512, template=None):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", *alphabet]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2, "max_position_embeddings": context}  # fmt: skip
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokens), **sizes)).save_pretrained(folder)
    return str(folder)


def test_a_model_in_a_folder_writes_the_same_for_the_same_seed(tmp_path):
    generator = LocalModel(save_model(tmp_path))
    first, again = generator.complete(REQUEST), generator.complete(REQUEST)
    other = generator.complete(TextRequest("plot", "Write a plot.", {"chapters": 1}, {}, seed=4,
                                           max_tokens=12))  # fmt: skip
    assert first == again
    assert first.text != other.text
    assert 0 < first.completion_tokens <= 12
    assert first.prompt_tokens > 50
    assert isinstance(generator, TextGenerator)


def test_the_process_keeps_its_own_chance(tmp_path):
    generator = LocalModel(save_model(tmp_path))
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    generator.complete(REQUEST)
    assert torch.equal(torch.rand(1), expected)


def test_a_chat_template_is_used_where_there_is_one(tmp_path):
    plain = LocalModel(save_model(tmp_path / "plain"), temperature=0.0)
    chat = LocalModel(save_model(tmp_path / "chat", template=TEMPLATE), temperature=0.0)
    assert plain._prompt(REQUEST).endswith("ASSISTANT: ")
    assert chat._prompt(REQUEST).startswith("<system>You answer")
    assert chat._prompt(REQUEST).endswith("<assistant>")
    assert plain.fingerprint != chat.fingerprint


def test_an_untrained_model_ends_in_an_error_after_its_repairs(tmp_path):
    with pytest.raises(DataError, match=r"plot: none of 2 answers of transformers, .* can be used"):
        ask(LocalModel(save_model(tmp_path, context=2048)), REQUEST, Plot, repairs=1)


def test_a_request_longer_than_the_context_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"plot: the request has \d+ tokens .* context 64"):
        LocalModel(save_model(tmp_path, context=64)).complete(REQUEST)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        LocalModel(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        LocalModel(str(tmp_path))
