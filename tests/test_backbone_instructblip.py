"""A small InstructBLIP folder with every key of a large one loads into the backbone by name."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from mmavlm.errors import CheckpointError
from mmavlm.run import build_backbone
from support import composed, random_batch, rows_of

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "<s>", "</s>", "what", "happens", "?", "comedy", "is", "the", "movie"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("instructblip")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_word_level(), pad_token="[PAD]", unk_token="[UNK]",
        bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    tokenizer.save_pretrained(path)
    tokenizer.save_pretrained(path / "qformer_tokenizer")
    torch.manual_seed(0)
    config = InstructBlipConfig(
        vision_config=SIZES | {"image_size": 64, "patch_size": 16, "initializer_range": 0.1},
        qformer_config=SIZES
        | {"vocab_size": len(WORDS), "encoder_hidden_size": 32, "initializer_range": 0.3},
        text_config=LlamaConfig(**SIZES, vocab_size=len(WORDS)).to_dict(),
        num_query_tokens=4,
    )
    model = InstructBlipForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(path)
    return path


def _word_level():
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def build(folder, *overrides):
    return build_backbone(
        composed(
            "model=instructblip_vicuna", f"pretrained={folder}", "text_encoder=tiny",
            "encoder.dtype=float32", "llm.dtype=float32", "qformer_queries=4",
            "qformer.width=32", "qformer.layers=2", "qformer.heads=4", "qformer.hidden_width=64",
            *overrides,
        )
    )  # fmt: skip


def test_one_frame_without_memory_gives_instructblips_own_video_tokens(folder):
    model = build(folder, "memory=fifo", "memory.length=0").eval()
    theirs = InstructBlipForConditionalGeneration.from_pretrained(folder).eval()
    batch = rows_of(random_batch((1, 1)), 1)
    prompt = model.prompt_tokenizer.encode(batch.prompt)
    pixels = (batch.frames[:, 0].float() - model.encoder.mean) / model.encoder.std
    with torch.no_grad():
        ours = model.video_tokens(model.remember(model.watch(batch)))
        images = theirs.vision_model(pixels).last_hidden_state
        queries = theirs.query_tokens
        mask = torch.cat([torch.ones(1, 4), prompt.mask.float()], dim=1)
        outputs = theirs.qformer(
            input_ids=prompt.ids, attention_mask=mask, query_embeds=queries,
            encoder_hidden_states=images,
        ).last_hidden_state[:, :4]  # fmt: skip
        expected = theirs.language_projection(outputs)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_the_language_model_is_instructblips_own_and_frozen(folder):
    model = build(folder)
    theirs = InstructBlipForConditionalGeneration.from_pretrained(folder)
    ours = model.llm.model.state_dict()
    for name, value in theirs.language_model.state_dict().items():
        assert torch.equal(ours[name], value), name
    assert not any(p.requires_grad for p in model.llm.parameters())


def test_a_whole_model_trains_and_answers(folder):
    model = build(folder, "fusion=prompt_to_visual", "fusion.heads=4")
    batch = random_batch()
    sum(model(batch).values()).backward()
    assert model.temporal.query_tokens.grad.any()
    answers = model.eval().generate(batch, num_beams=2, num_answers=2, max_new_tokens=3)
    assert [len(row) for row in answers] == [2, 2]


def test_another_number_of_queries_names_the_setting(folder):
    with pytest.raises(CheckpointError, match=r"query_tokens have shape .* set qformer_queries=4"):
        build(folder, "qformer_queries=5")
