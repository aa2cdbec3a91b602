import os
import signal
import stat

import lightning as L
import pytest
import torch
from torch import nn

from mmavlm.callbacks import StepCheckpoint
from mmavlm.callbacks.signals import ended_as_asked, exit_at_once, requeue_job
from mmavlm.core.errors import ConfigError
from ranks import be_rank, spawn_ranks
from support import StopAtBatch


class Stage(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


class Noted(StepCheckpoint):
    """Notes behind which batch of the run a checkpoint was written."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.batches = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        self.batches.append(trainer.fit_loop.total_batch_idx)


def saved_behind(tmp_path, every, *, batches=8, epochs=2, **settings):
    """The batches behind which checkpoints are written, counted over epochs."""
    noted = Noted(tmp_path, every)
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[noted], logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=tmp_path, **settings,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(torch.ones(batches, 1))
    trainer.fit(Stage(), loader, torch.utils.data.DataLoader(torch.ones(1, 1)))
    return noted.batches


def test_checkpoints_are_written_so_often_but_not_where_an_epoch_ends(tmp_path):
    assert saved_behind(tmp_path, 3) == [2, 5, 8, 11, 14]
    assert saved_behind(tmp_path, 8) == [8]  # 7 ends the epoch
    assert saved_behind(tmp_path, None) == []


def test_checkpoints_are_written_between_optimizer_steps(tmp_path):
    assert saved_behind(tmp_path, 1, accumulate_grad_batches=3) == [2, 5, 10, 13]


def test_checkpoints_wait_for_the_step_behind_a_validation(tmp_path):
    assert saved_behind(tmp_path, 2, val_check_interval=2, epochs=1) == [2, 4, 6]
    every_epochs = {"val_check_interval": 3, "check_val_every_n_epoch": None}
    assert saved_behind(tmp_path, 1, **every_epochs) == [0, 1, 3, 4, 6, 9, 10, 12, 13]


def test_an_interval_below_one_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="every_n_steps must be at least 1, got 0"):
        StepCheckpoint(tmp_path, 0)


def test_a_job_of_slurm_is_requeued_by_its_number(tmp_path, monkeypatch):
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    requeue_job()
    assert not (tmp_path / "asked").exists()
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    requeue_job()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    requeue_job()
    assert (tmp_path / "asked").read_text().splitlines() == ["requeue 17", "requeue 12_3"]


def rank_of_two(rank, port, folder):
    be_rank(rank, port)
    callbacks = [StepCheckpoint(folder, None)]
    if rank == 1:
        callbacks.append(StopAtBatch(3, signal.SIGTERM))
    trainer = L.Trainer(
        accelerator="cpu", devices=2, max_epochs=1, logger=False, callbacks=callbacks,
        strategy=L.pytorch.strategies.DDPStrategy(process_group_backend="gloo"),
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        accumulate_grad_batches=3, default_root_dir=folder,
    )  # fmt: skip
    try:
        trainer.fit(Stage(), torch.utils.data.DataLoader(torch.ones(40, 1)))
    except SystemExit as end:
        (folder / f"{rank}.txt").write_text(f"{end.code} {trainer.global_step}")


class StopAtStart(torch.utils.data.DataLoader):
    """Asks for an end while the loader starts its workers, as a signal may."""

    def __iter__(self):
        exit_at_once(signal.SIGTERM)


def test_a_signal_while_loaders_start_is_no_fault(tmp_path):
    class Tested(Stage):
        def test_step(self, batch, batch_idx):
            pass

    trainer = L.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    loader = torch.utils.data.DataLoader(torch.ones(2, 1))
    with pytest.raises(RuntimeError, match="iter"):
        trainer.fit(Stage(), StopAtStart(torch.ones(2, 1)), loader)
    with pytest.raises(SystemExit) as end, ended_as_asked():
        trainer.fit(Stage(), StopAtStart(torch.ones(2, 1)), loader)
    assert end.value.code == 143


def test_a_fault_stays_a_fault_where_nobody_asked_to_end():
    with pytest.raises(RuntimeError, match="behind it"), ended_as_asked():
        raise RuntimeError("behind it") from ValueError("before it")


def test_a_test_does_not_begin_where_a_signal_came_before_it(tmp_path):
    class Signalled(Stage):
        def test_dataloader(self):
            signal.raise_signal(signal.SIGTERM)
            return torch.utils.data.DataLoader(torch.ones(2, 1))

        def test_step(self, batch, batch_idx):
            raise AssertionError("the test began")

    trainer = L.Trainer(
        accelerator="cpu", logger=False, default_root_dir=tmp_path,
        callbacks=[StepCheckpoint(tmp_path)],
    )  # fmt: skip
    with pytest.raises(SystemExit) as end:
        trainer.test(Signalled())
    assert end.value.code == 143


@pytest.mark.slow
@pytest.mark.distributed
def test_a_signal_to_one_rank_ends_all_after_the_same_step(tmp_path):
    spawn_ranks(rank_of_two, tmp_path)
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["143 2", "143 2"]
    assert torch.load(tmp_path / "step.ckpt", weights_only=True)["global_step"] == 2
