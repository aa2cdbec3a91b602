from mmavlm.llm.adapt import LoraSettings
from mmavlm.llm.hf import HFLanguageModel
from mmavlm.llm.prompted import PromptedLanguageModel
from mmavlm.llm.tiny import tiny_llm

__all__ = ["HFLanguageModel", "LoraSettings", "PromptedLanguageModel", "tiny_llm"]
