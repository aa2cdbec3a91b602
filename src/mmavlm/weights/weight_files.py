"""Weights of a `VideoLanguageModel` as safetensors: some of its parts, each of them whole."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmavlm.core import checksums
from mmavlm.core.errors import CheckpointError, first_line
from mmavlm.core.given_files import require_weights
from mmavlm.weights import moved
from mmavlm.weights.pretrained import laid_over, raise_if_different

log = logging.getLogger(__name__)

ENCODER, SOUND_ENCODER = "vision.encoder", "sound.encoder"
PARTS = (
    ENCODER,
    "vision.norm",
    "vision.frame_positions",
    "vision.temporal.query_tokens",
    "vision.temporal.qformer",
    "vision.temporal.norm",
    "vision.temporal.bert_projection",
    "vision.temporal.bert",
    "vision.temporal.query",
    "vision.temporal.key",
    "vision.temporal.image_queries",
    "vision.temporal.image_qformer",
    "vision.temporal.time_table",
    "vision.temporal.time_queries",
    "vision.temporal.time_qformer",
    "vision.fusion",
    "alignment",
    "vision.projector",
    SOUND_ENCODER,
    "sound.norm",
    "sound.frame_positions",
    "sound.temporal",
    "sound.projector",
    "llm",
    "heads",
)


class WeightFile:
    """Such a file, of which the names are read at once and the tensors when they are asked for.

    Raises:
        CheckpointError: if it is missing, damaged, or holds names of no part.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        require_weights(self.path)
        try:
            with safe_open(self.path, framework="pt") as file:
                names = file.keys()
                self._stored = {moved.weight_name(name): name for name in names}
                self._checksums = (file.metadata() or {}).get(checksums.KEY)
        except (SafetensorError, OSError) as error:
            raise self._damaged(error) from error
        self.names = list(self._stored)
        raise_if_different(
            "a video-language model",
            str(self.path),
            unexpected=[name for name in self.names if part_of(name) is None],
        )

    @cached_property
    def parts(self) -> list[str]:
        """Which parts it holds, in the order of `PARTS`."""
        held = {part_of(name) for name in self.names}
        return [part for part in PARTS if part in held]

    def state(self, parts: Collection[str] = PARTS) -> dict[str, Tensor]:
        """The tensors of some parts by name, in the file's memory until they are used.

        Raises:
            CheckpointError: if the file is damaged, or a checksum of these tensors is another.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                wanted = [name for name in self.names if part_of(name) in parts]
                state = {self._stored[n]: file.get_tensor(self._stored[n]) for n in wanted}
        except (SafetensorError, OSError) as error:
            raise self._damaged(error) from error
        if self._checksums is None:
            checksums.tell_unverified(str(self.path))
        elif wrong := checksums.damaged_tensors(state, self._checksums):
            raise self._damaged(ValueError(f"the checksum of {', '.join(wrong[:3])} is another"))
        return moved.weights(state)

    def load(self, model: nn.Module, parts: Collection[str] = PARTS) -> None:
        """Copy those of `parts` that it holds into a model, each strictly, and say which.

        Of each part either all that learns is there or nothing of it, and so with what is frozen:
        a file may hold a language model without adapters, or the adapters alone. Parts the model
        does not have are left out, as the projector in stage 1.

        Raises:
            CheckpointError: listing the names that are missing, unexpected or of another shape;
                nothing is copied then.
        """
        wanted: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in model.state_dict().items():
            wanted[part_of(name) or ""][name] = tensor
        held = [part for part in self.parts if part in parts]
        taken = [part for part in held if part in wanted]
        found = self._widened(model, self.state(taken))
        here = {name: tensor for part in taken for name, tensor in wanted[part].items()}
        self._require_fit(model, here, found)
        model.load_state_dict(found, strict=False)
        log.info("took from %s: %s", self.path, ", ".join(taken))
        kept = [part for part in parts if part in wanted and part not in held]
        unused = [part for part in held if part not in wanted]
        for what, names in (("not in it, kept as they are", kept), ("not used", unused)):
            if names:
                log.info("%s: %s", what, ", ".join(names))

    def _widened(self, model: nn.Module, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, those of narrower layers widened for layers that grow from them."""
        for name, layer in model.named_modules():
            key, grows_from = f"{name}.weight", getattr(layer, "grows_from", None)
            if grows_from is None or key not in found:
                continue
            assert isinstance(layer, nn.Linear)  # as what `laid_over` widens
            stored = found[key]
            found |= {key: laid_over(layer, {"weight": stored})["weight"]}
            if found[key] is not stored:
                log.info(
                    "%s of %s has %d columns, which are the first of %d here; the others stay as "
                    "they were initialised",
                    key, self.path, grows_from, layer.in_features,
                )  # fmt: skip
        return found

    def _require_fit(
        self, model: nn.Module, here: Mapping[str, Tensor], found: Mapping[str, Tensor]
    ) -> None:
        learns = {name for name, p in model.named_parameters() if p.requires_grad}
        begun = {(part_of(name), name in learns) for name in found}
        # a tied weight has two names in the model and often one in a file
        given = {here[name].data_ptr() for name in found if name in here}
        raise_if_different(
            "this model",
            str(self.path),
            missing=[
                name
                for name, tensor in here.items()
                if name not in found
                and (part_of(name), name in learns) in begun
                and tensor.data_ptr() not in given
            ],
            unexpected=[name for name in found if name not in here],
            misshaped=[
                f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
                for name, tensor in here.items()
                if name in found and found[name].shape != tensor.shape
            ],
        )

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self.path} cannot be read ({first_line(error)}); it is damaged, or no safetensors "
            "file: write or fetch it anew"
        )


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name with their checksums, under the permissions that any new file gets.

    Raises:
        OSError: if the folder cannot be written, or its disk is full.
    """
    path.touch()
    mode = path.stat().st_mode
    apart = unshared(state)
    save_file(apart, path, metadata={"format": "pt", checksums.KEY: checksums.noted(apart)})
    path.chmod(mode)  # safetensors leaves a file that its owner alone may read


def unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with each tensor in a storage of its own, no larger than it is."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage()
        alone = storage.data_ptr() not in seen and storage.nbytes() == tensor.nbytes
        seen.add(storage.data_ptr())
        apart[name] = tensor.contiguous() if alone else tensor.clone().contiguous()
    return apart


def part_of(name: str) -> str | None:
    """The part a name belongs to, None for a name of no part."""
    return next((part for part in PARTS if name == part or name.startswith(f"{part}.")), None)
