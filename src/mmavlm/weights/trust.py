"""The fence around artefacts: what the settings inside a checkpoint or an export may say.

Artefacts are data. They choose among the parts that conf/ offers and set their numbers, words and
prompts. They name no other code, no environment variable, and no file, folder, address or hub name
but those that conf/ itself gives. The user can admit more by name (`trust=`), or make the setting
on the command line instead. Settings that the user's own run sealed may name places as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from mmavlm.core.chat_formats import CHAT_FORMATS
from mmavlm.core.errors import CheckpointError, ConfigError
from mmavlm.weights.offered import offered_parts, offered_weights
from mmavlm.weights.seal import is_own

OF_THE_MODEL = ("pretrained", "encoder", "prompt_tokenizer", "backbone")  # built of a stored config
TARGET, PARTIAL = "_target_", "_partial_"
# The last word of a setting whose value is looked up on a disk or at a hub, even if it is one word.
PLACES = {
    "cache", "checkpoint_path", "default_root_dir", "dir", "dirpath", "explain_to",
    "false_answers", "index", "predictions", "pretrained", "root", "run", "save_dir", "to",
    "tokenizer", "weights",
}  # fmt: skip
ENCODER_NAME = "encoder.name"  # timm's: hf-hub:… and local-dir:… name places, a tag weights
# Settings whose value is shown to a model or a person and never looked up.
TEXTS = {"monitor", "prompt", "prompt_suffix", "prompt_template", "separator"}
CHAT_TEMPLATE, CHAT_CHOICES = "chat_template", {"auto", "none", *CHAT_FORMATS}
# What surrounds a run and reaches other programs: only the user chooses these.
AROUND = {"hydra", "logger", "prepare"}
_WORD = re.compile(r"[\w+\-][\w .,+\-]{0,199}")
_NODE = re.compile(r"\$\{\.*[A-Za-z_][\w.]*\}")  # a reference to another setting, without resolver
_SHOWN = 80  # characters of a refused value


@dataclass(frozen=True)
class Fence:
    """What may come in: from `where`, with what the user trusts, and whether the user wrote it."""

    where: str
    trust: Sequence[str] = ()
    own: bool = False

    @classmethod
    def around(cls, run: Any, where: str, trust: Collection[str]) -> Fence:
        """The fence for the settings `run` that an artefact holds.

        Raises:
            CheckpointError: if they are not of the form that mmavlm writes.
            ConfigError: if `trust` would admit everything.
        """
        overrides = run.get("overrides") if isinstance(run, Mapping) else None
        well_formed = isinstance(overrides, Sequence) and all(isinstance(o, str) for o in overrides)
        if not well_formed or not isinstance(run.get("config"), Mapping):
            raise CheckpointError(
                f"{where} does not hold the settings of a run as mmavlm writes them (`config` and "
                "`overrides`); it is damaged or was made by another program"
            )
        for name in trust:
            if name.split(".")[0] == "mmavlm":
                raise ConfigError(
                    f"trust={name} would admit every function of this library; its parts are "
                    "admitted anyway, so name only packages of your own"
                )
        return cls(where, tuple(trust), is_own(run))

    def check(self, setting: str, value: Any) -> None:
        """Refuse a stored setting, with all that is nested in it, that is more than data.

        Raises:
            CheckpointError: naming the artefact, the setting, its value and the way to admit it.
        """
        group = re.split(r"[./@]", setting.lstrip("/"))[0]
        if group == "hydra" or (group in AROUND and not self.own):
            raise self._refusal(setting, value, "sets what surrounds a run")
        for key, leaf, why in self.objections(setting, value):
            raise self._refusal(key, leaf, why, setting)

    def objections(self, setting: str, value: Any) -> Iterator[tuple[str, Any, str]]:
        """Key and value of what is more than data in a setting, and why."""
        for key, leaf in _leaves(setting, value):
            if (why := self._objection(key, leaf)) is not None:
                yield key, leaf, why

    def _objection(self, key: str, value: Any) -> str | None:
        """What is wrong with the value of one setting, or None."""
        name = re.split(r"[./@]", key)[-1]
        if name == TARGET and isinstance(value, str):
            known = value in offered_parts() or self._is_trusted_code(value)
            return None if known else "is not a part of this library"
        if name.startswith("_") and not (name == PARTIAL and isinstance(value, bool)):
            return f"makes use of {name}"
        if isinstance(value, str):
            return self._objection_to_text(key, name, value)
        plain = value is None or isinstance(value, bool | int | float)
        return None if plain else f"is of type {type(value).__name__}"

    def _objection_to_text(self, key: str, name: str, value: str) -> str | None:
        if "${" in _NODE.sub("", value) or "\0" in value:
            return "would be computed from something else"
        if name in TEXTS or _NODE.fullmatch(value):
            return None
        if name == CHAT_TEMPLATE and (value in CHAT_CHOICES or "{{" in value or "{%" in value):
            return None  # rendered in a process of its own: see `llm.chat_process`
        is_place = (
            name in {*PLACES, CHAT_TEMPLATE}
            or key.endswith(ENCODER_NAME)
            or key.startswith("paths.")
        )
        is_plain = _WORD.fullmatch(value) and not is_place
        if is_plain or self.own or value in offered_weights() or value in self.trust:
            return None
        return "names a file, folder, address or hub name"

    def _is_trusted_code(self, target: str) -> bool:
        """Whether a target is a class or function that a trusted package defines itself."""
        if not any(target.startswith(f"{package}.") for package in self.trust):
            return False
        try:
            found = resolve_name(target)
        except Exception as error:  # whatever the user's own package raises while it is imported
            raise CheckpointError(
                f"{self.where} needs {target}, which cannot be imported ({error}); install that "
                "package, or choose another part"
            ) from error
        defined_in = f"{getattr(found, '__module__', '')}."
        return callable(found) and any(defined_in.startswith(f"{p}.") for p in self.trust)

    def _refusal(
        self, key: str, value: Any, why: str, setting: str | None = None
    ) -> CheckpointError:
        shown = str(value) if len(str(value)) <= _SHOWN else f"{str(value)[:_SHOWN]}…"
        if key.endswith(TARGET):
            remedy = f"if you trust its package, say trust={str(value).split('.')[0]}"
        else:
            remedy = f"make this setting yourself: {setting or key}=…"
            if setting is not None and isinstance(value, str) and "${" not in value:
                remedy += f", or admit it: trust={shown}"
        return CheckpointError(
            f"{self.where} sets {key}={shown!r}, which {why}. Settings inside a checkpoint or an "
            f"exported model may only choose parts of this library and set their numbers; {remedy}"
        )


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values inside a nested setting, each with its full key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(key, inner)
    else:
        yield key, value
