"""Small real models and batches for the tests of what stands above the parts."""

import json
import signal
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.profiler import ProfilerActivity, profile

from mmavlm.core.batch import Batch
from mmavlm.core.config_files import config_dir
from mmavlm.core.conversation import Conversation
from mmavlm.model.encoders import TinyEncoder, TinySoundEncoder

# What makes any experiment run in seconds on a CPU.
SMALL = [
    "model=tiny", "trainer=cpu", "trainer.max_epochs=1", "data.num_frames=4", "data.batch_size=4",
    "data.num_workers=0", "callbacks.progress=null",
]  # fmt: skip


@cache
def _composed(name, overrides):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose(name, ["model=tiny", "paths.run=.", *overrides])


def composed(*overrides, name="train"):
    """The main config with `overrides` on the tiny model, to be changed at will."""
    return deepcopy(_composed(name, overrides))


def tiny_backbone(*overrides):
    torch.manual_seed(0)
    return instantiate(composed(*overrides).backbone)


def random_batch(lengths=(4, 2), *, targets=("comedy", "a long answer"), seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows, frames = len(lengths), max(lengths)
    mask = torch.arange(frames)[None] < torch.tensor(lengths)[:, None]
    pixels = torch.randint(0, 256, (rows, frames, 3, 64, 64), generator=generator)
    return Batch.questions(
        frames=pixels.to(torch.uint8) * mask[:, :, None, None, None],
        frame_mask=mask,
        timestamps_s=torch.zeros(rows, frames),
        prompt=(["what is the genre of the movie?", "what happens?"] * rows)[:rows],
        target=list(targets)[:rows],
        video_id=[f"v{i}" for i in range(rows)],
        item_id=[f"i{i}" for i in range(rows)],
        task=(["genre", "open"] * rows)[:rows],
    )


def rows_of(batch, row):
    """One row of a batch as a batch of its own, without its padding."""
    length = int(batch.frame_mask[row].sum())
    keep = slice(row, row + 1)
    return replace(
        batch.rows(keep),
        frames=batch.frames[keep, :length],
        frame_mask=batch.frame_mask[keep, :length],
        timestamps_s=batch.timestamps_s[keep, :length],
    )


def asking(batch, *, prompt=None, target=None):
    """The same films with other prompts, or other answers."""
    asked = zip(batch.conversations, prompt or batch.prompt, target or batch.target, strict=True)
    talks = [Conversation.question(talk.media[0], p, t) for talk, p, t in asked]
    return replace(batch, conversations=talks)


class CountedEncoder(TinyEncoder):
    """The tiny encoder, counting how often it is built."""

    built = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        type(self).built += 1


class CountedSoundEncoder(TinySoundEncoder):
    """The tiny encoder of sound, counting how often it is built."""

    built = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        type(self).built += 1


def peak_bytes(step):
    """Bytes that `step` holds at its peak beyond what lies there before it; it is run twice."""
    step()  # gradients and caches are there afterwards
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step()
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    given = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return given.cumsum(0).max().item()


class StopAtEpoch(L.Callback):
    """Interrupt a run when an epoch begins, as Ctrl-C would."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


class StopAtBatch(L.Callback):
    """Interrupt a run when a batch begins, counted over epochs: at once, or by a signal."""

    def __init__(self, batch, signal=None):
        self.batch = batch
        self.signal = signal

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.batch:
            if self.signal is None:
                raise KeyboardInterrupt
            signal.raise_signal(self.signal)


class StopTestAtBatch(L.Callback):
    """Interrupt a test when it has answered a batch, which is then not written any more."""

    def __init__(self, batch):
        self.batch = batch

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *_):
        if batch_idx == self.batch:
            raise KeyboardInterrupt


class ReplaceByFile(L.Callback):
    """Put a file in the place of a folder when a batch begins: it can be written to no more."""

    def __init__(self, batch, folder):
        self.batch = batch
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.batch:
            if self.folder.is_dir():
                self.folder.rename(self.folder.with_name("moved"))
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.touch()


def left(folder):
    """What a run left: its last checkpoint, and its metrics."""
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return last, json.loads((folder / "metrics.json").read_text())


def assert_equal_runs(one, two):
    """Two runs end with the same weights, state of random numbers and metrics."""
    (whole, metrics), (resumed, metrics_resumed) = left(one), left(two)
    assert whole["global_step"] == resumed["global_step"]
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    assert torch.equal(whole["rng"], resumed["rng"])
    assert metrics == metrics_resumed
