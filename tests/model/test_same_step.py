"""What makes a step faster or smaller changes no number of it."""

import pytest
import torch

from support import composed, random_batch, tiny_backbone

STAGES = {
    "both": [],
    "answers alone": ["alignment=none"],
    "stage one": ["stage=semantic_alignment"],
    "several frames with gradient": ["temporal.backprop_frames=3"],
}
# As inductor, but without a compiler of C++ behind it.
TRACED = ["compile=inductor", "compiler=aot_eager"]


def step(*overrides):
    """Losses and gradients of a training step, with dropout drawn from one seed."""
    model = tiny_backbone("aligned_frames=first_last", *overrides).train()
    torch.manual_seed(1)
    losses = model(random_batch((4, 2)), answer=model.llm is not None)
    sum(losses.values()).backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {n: loss.detach() for n, loss in losses.items()}, grads


@pytest.mark.parametrize("stage", list(STAGES))
def test_activations_that_are_recomputed_give_the_same_losses_and_gradients(stage):
    kept, recomputed = (
        step(f"activations={choice}", *STAGES[stage]) for choice in ("kept", "recomputed")
    )
    torch.testing.assert_close(recomputed, kept, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("more", [[], ["activations=recomputed"]], ids=["kept", "recomputed"])
def test_a_compiled_step_gives_the_losses_and_gradients_of_a_plain_one(more):
    no_dropout = "qformer.dropout=0"  # which compiled code draws otherwise
    plain, compiled = step(no_dropout, *more), step(no_dropout, *TRACED, *more)
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_step_that_inductor_compiled_gives_the_losses_and_gradients_of_a_plain_one():
    torch._dynamo.reset()
    plain, compiled = step("qformer.dropout=0"), step("qformer.dropout=0", "compile=inductor")
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("trainer", ["ddp", "fsdp", "hsdp"])
def test_the_choices_go_with_every_trainer_and_with_each_other(trainer):
    config = composed(f"trainer={trainer}", "compile=inductor", "activations=recomputed")
    assert config.encoder.compile_backend == config.temporal.compile_backend == "inductor"
    assert config.qformer.gradient_checkpointing
    assert config.llm.gradient_checkpointing


def test_a_model_that_recomputes_by_itself_does_so_whatever_is_kept():
    config = composed("model=llama_vid", "activations=kept")
    assert config.llm.gradient_checkpointing
    assert composed().encoder.compile_backend is None
