from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.model.llm.adapt import LoraSettings
    from mmavlm.model.llm.chat import chat_template
    from mmavlm.model.llm.hf import HFLanguageModel
    from mmavlm.model.llm.prompted import PromptedLanguageModel
    from mmavlm.model.llm.session import Session
    from mmavlm.model.llm.tiny import tiny_llm

__all__ = [
    "HFLanguageModel",
    "LoraSettings",
    "PromptedLanguageModel",
    "Session",
    "chat_template",
    "tiny_llm",
]

__getattr__, __dir__ = lazy_names(__name__)
