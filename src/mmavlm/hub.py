"""Exported models without a command line: `from_pretrained("folder or hub name")`."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from mmavlm.backbone import VideoLanguageModel
from mmavlm.run import build_backbone
from mmavlm.stages.checkpoint import load_trainable
from mmavlm.stages.exported import FROZEN, TRAINED, ExportedFolder
from mmavlm.weights import SMALL_FILES, PretrainedFolder


def from_pretrained(name_or_path: str | Path, *, revision: str | None = None) -> VideoLanguageModel:
    """An exported model by folder or hub name, in eval mode, on the CPU.

    Frozen parts come from where the run that trained it had them from (`pretrained` in its
    config), tokenizers and trained weights from the folder.

    Raises:
        CheckpointError: if the folder is missing, damaged or no export, or its weights do not fit.
    """
    hub = PretrainedFolder(name_or_path, revision=revision)
    folder = ExportedFolder.read(hub.fetch((*SMALL_FILES, "*/*.json", TRAINED, FROZEN)))
    told = folder.run["config"]
    config = OmegaConf.create({**told, "llm": told["backbone"]["llm"], "init": {"weights": None}})
    for key, value in folder.settings.items():
        OmegaConf.update(config, key, value, force_add=True)
    config.backbone.prompt_tokenizer, config.backbone.llm = config.prompt_tokenizer, config.llm
    model = build_backbone(config)
    load_trainable(model, folder.trained.state(), f"the weights in {name_or_path}")
    return model.eval()
