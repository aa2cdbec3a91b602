"""The estimate of a step's operations against what torch counts, product by product."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from mmavlm.core.flops import products_of
from mmavlm.model.flops import ReadFlops, StepFlops
from mmavlm.model.llm import LoraSettings
from mmavlm.model.llm.adapt import add_lora
from support import random_batch, tiny_backbone

WIDE = ["qformer.width=128", "encoder.patch_size=8", "encoder.width=128", "llm.width=128",
        "llm.layers=4"]  # fmt: skip
SHAPES = {
    "answers alone": (2, 12, ["alignment=none"], 1.05),
    "a long film in a short bank": (2, 30, ["alignment=none", "memory.length=4"], 1.05),
    "a plain loop": (2, 12, ["alignment=none", "temporal.cache_keys=false"], 1.05),
    "several frames with gradient": (2, 12, ["alignment=none", "temporal.backprop_frames=4"], 1.05),
    "a frozen language model": (2, 12, ["alignment=none", "llm.trainable=false"], 1.05),
    "aligned too": (4, 8, ["alignment=info_nce"], 1.1),
    "the middle and the end aligned": (4, 8, ["aligned_frames=first_middle_last"], 1.15),
    "stage one": (4, 8, ["stage=semantic_alignment"], 1.1),
    "a fused film": (2, 12, ["alignment=none", "fusion=prompt_to_visual"], 1.1),
    "the mean of looks": (2, 12, ["alignment=none", "temporal=average"], 1.1),
    "a look a frame": (2, 12, ["alignment=none", "temporal=concat"], 1.1),
    "a token of what is asked, and one of all": (
        2, 12, ["alignment=none", "temporal=context_content"], 1.1),
    "pooled patches": (2, 12, ["alignment=none", "temporal=every_frame"], 1.1),
    "a Q-Former over frames": (2, 12, ["alignment=none", "temporal=video_qformer"], 1.3),
    "one layer": (2, 12, ["alignment=none", "llm.layers=1"], 1.05),
}  # fmt: skip


class Counter(FlopCounterMode):
    """As torch counts, without the hooks of modules, which inference mode does not bear."""

    def __init__(self):
        super().__init__(display=False)
        self.mod_tracker = Everywhere()


class Everywhere(nullcontext):
    parents = frozenset({"Global"})


def counted(step):
    """What torch counts of a step; attention is made of plain products, which it knows all of."""
    with sdpa_kernel(SDPBackend.MATH), Counter() as counter:
        step()
    return counter.get_total_flops()


def texts(model, batch):
    tokenizer = model.vision.prompt_tokenizer
    prompt = max(int(n) for n in tokenizer.encode(batch.prompt, device="cpu").mask.sum(1))
    answer = max(model.llm.answer_length(text) for text in batch.target) if model.llm else 8
    return prompt, answer


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_estimate_is_near_what_torch_counts(name):
    rows, frames, overrides, within = SHAPES[name]
    model = tiny_backbone(*WIDE, *overrides).train()
    batch = random_batch((frames,) * rows, targets=["a long answer"] * rows)
    estimate = StepFlops(model).step(rows, frames, *texts(model, batch))
    found = counted(lambda: sum(model(batch, answer=model.llm is not None).values()).backward())
    print(estimate / found)
    assert found / within < estimate < found * within


def llama():
    return LlamaForCausalLM(
        LlamaConfig(hidden_size=64, intermediate_size=160, num_hidden_layers=3, vocab_size=300,
                    num_attention_heads=4, num_key_value_heads=2)
    )  # fmt: skip


def adapted():
    model = llama().requires_grad_(False)
    add_lora(model, LoraSettings(rank=4))
    return model


def t5():
    return T5ForConditionalGeneration(
        T5Config(d_model=64, d_kv=16, d_ff=160, num_layers=3, num_heads=4, vocab_size=300,
                 feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    )  # fmt: skip


@pytest.mark.parametrize("build", [llama, adapted, t5])
@pytest.mark.parametrize("learns", [True, False])
def test_what_a_language_model_reads_is_counted(build, learns):
    model = build().train()
    read = torch.rand(2, 30, 64, requires_grad=True)
    answer = {"decoder_input_ids": torch.ones(2, 5, dtype=torch.int64)}
    more = answer if model.config.is_encoder_decoder else {"logits_to_keep": 5}

    def step():
        with torch.set_grad_enabled(learns):
            logits = model(inputs_embeds=read, **more).logits
        if learns:
            logits.sum().backward()

    estimate = ReadFlops(model)(2, 30, 5, learns=learns)
    assert counted(step) / 1.05 < estimate < counted(step) * 1.05


def test_every_kind_of_layer_that_multiplies_is_found():
    layers = torch.nn.ModuleDict({
        "q_proj": torch.nn.Linear(4, 6), "patches": torch.nn.Conv2d(3, 5, 2),
        "words": torch.nn.Embedding(100, 4), "norm": torch.nn.LayerNorm(4),
        "frozen": torch.nn.Linear(4, 4).requires_grad_(False),
        "whole": torch.nn.MultiheadAttention(8, 2),
    })  # fmt: skip
    found = products_of(layers)
    assert found.learnt == 4 * 6 + 3 * 5 * 2 * 2 + 4 * 8 * 8
    assert found.frozen == 4 * 4
    assert found.attending == 6 + 8
    assert products_of(layers, without=layers["whole"]).attending == 6
