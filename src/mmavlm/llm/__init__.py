from mmavlm.llm.prompted import PromptedLanguageModel
from mmavlm.llm.tiny import tiny_llm

__all__ = ["PromptedLanguageModel", "tiny_llm"]
