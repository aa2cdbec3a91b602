import time

import lightning as L
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from mmavlm.callbacks import Throughput, peak
from mmavlm.core.errors import ConfigError
from mmavlm.model.flops import StepFlops
from mmavlm.stages import FineTune, OptimizerRecipe, SemanticAlignment
from support import random_batch, tiny_backbone

CPU = torch.device("cpu")


class Slow(L.Callback):
    """Makes every step last a while, so that the rate is known."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        time.sleep(0.2)


class Shown(L.Callback):
    def __init__(self):
        self.rates, self.in_bar = [], set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        found = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.rates.append({k: v for k, v in found.items() if k.endswith(("_s", "mfu"))})
        self.in_bar |= trainer.progress_bar_metrics.keys()


def trained(stage, batches, callback, *more, tmp_path, **settings):
    shown = Shown()
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[*more, callback, shown], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, use_distributed_sampler=False, num_sanity_val_steps=0,
        **settings,
    )  # fmt: skip
    trainer.fit(stage, DataLoader(batches, batch_size=None), DataLoader(batches, batch_size=None))
    return shown


def answering(*overrides):
    return FineTune(
        tiny_backbone("alignment=none", *overrides), OptimizerRecipe(), tasks=["genre", "open"]
    )


def test_the_rates_count_real_items_frames_and_tokens(tmp_path):
    """Three slow steps with two films of 4 and 2 frames: 2 items and 6 frames each."""
    stage, batch = answering(), random_batch((4, 2))
    read = []
    stage.backbone.llm.model.register_forward_hook(
        lambda module, args, given, out: read.append(int(given["attention_mask"].sum())),
        with_kwargs=True,
    )
    start = time.perf_counter()
    shown = trained(stage, [batch] * 4, Throughput(), Slow(), tmp_path=tmp_path)
    longest = time.perf_counter() - start
    assert shown.rates[0] == {}  # the first batch warms up
    last = shown.rates[-1]
    assert last.keys() == {"train/items_s", "train/frames_s", "train/tokens_s"}
    assert 6 / longest < last["train/items_s"] <= 2 / 0.2
    assert last["train/frames_s"] == pytest.approx(3 * last["train/items_s"], rel=1e-4)
    assert last["train/tokens_s"] == pytest.approx(read[0] / 2 * last["train/items_s"], rel=1e-4)
    assert {"train/items_s", "train/frames_s", "train/tokens_s"} <= shown.in_bar


def test_the_share_of_a_peak_is_the_work_of_a_step_by_its_time(tmp_path):
    stage, batch = answering(), random_batch((4, 4))
    callback = Throughput(peak_flops=1e12)
    shown = trained(stage, [batch] * 3, callback, Slow(), tmp_path=tmp_path)
    tokenizer, llm = stage.backbone.vision.prompt_tokenizer, stage.backbone.llm
    prompt = tokenizer.encode(batch.prompt, device="cpu").ids.shape[1]
    work = StepFlops(stage.backbone).step(2, 4, prompt, max(map(llm.answer_length, batch.target)))
    found = shown.rates[-1]["train/mfu"] * 1e12 / shown.rates[-1]["train/items_s"] * 2
    assert found == pytest.approx(work, rel=0.05)  # answers are padded


def test_a_stage_without_a_language_model_reads_no_tokens(tmp_path):
    stage = SemanticAlignment(tiny_backbone("stage=semantic_alignment"), OptimizerRecipe())
    callback = Throughput(peak_flops=1e12)
    shown = trained(stage, [random_batch((4, 2))] * 3, callback, tmp_path=tmp_path)
    assert shown.rates[-1].keys() == {"train/items_s", "train/frames_s", "train/mfu"}


def test_a_validation_is_no_time_of_training(tmp_path):
    class LongValidation(L.Callback):
        def on_validation_batch_start(self, *args):
            time.sleep(0.5)

    shown = trained(
        answering(), [random_batch((2, 2))] * 4, Throughput(), Slow(), LongValidation(),
        tmp_path=tmp_path, val_check_interval=2,
    )  # fmt: skip
    assert shown.rates[-1]["train/items_s"] > 2 / 0.7  # a validation takes 2 s


class Waits(TorchDispatchMode):
    """Notes where the value of a tensor is asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.asked.append(func)
        return func(*args, **(kwargs or {}))


def test_nothing_waits_for_the_device():
    """What is logged is still on the device: its value was asked for nowhere."""
    stage, batch = answering(), random_batch((4, 2))
    logged, callback = {}, Throughput(peak_flops=1e12)
    stage.log_dict = lambda rates, **_: logged.update(rates)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    callback.on_train_start(trainer, stage)
    with Waits() as waits:
        for number in range(2):
            callback.on_train_batch_start(trainer, stage, batch, number)
            mask = torch.ones(2, 20, dtype=torch.bool)
            read = torch.rand(2, 20, stage.backbone.llm.width)
            with torch.no_grad():
                stage.backbone.llm.model(inputs_embeds=read, attention_mask=mask)
            before = len(waits.asked)
            callback.on_train_batch_end(trainer, stage, None, batch, number)
            assert len(waits.asked) == before
    callback.teardown(trainer, stage, "fit")
    assert isinstance(logged["train/frames_s"], torch.Tensor)
    assert isinstance(logged["train/tokens_s"], torch.Tensor)


def test_where_all_looks_of_a_memory_are_learned_from_no_share_is_claimed():
    stage = answering("heads=duet")
    callback = Throughput(peak_flops=1e12)
    callback.on_train_start(L.Trainer(accelerator="cpu", logger=False), stage)
    assert callback._flops is None
    callback.teardown(None, stage, "fit")


@pytest.mark.parametrize(
    ("name", "precision", "peak_flops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989e12),
        ("NVIDIA H100 PCIe", "16-mixed", 756e12),
        ("NVIDIA A100-SXM4-80GB", "32-true", 19.5e12),
        ("NVIDIA L40S", "bf16-true", 362e12),
        ("NVIDIA A10G", "bf16-true", 70e12),
        ("NVIDIA GH200 480GB", "bf16-true", 989e12),
        ("NVIDIA of tomorrow", "bf16-mixed", None),
    ],
)
def test_the_peak_of_a_device_is_known_by_its_name(monkeypatch, name, precision, peak_flops):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak.peak_of(torch.device("cuda", 0), precision) == peak_flops


def test_a_cpu_has_no_peak_unless_one_is_given():
    assert peak.peak_of(CPU, "32-true") is None


def test_products_in_tf32_have_a_peak_of_their_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-40GB")
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert peak.peak_of(torch.device("cuda", 0), "32-true") == 156e12


@pytest.mark.parametrize("wrong", [{"window": 0}, {"window": 1.5}, {"peak_flops": 0}])
def test_a_window_or_peak_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"callbacks.throughput.{next(iter(wrong))} must be"):
        Throughput(**wrong)
