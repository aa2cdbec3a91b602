"""Models of mmavlm in lmms-eval: `python -m lmms_eval --model mmavlm --model_args pretrained=…`.

lmms-eval finds this file by the entry point `lmms_eval.models`, once mmavlm is installed beside it.
Nothing else here imports it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL import Image

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.medium import Kind, Medium
from mmavlm.core.turns import Part, Shown, Turn
from mmavlm.loaded.model import load
from mmavlm.run.chat import own_medium

KINDS: Mapping[str, Kind] = {"video": "film", "image": "picture", "audio": "sound"}
# What a task says of how answers are given, and its name here.
SETTINGS = {
    "max_new_tokens": "stage.max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "num_beams": "num_beams",
}


def manifest() -> ModelManifest:
    """What lmms-eval is told: the name of the model, and its class."""
    return ModelManifest("mmavlm", chat_class_path=f"{__name__}.{Mmavlm.__name__}")


class Mmavlm(lmms):
    """A checkpoint, run or exported folder that answers the questions of lmms-eval's tasks.

    `pretrained` names it, as `mmavlm.load` takes it; other arguments are those of `load`, settings
    among them (`data.num_frames=32`). A question is a conversation of its own.

    Raises:
        ConfigError: if several questions are to be answered at once (`batch_size` above 1).
        CheckpointError: as of `load`.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        trust: str = "",
        **settings: Any,
    ) -> None:
        super().__init__()
        if str(batch_size) != "1":
            raise ConfigError(f"batch_size={batch_size}: questions are answered one by one; say 1")
        settings.pop("max_batch_size", None)
        self.model = load(
            pretrained, device=device or "auto", dtype=dtype, trust=trust.split() or (), **settings
        )

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """An answer to each request, in order, cut where the task has it end.

        Raises:
            DataError: naming a film that cannot be used, or a part of a message that is not read.
            ConfigError: if the model answers nothing, or a setting of the task does not fit.
        """
        answers = []
        with tempfile.TemporaryDirectory() as folder:
            for request in requests:
                context, messages_of, given, doc_id, task, split = request.args
                messages = messages_of(self.task_dict[task][split][doc_id])
                text = self._answer(conversation_of(messages, Path(folder)), given)
                self.cache_hook.add_partial("generate_until", (context, given), text)
                answers.append(text)
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not there; raises NotImplementedError."""
        raise NotImplementedError(
            "mmavlm answers tasks that generate text (output_type: generate_until); a task of "
            "choices is ranked by `python -m mmavlm.evaluate`"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not there; raises NotImplementedError."""
        raise NotImplementedError(
            "mmavlm answers tasks of one round (output_type: generate_until); choose another task"
        )

    def _answer(self, talk_of: Conversation, given: Mapping[str, Any]) -> str:
        settings = {ours: given[name] for name, ours in SETTINGS.items() if given.get(name)}
        talk = self.model.chat(**settings)
        question = talk.chat.take(talk_of)
        if question is None:
            raise DataError("the last message of a task is the assistant's; end with the user's")
        text = talk.say(question).text
        until = given.get("until") or ()
        for end in [until] if isinstance(until, str) else until:
            text = text.split(end)[0] if end else text
        return text


def conversation_of(messages: Sequence[Mapping[str, Any]], folder: Path) -> Conversation:
    """The conversation of a task's messages; pictures in memory are written to a folder.

    Raises:
        DataError: naming what stands in a message and is not read.
    """
    media: list[Medium] = []
    turns = []
    for message in messages:
        parts: list[Part] = []
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                parts.append(part["text"])
            else:
                parts.append(Shown(len(media)))
                media.append(_medium(part, folder))
        turns.append(Turn(message["role"], tuple(parts)))
    return Conversation(tuple(turns), tuple(media))


def _medium(part: Mapping[str, Any], folder: Path) -> Medium:
    """A film, picture or sound of a message: by its path, or a picture in memory."""
    kind, shown = KINDS.get(part["type"]), part.get("url")
    if kind is not None and isinstance(shown, str | Path) and "://" not in str(shown):
        return own_medium(kind, str(shown), part.get("start_time") or 0.0, part.get("end_time"))
    if kind == "picture" and isinstance(shown, Image.Image):
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".png", delete=False) as file:
            shown.convert("RGB").save(file, "png")
        return own_medium(kind, file.name)
    raise DataError(
        f"a message shows a {part['type']} as {type(shown).__name__}; expected the path of a file, "
        "or a PIL image"
    )
