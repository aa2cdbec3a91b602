"""Text from a causal language model of transformers in a local folder."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmavlm.core.errors import ConfigError
from mmavlm.movies.generators.text import TextRequest, TextResult


class LocalModel:
    """A causal language model, loaded from `folder` (safetensors, no code of its own is run).

    It draws at `temperature` with the request's seed, greedily at 0. A tokenizer without a chat
    template gets the messages as plain paragraphs.

    Raises:
        ConfigError: if there is no model in the folder.
    """

    def __init__(self, folder: str, *, temperature: float = 0.8, device: str = "cpu") -> None:
        if not (Path(folder) / "config.json").is_file():
            raise ConfigError(
                f"model={folder} holds no config.json; give the folder of a causal language model, "
                "as save_pretrained writes it"
            )
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"model={folder} cannot be loaded: {error}") from None
        self.model = model.to(device).eval()
        self.temperature = temperature
        self._digest = _digest(Path(folder))
        self._one_at_a_time = threading.Lock()  # the seed is the whole process's

    @property
    def fingerprint(self) -> str:
        """A hash of the folder's settings and weight files, and the temperature."""
        return f"transformers, {self._digest}, temperature {self.temperature}"

    @torch.no_grad()
    def complete(self, request: TextRequest) -> TextResult:
        """The model's continuation of the chat, up to `max_tokens` or the end of its context.

        Raises:
            ConfigError: if the request alone fills the model's context.
        """
        ids = self.tokenizer(
            self._prompt(request), return_tensors="pt", add_special_tokens=not self._has_template
        ).input_ids.to(self.model.device)
        room = self._context() - ids.shape[1]
        if room < 1:
            raise ConfigError(
                f"{request.task}: the request has {ids.shape[1]} tokens and the model's context "
                f"{self._context()}; take a model with a longer one, or a smaller fan_out"
            )
        drawn: dict[str, Any] = {"do_sample": False}
        if self.temperature:
            drawn = {"do_sample": True, "temperature": self.temperature}
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with self._one_at_a_time, torch.random.fork_rng(devices):
            torch.manual_seed(request.seed)
            written = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=min(request.max_tokens, room),
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
                **drawn,
            )[0, ids.shape[1] :]
        text = self.tokenizer.decode(written, skip_special_tokens=True)
        return TextResult(text, ids.shape[1], len(written))

    @property
    def _has_template(self) -> bool:
        return getattr(self.tokenizer, "chat_template", None) is not None

    def _prompt(self, request: TextRequest) -> str:
        if self._has_template:
            return self.tokenizer.apply_chat_template(
                request.messages, tokenize=False, add_generation_prompt=True
            )
        told = "\n\n".join(f"{m['role'].upper()}: {m['content']}" for m in request.messages)
        return f"{told}\n\nASSISTANT: "

    def _context(self) -> int:
        return int(getattr(self.model.config, "max_position_embeddings", None) or 2048)


def _digest(folder: Path) -> str:
    """A hash of all that the model is: settings, tokenizer, chat template and weights."""
    told = hashlib.sha256()
    kinds = (".json", ".jinja", ".model", ".txt", ".safetensors")
    for path in sorted(p for p in folder.iterdir() if p.suffix in kinds):
        told.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                told.update(block)
    return told.hexdigest()[:16]
