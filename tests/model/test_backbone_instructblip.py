"""A small InstructBLIP folder with every key of a large one loads into the backbone by name."""

import pytest
import torch
from transformers import InstructBlipForConditionalGeneration

import small_instructblip
from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.core.generation import Generation
from mmavlm.run import build_backbone
from support import composed, random_batch, rows_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_instructblip.save(tmp_path_factory.mktemp("instructblip"))


def build(folder, *overrides):
    return build_backbone(composed(*small_instructblip.overrides(folder), *overrides))


def test_one_frame_without_memory_gives_instructblips_own_video_tokens(folder):
    model = build(folder, "memory=fifo", "memory.length=0").eval()
    theirs = InstructBlipForConditionalGeneration.from_pretrained(folder).eval()
    batch = rows_of(random_batch((1, 1)), 1)
    prompt = model.vision.prompt_tokenizer.encode(batch.prompt)
    pixels = (batch.frames[:, 0].float() - model.vision.encoder.mean) / model.vision.encoder.std
    with torch.no_grad():
        ours = model.video_tokens(model.vision.remember(model.watch(batch)))
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
    assert model.vision.temporal.query_tokens.grad.any()
    answers = model.eval().generate(batch, Generation(num_beams=2, num_answers=2, max_new_tokens=3))
    assert [len(row) for row in answers] == [2, 2]


def test_another_number_of_queries_names_the_setting(folder):
    with pytest.raises(CheckpointError, match=r"query_tokens have shape .* set qformer_queries=4"):
        build(folder, "qformer_queries=5")


def test_a_q_former_with_spare_rows_is_taken_and_one_with_too_few_is_refused(tmp_path):
    save = small_instructblip.save
    words, other = save(tmp_path / "words"), save(tmp_path / "larger", vocabulary=20)
    of_words = ["prompt_tokenizer.pretrained", "llm.tokenizer"]
    padded = build(other, *(f"{key}={words}" for key in of_words))
    assert padded.vision.temporal.qformer.embeddings.word_embeddings.num_embeddings == 20
    assert padded(random_batch())["text"].isfinite()
    with pytest.raises(ConfigError, match=r"the Q-Former .* has 20 tokens, but its embedding 11"):
        build(words, f"prompt_tokenizer.pretrained={other}")
