"""Loading a pretrained model holds it once: no second model, no second copy of its weights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import (
    InstructBlipForConditionalGeneration,
    InstructBlipVisionModel,
    LlamaForCausalLM,
)

import small_instructblip
from mmavlm.run import build_backbone
from support import composed

SIZES = {"width": 512, "layers": 3}
MIB = 2**20
# Memory that belongs to no file, sampled while the model is built; weights that lie in a mapped
# file as they are stored belong to it.
MEASURE = """
import json, sys, threading
from pathlib import Path
from mmavlm.run import build_backbone
from support import composed

def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def watch():
    while not done.wait(0.001):
        seen.append(private())

config, done, before, seen = composed(*sys.argv[1:]), threading.Event(), private(), []
thread = threading.Thread(target=watch)
thread.start()
model = build_backbone(config)
done.set()
thread.join()
parts = [*model.named_children(), *model.vision.named_children()]
size = {name: sum(p.nbytes for p in part.parameters()) for name, part in parts}
print(json.dumps({"peak": max(seen) - before, "size": size}))
"""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    path = tmp_path_factory.mktemp("sharded")
    small_instructblip.save(path, **SIZES, vocabulary=4000, max_shard_size="10MB")
    assert len(list(path.glob("model-*.safetensors"))) > 5
    return path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_peak_while_loading_is_the_model_itself(sharded, dtype):
    overrides = [*small_instructblip.overrides(sharded, **SIZES), f"encoder.dtype={dtype}",
                 f"llm.dtype={dtype}"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *overrides],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    encoder = told["size"]["encoder"]
    size = sum(
        told["size"][part] for part in ("vision", "alignment", "llm") if part in told["size"]
    )
    assert size > (100 if dtype == "float32" else 70) * MIB
    assert told["peak"] < 1.05 * size + 10 * MIB
    if dtype == "float32":  # nothing to cast: frozen weights stay in their file
        learns = size - encoder - told["size"]["llm"]
        assert told["peak"] < 1.05 * learns + 10 * MIB


def test_no_part_is_built_twice_and_the_whole_never(tmp_path, monkeypatch):
    folder = small_instructblip.save(tmp_path, max_shard_size="100KB")
    built = []
    for kind in (InstructBlipForConditionalGeneration, InstructBlipVisionModel, LlamaForCausalLM):
        init = kind.__init__

        def counted(self, *args, init=init, kind=kind, **how):
            built.append(kind.__name__)
            init(self, *args, **how)

        monkeypatch.setattr(kind, "__init__", counted)
    build_backbone(composed(*small_instructblip.overrides(folder)))
    assert sorted(built) == ["InstructBlipVisionModel", "LlamaForCausalLM"]
