"""The formats of chats that have a name, each as a chat template."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Vicuna 1.1 to 1.5: what the system says stands in front.
_VICUNA_V1 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ m.content }} "
    "{% elif m.role == 'user' %}USER: {{ m.content }} "
    "{% else %}ASSISTANT: {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
# What the system says is a part of the first question.
_LLAMA_2 = (
    "{% for m in messages %}"
    "{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.index0 == 1 and messages[0].role == 'system' %}"
    "<<SYS>>\n{{ messages[0].content }}\n<</SYS>>\n\n{% endif %}{{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }} {{ eos_token }}{% endif %}"
    "{% endfor %}"
)
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# MiniGPT-4's and Video-LLaMA's for Vicuna 0, as they ask: `###` ends each turn and is text.
_VIDEO_LLAMA = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}###{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}Human: {% elif m.role == 'assistant' %}Assistant: {% endif %}"
    "{{ m.content }}###{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
CHAT_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "vicuna_v1": _VICUNA_V1,
        "llama_2": _LLAMA_2,
        "chatml": _CHATML,
        "video_llama": _VIDEO_LLAMA,
    }
)
