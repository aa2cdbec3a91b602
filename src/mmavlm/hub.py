"""Exported models without a command line: `from_pretrained("folder or hub name")`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.run import build_backbone
from mmavlm.weights.checkpoint import load_trainable
from mmavlm.weights.exported import FROZEN, TRAINED, ExportedFolder
from mmavlm.weights.pretrained import SMALL_FILES, PretrainedFolder
from mmavlm.weights.trust import OF_THE_MODEL, Fence


def fetched(name_or_path: str | Path, revision: str | None = None) -> Path:
    """An exported folder on this machine: itself, or what the hub has of that name.

    Raises:
        CheckpointError: if there is no such folder, or the hub cannot give it.
    """
    hub = PretrainedFolder(name_or_path, revision=revision)
    return hub.fetch((*SMALL_FILES, "*/*.json", TRAINED, FROZEN))


def from_pretrained(
    name_or_path: str | Path, *, revision: str | None = None, trust: Sequence[str] = ()
) -> VideoLanguageModel:
    """An exported model by folder or hub name, in eval mode, on the CPU.

    Trained weights and tokenizers come from the folder, frozen parts from where the run that
    trained it had them from (`pretrained` in its config). The config may choose parts of this
    library and weights that conf/ names; `trust` admits more: packages whose parts it uses, hub
    names and folders it takes weights from.

    Raises:
        CheckpointError: if the folder is missing, damaged or no export, its config says more than
            that (see `mmavlm.weights.trust`), or its weights do not fit.
        NoMemoryError: if the config describes a model larger than the free memory.
    """
    folder = ExportedFolder.read(fetched(name_or_path, revision))
    told = folder.run["config"]
    fence = Fence.around(folder.run, f"the config.json of {name_or_path}", trust)
    for group in OF_THE_MODEL:
        fence.check(group, told.get(group))
    config = OmegaConf.create({**told, "llm": told["backbone"]["llm"], "init": {"weights": None}})
    for key, value in folder.settings.items():
        OmegaConf.update(config, key, value, force_add=True)
    config.backbone.vision.prompt_tokenizer = config.prompt_tokenizer
    config.backbone.llm = config.llm
    model = build_backbone(config)
    load_trainable(model, folder.trained.state(), f"the weights in {name_or_path}")
    return model.eval()
