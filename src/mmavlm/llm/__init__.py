from typing import TYPE_CHECKING

from mmavlm.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.llm.adapt import LoraSettings
    from mmavlm.llm.chat import chat_template
    from mmavlm.llm.hf import HFLanguageModel
    from mmavlm.llm.prompted import PromptedLanguageModel
    from mmavlm.llm.tiny import tiny_llm

__all__ = ["HFLanguageModel", "LoraSettings", "PromptedLanguageModel", "chat_template", "tiny_llm"]

__getattr__, __dir__ = lazy_names(__name__)
