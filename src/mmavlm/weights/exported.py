"""The form of an exported model: a folder of config, weights and tokenizers, without pickle."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmavlm.core import checksums
from mmavlm.core.chat_formats import CHAT_FORMATS
from mmavlm.core.errors import CheckpointError, first_line
from mmavlm.weights import moved

if TYPE_CHECKING:
    from mmavlm.weights.weight_files import WeightFile

MODEL_TYPE = "mmavlm"
CONFIG, TRAINED, FROZEN = "config.json", "model.safetensors", "frozen.safetensors"
MOST_CONFIG_BYTES = 16 * 2**20
QFORMER_TOKENIZER = "qformer_tokenizer"
INSIDE_KEY = "inside"  # where a read export keeps the settings that point into its own folder
TOKENIZER_SUFFIXES = (".json", ".txt", ".model", ".jinja")
OF_STAGES = "backbone."  # what the names of a checkpoint begin with
# The groups of a run's config that say what the model is, and how it answers.
GROUPS = ("pretrained", "encoder", "prompt_tokenizer", "backbone", "stage")


@dataclass(frozen=True)
class ExportedFolder:
    """Such a folder on this machine: `run` is the stage, the overrides and the model's config.

    `frozen.safetensors` is there only if weights that do not learn came from a file of their own.
    """

    path: Path
    run: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> ExportedFolder:
        """Read its config.

        Raises:
            CheckpointError: if config.json is missing or of another kind of model, a checksum of it
                or of a tokenizer's file is another, or a file of the folder is a link out of it.
        """
        _require_inside(path)
        try:
            file = path / CONFIG
            if file.is_file() and file.stat().st_size > MOST_CONFIG_BYTES:
                raise ValueError(f"it has more than {MOST_CONFIG_BYTES} bytes")
            config = json.loads(file.read_text(encoding="utf-8"))
            kind = config.get("model_type")
            run = config["run"] if kind == MODEL_TYPE else {}
            if kind == MODEL_TYPE:
                _require_groups(run["config"])
            told = dict(config.get(checksums.KEY) or {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{path / CONFIG} cannot be read ({first_line(error)}); give a folder written by "
                "python -m mmavlm.export"
            ) from error
        if kind != MODEL_TYPE:
            raise CheckpointError(
                f"{path} holds a model of type {kind!r}, expected {MODEL_TYPE!r}; give a folder "
                "written by python -m mmavlm.export, or to start from InstructBLIP pretrained=…"
            )
        if not told:
            checksums.tell_unverified(str(path / CONFIG))
        there = small_checksums(path, run)
        if wrong := [name for name in there if told and there[name] != told.get(name)]:
            raise CheckpointError(
                f"{path} is not as it was exported: the checksum of {', '.join(wrong)} is another. "
                f"It is damaged: fetch or export it again. If you changed it on purpose, remove "
                f"{checksums.KEY!r} from its {CONFIG}"
            )
        return cls(path.resolve(), moved.run_settings(run))

    @property
    def trained(self) -> WeightFile:
        """The weights that learned."""
        from mmavlm.weights.weight_files import WeightFile

        return WeightFile(self.path / TRAINED)

    @property
    def settings(self) -> dict[str, str]:
        """What is to be set so that tokenizers and frozen weights come from here."""
        config = self.run["config"]["backbone"]
        settings = {}
        if (self.path / QFORMER_TOKENIZER).is_dir():
            settings["prompt_tokenizer.pretrained"] = str(self.path)
            settings["prompt_tokenizer.subfolder"] = QFORMER_TOKENIZER
        if "tokenizer" in (config["llm"] or {}):
            settings["llm.tokenizer"] = str(self.path)
        if (config["llm"] or {}).get("chat_template") not in {None, "none", *CHAT_FORMATS}:
            settings["llm.chat_template"] = "auto"  # what it was lies with the tokenizer
        if (self.path / FROZEN).is_file():
            settings["init.weights"] = str(self.path / FROZEN)
        return settings

    def as_checkpoint(self) -> dict[str, Any]:
        """What a stage's checkpoint holds of weights and run, under its keys."""
        weights = self.trained.state().items()
        return {
            "state_dict": {f"{OF_STAGES}{name}": tensor for name, tensor in weights},
            MODEL_TYPE: self.run,
            INSIDE_KEY: self.settings,
        }


def _require_groups(config: Any) -> None:
    """Raise ValueError unless a stored config has the groups of a model."""
    if not isinstance(config, Mapping) or not {*GROUPS} <= config.keys():
        raise ValueError(f"its run has no config with the groups {', '.join(GROUPS)}")
    backbone = config["backbone"]
    if not isinstance(backbone, Mapping) or not isinstance(backbone.get("llm", ""), Mapping | None):
        raise ValueError("its backbone is not a group of settings with an llm")


def _require_inside(folder: Path) -> None:
    """Refuse links that lead out of a folder; those of the hub's cache lead to its blobs."""
    root = folder.resolve()
    roots = [root, *([root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [])]
    for file in folder.rglob("*"):
        if file.is_symlink() and not any(file.resolve().is_relative_to(r) for r in roots):
            raise CheckpointError(
                f"{file} is a link that leads out of {folder}; an exported model holds its own "
                "files, so copy the file there if you trust it"
            )


def small_checksums(path: Path, run: Mapping[str, Any]) -> dict[str, str]:
    """Checksums of an exported folder's config and of its tokenizers' files, by name.

    The model card is left out: hubs and their users change it.
    """
    files = [f for f in sorted(path.rglob("*")) if f.is_file() and f.suffix in TOKENIZER_SUFFIXES]
    names = {file.relative_to(path).as_posix(): file for file in files}
    of_run = zlib.crc32(json.dumps(run, sort_keys=True).encode())
    return {"run": f"{of_run:08x}"} | {
        name: checksums.file_crc32(file) for name, file in names.items() if name != CONFIG
    }
