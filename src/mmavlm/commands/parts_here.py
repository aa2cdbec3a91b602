"""Heavy parts tried in a process of their own, which may crash or hang without harm to its parent.

`python -m mmavlm.commands.parts_here torch` prints what was found as one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

ERROR = "error"
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4")
ENCODER = "libx264"  # of the films that `mmavlm movies` and the demo draw


def tried(part: str, *arguments: str, timeout_s: float) -> dict[str, Any]:
    """What a process of its own found of a part; why not, under `error`."""
    line = [sys.executable, "-m", "mmavlm.commands.parts_here", part, *arguments]
    try:
        process = subprocess.run(line, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {ERROR: f"gave no answer within {timeout_s:g} s"}
    if process.returncode != 0:
        last = process.stderr.strip().splitlines()[-1:] or [f"ended with {process.returncode}"]
        return {ERROR: last[0]}
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def of_torch() -> dict[str, Any]:
    """Versions of torch and torchvision, imported, and the GPUs that torch sees."""
    import torch
    import torchvision

    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            of = torch.cuda.get_device_properties(index)
            gpus.append(f"{of.name}, {of.total_memory / 2**30:.0f} GiB")
    elif torch.backends.mps.is_available():
        gpus.append("Apple's, through MPS")
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda or torch.version.hip,
        "gpus": gpus,
    }


def of_av() -> dict[str, Any]:
    """FFmpeg's libraries as av brings them, and the codecs that they lack."""
    import av

    there = av.codecs_available
    return {
        "libraries": {
            name: ".".join(map(str, number)) for name, number in av.library_versions.items()
        },
        "lacking": [name for name in (*DECODERS, ENCODER) if name not in there],
    }


def of_hub(timeout_s: str) -> dict[str, Any]:
    """The hub's address, whether it answers, and where what it gave is kept."""
    from huggingface_hub import constants, get_session

    found = {"endpoint": constants.ENDPOINT, "cache": constants.HF_HUB_CACHE}
    if constants.HF_HUB_OFFLINE:
        return {**found, "offline": True}
    try:
        answer = get_session().head(constants.ENDPOINT, timeout=float(timeout_s))
    except Exception as error:  # whatever a network, a proxy or a certificate has to say
        return {**found, "unreached": f"{type(error).__name__}: {error}"}
    return {**found, "status": answer.status_code}


PARTS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "torch": of_torch,
    "av": of_av,
    "hub": of_hub,
}


if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
