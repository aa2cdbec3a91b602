"""The estimate of a step's activations against what the allocator gives out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mmavlm.core.conversation import Conversation
from mmavlm.core.footprint import Phase, layers_phase, peak, recomputed
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Shown, Turn
from mmavlm.model.llm import LoraSettings
from mmavlm.model.llm.adapt import add_lora
from support import peak_bytes, random_batch, tiny_backbone

LLAMA = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 100,
}  # fmt: skip
WITHIN = 1.5  # estimate and measurement differ by no more than this factor


def lengths(model, batch):
    tokenizer = model.vision.prompt_tokenizer
    prompt = max(int(n) for n in tokenizer.encode(batch.prompt, device="cpu").mask.sum(1))
    answer = max(model.llm.answer_length(text) for text in batch.target) if model.llm else 8
    return prompt, answer


SMALL = ["qformer.width=64", "alignment=none"]
TOKENS, PATCHES = "temporal=context_content", "temporal=every_frame"
SHAPES = {
    "a long film": (2, 24, [*SMALL]),
    "a wide film": (2, 12, [*SMALL, "encoder.patch_size=4", "encoder.width=128"]),
    "a wide bank": (2, 12, [*SMALL, "encoder.patch_size=4", "memory=none"]),
    "a fused film": (2, 12, [*SMALL, "fusion=prompt_to_visual", "encoder.patch_size=8"]),
    "two tokens a frame": (2, 12, [*SMALL, TOKENS]),
    "two tokens of wide frames": (2, 12, [*SMALL, TOKENS, "encoder.patch_size=4",
                                          "encoder.width=128", "encoder.chunk_size=2"]),
    "two tokens a frame of some": (2, 24, [*SMALL, TOKENS, "temporal.max_frames=6"]),
    "two tokens a frame, a frozen reader": (2, 12, [*SMALL, TOKENS,
                                                    "temporal.train_qformer=false"]),
    "words that read frames": (2, 12, [*SMALL, "temporal=context_content_bert"]),
    "two tokens a slot": (2, 12, [*SMALL, TOKENS, "temporal.memory=${memory}", "memory.length=4"]),
    "pooled patches": (2, 12, [*SMALL, PATCHES, "encoder.patch_size=4", "llm.width=128",
                               "encoder.chunk_size=2"]),
    "pooled patches, as published": (2, 12, [*SMALL, PATCHES, "encoder.patch_size=4",
                                             "encoder.width=128", "encoder.chunk_size=2",
                                             "temporal.pool=bilinear"]),
    "a large language model": (8, 2, [*SMALL, "llm.width=256", "llm.layers=8"]),
    "a frozen language model": (8, 2, [*SMALL, "llm.width=256", "llm.layers=8",
                                       "llm.trainable=false"]),
    "a language model computed twice": (8, 2, [*SMALL, "llm.width=256", "llm.layers=8",
                                               "+llm.gradient_checkpointing=true"]),
    "aligned frames": (8, 6, ["alignment=info_nce", "aligned_frames=all"]),
    "stage one": (8, 6, ["stage=semantic_alignment", "aligned_frames=all"]),
    "a deep q-former": (8, 6, ["alignment=none", "qformer.layers=8", "qformer.width=128"]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_estimate_is_near_the_measured_peak(name):
    rows, frames, overrides = SHAPES[name]
    batch = random_batch((frames,) * rows, targets=["a long answer"] * rows)
    model = tiny_backbone(*overrides).train()
    estimate = model.activation_bytes(rows, frames, *lengths(model, batch))
    answer = model.llm is not None
    measured = peak_bytes(lambda: sum(model(batch, answer=answer).values()).backward())
    assert measured / WITHIN < estimate < measured * WITHIN


SOUNDS = {
    "many clips": (8, 16, []),
    "a wide audio Q-Former": (8, 4, ["sound.temporal.width=256", "sound.temporal.layers=6",
                                     "sound.temporal.hidden_width=1024"]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SOUNDS))
def test_the_estimate_counts_what_is_heard(name):
    rows, clips, overrides = SOUNDS[name]
    model = tiny_backbone("sound=clip_qformer", *SMALL, *overrides).train()
    batch = random_batch((2,) * rows, targets=["a long answer"] * rows)
    prompt, answer = lengths(model, batch)
    batch = heard_too(batch, clips)
    estimate = model.activation_bytes(rows, 2, prompt, answer, clips=clips)
    measured = peak_bytes(lambda: sum(model(batch).values()).backward())
    assert measured / WITHIN < estimate < measured * WITHIN


def heard_too(batch, clips):
    """A batch that lets a sound of so many clips be heard in front of each film."""
    sound = Medium(medium_id="sound", source=Path("sound.wav"), kind="sound")
    talks = [
        Conversation(
            (
                Turn("user", (Shown(1), Shown(0), talk.prompt)),
                Turn("assistant", (talk.target,), learned=True),
            ),
            (*talk.media, sound),
        )
        for talk in batch.conversations
    ]
    return replace(
        batch,
        conversations=talks,
        media_rows=[(row, row) for row in range(len(batch))],
        clips=torch.rand(len(batch), clips, 32_000) - 0.5,
        clip_mask=torch.ones(len(batch), clips, dtype=torch.bool),
    )


def test_phases_pile_up_and_moments_pass():
    assert peak([Phase(3, 10), Phase(4, 1), Phase(2)]) == 13
    assert peak([Phase(3, 1), Phase(4, 1), Phase(2)]) == 9
    assert peak([]) == 0


def test_layers_computed_again_keep_their_inputs_and_one_layer():
    assert recomputed(Phase(80), layers=4, inputs=5) == Phase(20, 40)


def test_a_layer_with_an_adapter_is_counted_once_whatever_its_weight_is_packed_as():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**LLAMA)).requires_grad_(False)
    plain = layers_phase(model, positions=1, itemsize=1).kept
    add_lora(model, LoraSettings(rank=4))
    adapters = 2 * 2 * ((LLAMA["hidden_size"] + 4) + (4 + LLAMA["hidden_size"]))
    assert layers_phase(model, positions=1, itemsize=1).kept == plain + adapters
    query = model.model.layers[0].self_attn.q_proj.base_layer
    packed = torch.empty(query.weight.numel() // 2, 1, dtype=torch.uint8)
    query.weight = torch.nn.Parameter(packed, requires_grad=False)
    assert layers_phase(model, positions=1, itemsize=1).kept == plain + adapters
