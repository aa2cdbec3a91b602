from typing import TYPE_CHECKING

from mmavlm.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.encoders.instructblip import InstructBlipEncoder
    from mmavlm.encoders.stand_in import StandInEncoder
    from mmavlm.encoders.text import HFTextEncoder, TinyTextEncoder
    from mmavlm.encoders.timm import TimmEncoder
    from mmavlm.encoders.tiny import TinyEncoder

__all__ = [
    "HFTextEncoder",
    "InstructBlipEncoder",
    "StandInEncoder",
    "TimmEncoder",
    "TinyEncoder",
    "TinyTextEncoder",
]

__getattr__, __dir__ = lazy_names(__name__)
