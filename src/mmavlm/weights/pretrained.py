"""Pretrained weights: folders as transformers saves them, local or from the hub, read in part."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mmavlm.core.checksums import damage_of_zip
from mmavlm.core.errors import CheckpointError, ConfigError, first_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")  # configs, tokenizers, indices of shards
FORMATS = ("model.safetensors", "pytorch_model.bin")  # in order of preference
# Buffers that older versions saved and newer ones compute.
COMPUTED = ("position_ids", "rotary_emb.inv_freq")
SHOWN = 10  # keys listed of each kind of disagreement
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, KeyError)


class PretrainedFolder:
    """A folder with config and weights, or the hub name of one, read as little as is needed.

    From the hub come configs and tokenizers first, and of the weights only the shards asked for.

    Raises:
        CheckpointError: if there is no such folder, or the hub cannot give it.
    """

    def __init__(self, name_or_path: str | Path, *, revision: str | None = None) -> None:
        self.name = str(name_or_path)
        self.revision = revision
        local = Path(self.name).expanduser()
        self._local = local if local.is_dir() else None
        if self._local is None and (local.is_absolute() or self.name.startswith((".", "~"))):
            raise CheckpointError(
                f"the folder {self.name} does not exist; give a folder written by save_pretrained, "
                "or a hub name such as Salesforce/instructblip-vicuna-7b"
            )

    @cached_property
    def path(self) -> Path:
        """The folder on this machine; holds at least configs and tokenizers."""
        return self.fetch(SMALL_FILES)

    @cached_property
    def config(self) -> PretrainedConfig:
        """The model's configuration.

        Raises:
            CheckpointError: if there is none, or of a kind transformers does not know.
        """
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.path, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{self.name} has no usable config.json ({first_line(error)}); give a folder "
                "written by save_pretrained"
            ) from error

    def state_dict(
        self, prefix: str = "", *, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, by the rest of their names.

        A leading `model.`, which some versions add, is passed over. Floating tensors are cast to
        `dtype` one by one, if given.

        Raises:
            CheckpointError: if nothing has that prefix, or a file is missing or damaged.
        """
        by_file: dict[str, dict[str, str]] = defaultdict(dict)
        for start in (prefix, f"model.{prefix}"):
            for key, file in self._files.items():
                if key.startswith(start) and not key.endswith(COMPUTED):
                    by_file[file][key] = key.removeprefix(start)
            if by_file:
                break
        if not by_file:
            tops = sorted({key.split(".")[0] for key in self._files})
            raise CheckpointError(
                f"{self.name} holds no weights named {prefix}…; its names begin with "
                f"{', '.join(tops[:SHOWN])}"
            )
        if self._local is None:
            self.fetch(tuple(by_file))
        state = {}
        for file, names in by_file.items():
            for name, tensor in _read(self.path / file, names).items():
                state[name] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        return state

    def with_weights(self) -> Path:
        """The folder on this machine, holding all weights too."""
        files = tuple(dict.fromkeys(self._files.values()))
        return self.fetch((*SMALL_FILES, *files))

    @cached_property
    def _files(self) -> dict[str, str]:
        """Name of every tensor → name of the file it lies in."""
        for weights in FORMATS:
            index = self.path / f"{weights}.index.json"
            if index.is_file():
                try:
                    return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
                except _UNREADABLE as error:
                    raise _damaged(index, error) from error
        for weights in FORMATS:
            if self._local is None:
                self.fetch((weights,))
            if (self.path / weights).is_file():
                return dict.fromkeys(_names(self.path / weights), weights)
        raise CheckpointError(
            f"{self.name} holds no weights; expected {' or '.join(FORMATS)}, whole or in shards, "
            f"in {self.path}"
        )

    def fetch(self, patterns: Sequence[str]) -> Path:
        """The folder on this machine, holding at least the files that match one of `patterns`."""
        if self._local is not None:
            return self._local
        try:
            return Path(
                snapshot_download(self.name, revision=self.revision, allow_patterns=list(patterns))
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.name} is no local folder, and {', '.join(patterns)} could not be fetched "
                f"from the hub by that name ({first_line(error)}); check the name and the "
                "connection, unset HF_HUB_OFFLINE if it is set, or give a local folder that holds "
                "config.json and weights"
            ) from error


@dataclass(frozen=True)
class InstructBlipParts:
    """What an InstructBLIP folder has between its vision model and its language model.

    `qformer` is named as in transformers' `InstructBlipQFormerModel`; `query_tokens` (1,K,D);
    `projection` and `norm` (the LayerNorm behind the vision model) hold `weight` and `bias`.
    """

    qformer: dict[str, Tensor]
    query_tokens: Tensor
    projection: dict[str, Tensor]
    norm: dict[str, Tensor]


def instructblip_parts(folder: PretrainedFolder) -> InstructBlipParts:
    """Read the small parts of an InstructBLIP folder (InstructBLIP, figure 3).

    Raises:
        CheckpointError: if the folder holds another kind of model, or lacks a part.
    """
    require_kind(folder, "instructblip")
    return InstructBlipParts(
        qformer=folder.state_dict("qformer."),
        query_tokens=folder.state_dict("query_tokens")[""],
        projection=folder.state_dict("language_projection."),
        norm=folder.state_dict("vision_model.post_layernorm."),
    )


def laid_over(layer: nn.Linear, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a linear layer, widened where `layer` grows from a narrower one.

    Those of a layer with `grows_from` inputs are laid over its first columns; the others stay.
    """
    grows_from, weight = getattr(layer, "grows_from", None), state.get("weight")
    if grows_from is None or weight is None or weight.shape[1:] != (grows_from,):
        return state
    further = layer.weight.detach()[:, grows_from:]
    return {**state, "weight": torch.cat([weight.to(further), further], dim=1)}


def require_kind(folder: PretrainedFolder, *kinds: str) -> None:
    """Raise CheckpointError unless the folder's model is of one of these `model_type`s."""
    found = folder.config.model_type
    if found not in kinds:
        raise CheckpointError(
            f"{folder.name} holds a model of type {found!r}, expected "
            f"{' or '.join(map(repr, kinds))}; "
            "give another folder or hub name"
        )


def load_transformer(
    model_class: Any, where: str, path: Path | None, *, may_miss: tuple[str, ...] = (), **how: Any
) -> tuple[Any, list[str]]:
    """`model_class.from_pretrained(path, **how)`, refusing to start anything at random.

    Returns the model and the names of the weights it has no use for. Names that begin with one of
    `may_miss` may be absent from the weights, which come from `where`.

    Raises:
        CheckpointError: if the weights cannot be read, or other names are missing or misshaped.
    """
    try:
        model, info = model_class.from_pretrained(
            path,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=False,
            **how,
        )
    except (SafetensorError, *_UNREADABLE) as error:
        raise CheckpointError(
            f"{where} cannot be loaded by {model_class.__name__} ({first_line(error)}); "
            "give a folder of such a model, written by save_pretrained"
        ) from error
    raise_if_different(
        type(model).__name__,
        where,
        missing=[name for name in info["missing_keys"] if not name.startswith(may_miss)],
        misshaped=[
            f"{name} {tuple(found)} instead of {tuple(wanted)}"
            for name, found, wanted in info["mismatched_keys"]
        ],
    )
    return model, [name for name in info["unexpected_keys"] if not name.endswith(COMPUTED)]


def load_strict(
    module: nn.Module, state: Mapping[str, Tensor], where: str, *, assign: bool = False
) -> None:
    """Load `state`, taken from `where`, into a module that has exactly its names and shapes.

    With `assign` the tensors become the parameters instead of being copied into them.

    Raises:
        CheckpointError: listing the names that are missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    raise_if_different(
        type(module).__name__,
        where,
        missing=[name for name in wanted if name not in state],
        unexpected=[name for name in state if name not in wanted],
        misshaped=[
            f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in state and state[name].shape != tensor.shape
        ],
    )
    module.load_state_dict(state, strict=True, assign=assign)


def raise_if_different(
    what: str,
    where: str,
    *,
    missing: Sequence[str] = (),
    unexpected: Sequence[str] = (),
    misshaped: Sequence[str] = (),
) -> None:
    """Raise CheckpointError if weights from `where` do not fit `what`, saying in which names."""
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    if not any(kinds.values()):
        return
    lines = [
        f"  {len(names)} {kind}: {', '.join(sorted(names)[:SHOWN])}"
        + (", …" if len(names) > SHOWN else "")
        for kind, names in kinds.items()
        if names
    ]
    raise CheckpointError(
        "\n".join([f"the weights in {where} do not fit {what}:", *lines])
        + "\nuse weights of this architecture, or settings that match them"
    )


def as_dtype(name: str, key: str) -> torch.dtype:
    """The dtype a setting names; `auto` is half precision on a GPU, bfloat16 if it can do that.

    Raises:
        ConfigError: naming the setting `key` if it is none of auto, float32, float16, bfloat16.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if name not in DTYPES:
        raise ConfigError(f"{key} is {name!r}; choose one of auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _names(path: Path) -> list[str]:
    """The names of the tensors in a file."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return list(file.keys())
        except (SafetensorError, *_UNREADABLE) as error:
            raise _damaged(path, error) from error
    return list(unpickled(path))


def _read(path: Path, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a file under new names: {name in the file: new name}."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, though an index of shards names it; fetch it")
    try:
        if path.suffix != ".safetensors":
            stored = unpickled(path)
            return {new: stored[old] for old, new in names.items()}
        with safe_open(path, framework="pt") as file:
            return {new: file.get_tensor(old) for old, new in names.items()}
    except (SafetensorError, *_UNREADABLE) as error:
        raise _damaged(path, error) from error


def unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch wrote, mapped where it can be, and no code of it.

    Raises:
        CheckpointError: if it is damaged or holds more than weights.
    """
    is_zip = zipfile.is_zipfile(path)
    try:
        # parts are read from large shards, so their contents are not read twice
        if is_zip and (damage := damage_of_zip(path, contents=False)):
            raise ValueError(damage)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except (pickle.UnpicklingError, *_UNREADABLE) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read ({first_line(error)}); it is damaged or holds more than weights: "
        "fetch it anew"
    )
