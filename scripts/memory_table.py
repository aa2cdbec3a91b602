"""What a training step of the full model takes on a GPU, by the estimate `train` prints.

python scripts/memory_table.py           # sizes alone: no weights are fetched, no memory is used
python scripts/memory_table.py --check   # small models on a CPU: estimate beside measured peak
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from mmavlm.callbacks import MemoryEstimate, estimate_memory
from mmavlm.core.batch import Batch
from mmavlm.core.config_files import config_dir
from mmavlm.model.encoders import InstructBlipEncoder
from mmavlm.model.llm import LoraSettings, PromptedLanguageModel
from mmavlm.model.llm.adapt import add_lora
from mmavlm.model.text import PromptTokenizer, load_tokenizer

GIB, MIB = 2**30, 2**20
VOCABULARY = 30523  # of InstructBLIP's Q-Former: BERT's words and one more
KINDS = ("frozen, 16 bit", "LoRA, 16 bit", "QLoRA, 4 bit")
ANSWER = "a long answer"
SMALL = {
    "a long film": (2, 24, ["qformer.width=64"]),
    "many positions": (2, 12, ["encoder.patch_size=4", "encoder.width=128"]),
    "a frozen language model": (8, 4, ["llm.width=256", "llm.layers=8", "llm.trainable=false"]),
    "a trained language model": (8, 4, ["llm.width=256", "llm.layers=8"]),
}


class BertSizes(nn.Module):
    """BERT-base as a text encoder, for its size."""

    def __init__(self) -> None:
        super().__init__()
        self.model = BertModel(BertConfig(), add_pooling_layer=False)
        self.width = 768


class BertWords(PromptTokenizer):
    """A tokenizer that takes as many embeddings as BERT's."""

    vocab_size = VOCABULARY


def full_model(kind: str, *overrides: str) -> nn.Module:
    """The model of `experiment=lvu_genre` with a 7B LLM, on the meta device.

    Of 4 bit, counted is what lies in the weights; bitsandbytes keeps 1/8 of that on top, as scales.
    """
    config = composed("experiment=lvu_genre", *overrides)
    with torch.device("meta"):
        llm: Any = LlamaForCausalLM(LlamaConfig(vocab_size=32001)).half().requires_grad_(False)
        if kind != KINDS[0]:
            add_lora(llm, LoraSettings())
        if kind == KINDS[2]:
            for layer in llm.get_decoder().modules():
                if isinstance(layer, nn.Linear) and not layer.weight.requires_grad:
                    halves = torch.empty(layer.weight.numel() // 2, 1, dtype=torch.uint8)
                    layer.weight = nn.Parameter(halves, requires_grad=False)
        vision = instantiate(
            config.backbone.vision,
            encoder=InstructBlipEncoder(config={}, dtype="float16"),
            prompt_tokenizer=BertWords(),
        )
        return instantiate(
            config.backbone,
            vision=vision,
            llm=PromptedLanguageModel(llm, load_tokenizer(None)),
            alignment=instantiate(config.alignment, text_encoder=BertSizes()),
        )


def composed(*overrides: str) -> Any:
    """The main config; nothing of it is fetched."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", [*overrides, "data.root=none", "paths.run=none"])


def row(cells: list[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def table() -> None:
    """Print the estimates of the full model."""
    print(
        row(["LLM", "frames", "batch", "weights", "gradients", "optimizer", "activations", "all"])
    )
    print("|-|-|-|-|-|-|-|-|")
    for kind in KINDS:
        model = full_model(kind)
        for frames in (20, 100):
            for batch in (1, 16):
                estimate = estimate_memory(model, batch, frames)
                print(row([kind, str(frames), str(batch), *cells(estimate, GIB)]))


def cells(estimate: MemoryEstimate, unit: int) -> list[str]:
    """The parts of an estimate and their sum, in a unit."""
    parts = (estimate.weights, estimate.gradients, estimate.optimizer, estimate.activations or 0)
    return [f"{number / unit:.1f}" for number in (*parts, estimate.total)]


def check() -> None:
    """Print estimate and measurement of small models: activations, and AdamW's states."""
    print(row(["model", "frames", "batch", "activations", "measured", "optimizer", "measured"]))
    print("|-|-|-|-|-|-|-|")
    for name, (rows, frames, overrides) in SMALL.items():
        torch.manual_seed(0)
        model = instantiate(composed("model=tiny", "alignment=none", *overrides).backbone).train()
        batch = noise(rows, frames)
        prompt = model.vision.prompt_tokenizer.encode(batch.prompt).ids.shape[1]
        answer = model.llm.answer_length(ANSWER)
        found = estimate_memory(model, rows, frames)
        known = model.activation_bytes(rows, frames, prompt, answer)
        optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
        measured = peak_bytes(lambda: sum(model(batch).values()).backward())  # noqa: B023
        optimizer.step()
        states = [s[k] for s in optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
        held = (known, measured, found.optimizer, sum(state.nbytes for state in states))
        print(row([name, str(frames), str(rows), *(f"{number / MIB:.1f}" for number in held)]))


def noise(rows: int, frames: int) -> Batch:
    """A batch of random pictures."""
    names = [str(i) for i in range(rows)]
    return Batch.questions(
        prompt=["what happens?"] * rows,
        target=[ANSWER] * rows,
        video_id=names,
        frames=torch.randint(0, 256, (rows, frames, 3, 64, 64), dtype=torch.uint8),
        frame_mask=torch.ones(rows, frames, dtype=torch.bool),
        timestamps_s=torch.zeros(rows, frames),
        item_id=names,
        task=["open"] * rows,
    )


def peak_bytes(step: Callable[[], object]) -> int:
    """Bytes that `step` holds at its peak beyond what lies there before it; it is run twice."""
    step()  # gradients and caches are there afterwards
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step()
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    given = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(given.cumsum(0).max())


def main() -> None:
    """Parse the command line, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="measure small models on a CPU")
    check() if parser.parse_args().check else table()


if __name__ == "__main__":
    main()
