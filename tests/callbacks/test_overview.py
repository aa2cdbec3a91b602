import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmavlm.callbacks import MemoryEstimate, ModelOverview, estimate_memory, overview


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(1000, 2000, bias=False).requires_grad_(False)
        self.projector = nn.Linear(10, 10, bias=False)

    def activation_bytes(self, batch_size, num_frames):
        return batch_size * num_frames


class Stage(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()

    def training_step(self, batch, batch_idx):
        return self.backbone.projector(batch).sum()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.backbone.projector.parameters())


def test_frozen_parameters_cost_weights_alone():
    module = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    module[0].requires_grad_(False)
    estimate = estimate_memory(module)
    assert estimate == MemoryEstimate(weights=2 * 400, gradients=400, optimizer=2 * 400)
    assert estimate.total == 800 + 400 + 800


def test_the_estimate_is_what_adamw_holds_after_a_step():
    module = nn.Linear(64, 32)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    moments = [state[k] for state in optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
    estimate = estimate_memory(module)
    assert estimate.gradients == sum(p.grad.nbytes for p in module.parameters())
    assert estimate.optimizer == sum(moment.nbytes for moment in moments)


def test_half_precision_weights_take_half_the_memory():
    module = nn.Linear(10, 10, bias=False)
    assert estimate_memory(module.half()).weights == 200


def test_activations_count_where_the_module_knows_them():
    estimate = estimate_memory(Backbone(), batch_size=3, num_frames=5)
    assert estimate.activations == 15
    assert "activations 0.0 MiB" in str(estimate)
    assert "and the activations on top" in str(estimate_memory(nn.Linear(1, 1)))


@pytest.mark.parametrize(("free", "warned"), [(10, True), (2**40, False)])
def test_the_overview_tells_parts_and_warns_of_too_little_memory(
    tmp_path, capsys, monkeypatch, free, warned
):
    monkeypatch.setattr(overview, "free_memory", lambda device: free)
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[ModelOverview()],
    )  # fmt: skip
    trainer.fit(Stage(), DataLoader(torch.ones(2, 10)))
    shown = capsys.readouterr().out
    rows = {
        line.split("│")[1].strip(): line.split("│")[2:5]
        for line in shown.split("\n")
        if "│" in line
    }
    assert [cell.strip() for cell in rows["encoder"]] == ["0", "2.0 M", "7.6 MiB"]
    assert [cell.strip() for cell in rows["projector"]] == ["100", "0", "0.0 MiB"]
    assert ("this may not fit" in shown) == warned


def test_weights_on_the_device_already_are_told_apart():
    backbone = Backbone()
    weights = estimate_memory(backbone).weights
    assert overview.resident_bytes(backbone, torch.device("cpu")) == weights
    assert overview.resident_bytes(backbone, torch.device("cuda", 0)) == 0
