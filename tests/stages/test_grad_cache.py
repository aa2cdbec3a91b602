"""The gradient cache: activations of few rows at a time, gradients of the whole batch."""

from dataclasses import replace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from mmavlm.core.errors import ConfigError
from mmavlm.stages import OptimizerRecipe, SemanticAlignment
from support import peak_bytes, random_batch, tiny_backbone

ROWS = 7
TARGETS = [f"a {color} ball rolls {where}" for color in ("red", "blue") for where in "abcd"][:ROWS]


def batch_of(rows=ROWS, frames=4):
    targets = [f"{TARGETS[i % len(TARGETS)]} {i}" for i in range(rows)]
    lengths = [frames - (i % 3) for i in range(rows)]
    return random_batch(lengths, targets=targets)


def stage_of(*overrides, chunk=None):
    backbone = tiny_backbone("stage=semantic_alignment", *overrides)
    return SemanticAlignment(backbone, OptimizerRecipe(warmup_steps=0), grad_cache_chunk=chunk)


def gradients(stage, batch):
    """The loss and every parameter's gradient, of a step in train mode."""
    stage.zero_grad()
    loss = stage.train().losses(batch)["loss"]
    loss.backward()
    return loss, {n: p.grad for n, p in stage.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk", [1, 3, 7, 20])
@pytest.mark.parametrize(
    "overrides",
    [
        ["alignment=symmetric"],
        ["alignment=sigmoid", "aligned_frames=first_last"],
        ["fusion=prompt_to_visual", "memory=episodic", "memory.length=2", "aligned_frames=all"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_gradients_are_those_of_the_whole_batch(overrides, chunk):
    no_dropout = ["fusion.dropout=0.0"] if "fusion=prompt_to_visual" in overrides else []
    whole = stage_of(*overrides, *no_dropout).double()
    cached = stage_of(*overrides, *no_dropout, chunk=chunk).double()
    batch = batch_of()
    (loss, expected), (cached_loss, found) = gradients(whole, batch), gradients(cached, batch)
    torch.testing.assert_close(cached_loss, loss, atol=1e-9, rtol=1e-9)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-6, msg=name)


def test_dropout_draws_the_same_when_a_chunk_is_computed_again(monkeypatch):
    dropout = ["qformer.dropout=0.3", "text_encoder.dropout=0.3"]
    batch, found = batch_of(), []
    for keep in (False, True):
        stage = stage_of(*dropout, chunk=3).double()
        if keep:  # the same chunks, whose activations are kept
            monkeypatch.setattr(
                "mmavlm.model.alignment.grad_cache.checkpoint",
                lambda run, *inputs, use_reentrant: run(*inputs),
            )
        torch.manual_seed(5)
        found.append(gradients(stage, batch))
    (loss, cached), (kept_loss, kept) = found
    assert torch.equal(loss, kept_loss)
    for name, gradient in kept.items():
        torch.testing.assert_close(cached[name], gradient, atol=1e-9, rtol=1e-9, msg=name)


@pytest.mark.parametrize("of", ["own", "all"])
@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_gradients_are_those_of_the_whole_batch_where_films_have_false_texts(of, chunk):
    settings = ["alignment=equal_texts", f"alignment.hard_negatives.of={of}"]
    settings += ["alignment.hard_negatives.sides=both"]
    false = [((("", f"a {i} cube"), ("", "a cone"))[: i % 3],) for i in range(ROWS)]
    batch = replace(batch_of(), false_texts=false)
    whole, cached = (stage_of(*settings, chunk=rows).double() for rows in (None, chunk))
    (loss, expected), (cached_loss, found) = gradients(whole, batch), gradients(cached, batch)
    assert loss > gradients(whole, batch_of())[0]
    torch.testing.assert_close(cached_loss, loss, atol=1e-9, rtol=1e-9)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.slow
def test_a_large_batch_holds_the_activations_of_few_rows():
    batch = batch_of(48)
    overrides = ["qformer.width=128", "qformer.hidden_width=512"]
    whole, cached = stage_of(*overrides), stage_of(*overrides, chunk=4)
    whole_bytes, cached_bytes = (
        peak_bytes(lambda stage=stage: gradients(stage, batch)) for stage in (whole, cached)
    )
    assert cached_bytes < whole_bytes / 3
    estimates = [
        stage.backbone.activation_bytes(48, 4, chunk=stage.grad_cache_chunk)
        for stage in (whole, cached)
    ]
    assert estimates[1] / estimates[0] == pytest.approx(cached_bytes / whole_bytes, abs=0.15)


def test_the_frozen_encoder_runs_once_a_step():
    stage = stage_of(chunk=2)
    seen = []
    stage.backbone.vision.encoder.register_forward_hook(lambda *args: seen.append(len(args[1][0])))
    gradients(stage, batch_of())
    assert seen == [ROWS * 3]  # the first three frames of each row


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_goes_as_without_it(precision, tmp_path):
    def weights(chunk):
        torch.manual_seed(0)
        stage = stage_of("alignment=symmetric", chunk=chunk)
        stage.configure_optimizers = lambda: torch.optim.SGD(stage.parameters(), lr=0.1)
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=2, accumulate_grad_batches=2, precision=precision,
            gradient_clip_val=1.0, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        batches = [batch_of(), random_batch((4, 2, 3), targets=["one", "two", "three"], seed=4)]
        loader = DataLoader(batches, batch_size=None)
        trainer.fit(stage, loader, loader)
        return {n: p.detach() for n, p in stage.named_parameters() if p.requires_grad}

    whole, cached = weights(None), weights(2)
    close = {"atol": 1e-5, "rtol": 1e-4} if precision == "32-true" else {"atol": 5e-3, "rtol": 5e-2}
    for name, value in whole.items():
        torch.testing.assert_close(cached[name], value, msg=name, **close)


def test_a_chunk_of_no_rows_is_refused():
    with pytest.raises(ConfigError, match=r"stage.grad_cache_chunk is 0; give the number of rows"):
        stage_of(chunk=0)
