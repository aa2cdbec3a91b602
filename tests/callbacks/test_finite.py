import logging
import math

import lightning as L
import pytest
import torch
from torch import nn

from mmavlm.callbacks import FiniteGuard
from mmavlm.core.errors import ConfigError, DivergedError


class Batch:
    def __init__(self, name, factor):
        self.item_id, self.factor = [name], factor


class Stage(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(torch.ones(1, 1)).sum() * batch.factor

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def fitted(tmp_path, factors, max_skipped=10, **settings):
    """A stage trained on batches whose loss is scaled by the factors."""
    torch.manual_seed(0)
    stage, guard = Stage(), FiniteGuard(tmp_path, max_skipped)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[guard], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, **settings,
    )  # fmt: skip
    batches = [Batch(f"i{n}", factor) for n, factor in enumerate(factors)]
    trainer.fit(stage, torch.utils.data.DataLoader(batches, batch_size=None))
    return stage, guard


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_leaves_no_trace(tmp_path, bad, caplog):
    with caplog.at_level(logging.WARNING):
        found, guard = fitted(tmp_path, [1.0, bad, 1.0])
    expected, _ = fitted(tmp_path, [1.0, 1.0])
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)
    assert guard.skipped == 1
    assert any(m.startswith("left out step 1 and its items i1:") for m in caplog.messages)


def test_all_items_of_an_accumulated_step_are_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        fitted(tmp_path, [1.0, 1.0, math.nan, 1.0], accumulate_grad_batches=2)
    assert any("and its items i2, i3:" in m for m in caplog.messages)


def test_above_the_limit_the_run_stops_with_a_checkpoint_before_the_damage(tmp_path):
    message = (
        r"gradients of 2 steps .*max_skipped=1 allows; the last: .* items i2\. .*optimizer\.lr"
    )
    with pytest.raises(DivergedError, match=message):
        fitted(tmp_path, [1.0, math.nan, math.nan, 1.0], max_skipped=1)
    kept = torch.load(tmp_path / "before_damage.ckpt", weights_only=True)["state_dict"]
    expected, _ = fitted(tmp_path, [1.0])
    for name, value in expected.state_dict().items():
        assert torch.equal(kept[name], value)


def test_a_negative_limit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="max_skipped must be at least 0, got -1"):
        FiniteGuard(tmp_path, -1)
