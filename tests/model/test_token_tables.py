import pytest
import torch
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MPNetConfig,
    MPNetModel,
    OPTConfig,
    OPTModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

from mmavlm.core.errors import ConfigError
from mmavlm.model.token_tables import Positions, TooLongError, check_rows, positions, rows_named

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 16, "max_position_embeddings": 20}
GPT = {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 20}
TABLES = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(**GPT)),
    "gptj": (GPTJForCausalLM, GPTJConfig(**GPT, rotary_dim=4)),
    "bert": (BertModel, BertConfig(**SIZES)),
    "roberta": (RobertaModel, RobertaConfig(**SIZES)),
    "mpnet": (MPNetModel, MPNetConfig(**SIZES)),
    "opt": (OPTModel, OPTConfig(**SIZES, ffn_dim=16)),
    "bart": (
        BartModel,
        BartConfig(
            vocab_size=50,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            max_position_embeddings=20,
        ),
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_positions_is_used_up_to_its_last_row_and_no_further(kind):
    model, config = TABLES[kind]
    model = model(config).eval()
    found = positions(model)
    assert found.table
    read = torch.full((1, found.most + 1), 5)
    with torch.no_grad():
        model(input_ids=read[:, :-1])
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=read)


def test_rotary_positions_go_on_beyond_what_was_trained():
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    assert positions(model) == Positions(20, table=False)
    with torch.no_grad():
        model(input_ids=torch.full((1, 21), 5))


def test_relative_positions_have_no_limit():
    t5 = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    assert positions(T5EncoderModel(t5)) is None
    assert (
        positions(BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=1))) is None
    )


def test_spare_rows_are_fine_and_missing_ones_are_refused_with_both_numbers():
    check_rows(10, 12, "the language model", "do this")
    with pytest.raises(ConfigError, match=r"of the LLM has 12 tokens, but its embedding 10 rows"):
        check_rows(12, 10, "the LLM", "do this")


def test_a_row_that_is_too_long_is_told_by_the_name_of_its_item():
    with pytest.raises(TooLongError, match=r"item b: too long") as told, rows_named(["a", "b"]):
        raise TooLongError("too long", 1)
    assert told.value.row == 1
