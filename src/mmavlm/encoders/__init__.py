from mmavlm.encoders.text import TinyTextEncoder
from mmavlm.encoders.tiny import TinyEncoder

__all__ = ["TinyEncoder", "TinyTextEncoder"]
