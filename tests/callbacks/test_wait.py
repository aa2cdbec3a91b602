import time

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmavlm.callbacks import LoaderWait


class Stage(L.LightningModule):
    def __init__(self, step_s):
        super().__init__()
        self.layer, self.step_s = nn.Linear(1, 1), step_s

    def training_step(self, batch, batch_idx):
        time.sleep(self.step_s)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def slow_collate(delay_s):
    def collate(rows):
        time.sleep(delay_s)
        return torch.stack(rows)

    return collate


@pytest.mark.parametrize(
    ("load_s", "step_s", "low", "high"), [(0.1, 0.0, 0.6, 1.0), (0.0, 0.1, 0, 0.4)]
)
def test_the_share_tells_a_slow_loader_from_a_slow_step(load_s, step_s, low, high, tmp_path):
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[LoaderWait()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path,
    )  # fmt: skip
    loader = DataLoader(torch.zeros(6, 1), batch_size=1, collate_fn=slow_collate(load_s))
    trainer.fit(Stage(step_s), loader)
    assert low <= trainer.callback_metrics["train/wait"] <= high
