"""The README of an exported model, as the Hub reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mmavlm.weights.trust import OF_THE_MODEL, TARGET, Fence

CARD = """---
{head}
---

# A video-language model trained with mmavlm

It watches a film frame by frame with a long-term memory and answers prompts about it. This folder
holds the {trained} weights that were trained (`model.safetensors`), the settings of the run
(`config.json`) and the tokenizers. {frozen}

```python
import mmavlm

model = mmavlm.load("path/of/this/folder"{trust})  # or its name on the Hub
print(model.ask("film.mp4", "what happens?"))
```

```bash
python -m mmavlm.predict checkpoint=path/of/this/folder{trust_option} video=film.mp4 prompt="…"
python -m mmavlm.evaluate checkpoint=path/of/this/folder{trust_option} data.root=…
```

| part | setting |
|-|-|
{parts}

Trained in stage `{stage}` with `{overrides}`. No result is claimed here: `mmavlm.evaluate` gives
accuracies with their intervals. Answers may be wrong, and tell nothing that training films and the
language model do not hold.
"""
FROM_FILES = "Its frozen parts, the visual encoder and the language model, come from `{}`."
REBUILT = "Parts that were not trained are built anew from the settings."


def model_card(run: Mapping[str, Any], weights: Sequence[Tensor], license_name: str | None) -> str:
    """The card of a run's model: what it is, what is in the folder, how it is used."""
    pretrained = run["config"]["pretrained"]
    head = {
        "library_name": "mmavlm",
        "pipeline_tag": "video-text-to-text",
        "tags": "[video, video-question-answering, long-term-memory, mma-mff]",
    }
    if pretrained is not None and _hub_name(pretrained):
        head["base_model"] = pretrained
    if license_name is not None:
        head["license"] = license_name
    admitted = _to_admit(run["config"])
    return CARD.format(
        trust=f", trust={admitted}" if admitted else "",
        trust_option=f" trust=[{','.join(admitted)}]" if admitted else "",
        head="\n".join(f"{key}: {value}" for key, value in head.items()),
        trained=f"{sum(t.numel() for t in weights) / 1e6:.1f} million",
        frozen=REBUILT if pretrained is None else FROM_FILES.format(pretrained),
        parts="\n".join(f"| {part} | {setting} |" for part, setting in _parts(run["config"])),
        stage=run["stage"],
        overrides=" ".join(run["overrides"]),
    )


def _to_admit(config: Mapping[str, Any]) -> list[str]:
    """The packages and hub names that somebody else must trust to build the model."""
    fence = Fence("this model")
    found = [o for group in OF_THE_MODEL for o in fence.objections(group, config.get(group))]
    packages = [value.split(".")[0] for key, value, _ in found if key.endswith(TARGET)]
    hub_names = [value for key, value, _ in found if not key.endswith(TARGET) and _hub_name(value)]
    return list(dict.fromkeys([*packages, *hub_names]))


def _parts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parts of a model and what fills them."""
    backbone, vision = config["backbone"], config["backbone"]["vision"]
    groups = {"encoder": vision["encoder"], "fusion": vision["fusion"], "llm": backbone["llm"]}
    temporal = vision["temporal"]
    groups |= {"temporal": temporal, "memory": temporal.get("visual_memory")}
    groups |= {"alignment": backbone["alignment"]}
    if (sound := backbone.get("sound")) is not None:
        groups |= {"sound encoder": sound["encoder"]}
    return [(part, _told(settings)) for part, settings in groups.items() if settings is not None]


def _told(settings: Mapping[str, Any]) -> str:
    name = str(settings["_target_"]).split(".")[-1]
    plain = {k: v for k, v in settings.items() if isinstance(v, int | float) and k != "seed"}
    return f"{name} ({', '.join(f'{k}={v}' for k, v in plain.items())})" if plain else name


def _hub_name(pretrained: str) -> bool:
    return pretrained.count("/") == 1 and not pretrained.startswith((".", "/", "~"))
