"""The estimate of a step's activations against what the allocator gives out."""

import pytest

from mmavlm.footprint import Phase, peak, recomputed
from support import peak_bytes, random_batch, tiny_backbone

WITHIN = 1.5  # estimate and measurement differ by no more than this factor


def lengths(model, batch):
    tokenizer = model.prompt_tokenizer
    prompt = max(int(n) for n in tokenizer.encode(batch.prompt, device="cpu").mask.sum(1))
    answer = max(model.llm.answer_length(text) for text in batch.target) if model.llm else 8
    return prompt, answer


SMALL = ["qformer.width=64", "alignment=none"]
SHAPES = {
    "a long film": (2, 24, [*SMALL]),
    "a wide film": (2, 12, [*SMALL, "encoder.patch_size=4", "encoder.width=128"]),
    "a wide bank": (2, 12, [*SMALL, "encoder.patch_size=4", "memory=none"]),
    "a fused film": (2, 12, [*SMALL, "fusion=prompt_to_visual", "encoder.patch_size=8"]),
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


def test_phases_pile_up_and_moments_pass():
    assert peak([Phase(3, 10), Phase(4, 1), Phase(2)]) == 13
    assert peak([Phase(3, 1), Phase(4, 1), Phase(2)]) == 9
    assert peak([]) == 0


def test_layers_computed_again_keep_their_inputs_and_one_layer():
    assert recomputed(Phase(80), layers=4, inputs=5) == Phase(20, 40)
