from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.model.encoders.instructblip import InstructBlipEncoder
    from mmavlm.model.encoders.stand_in import StandInEncoder
    from mmavlm.model.encoders.text import HFTextEncoder, TinyTextEncoder
    from mmavlm.model.encoders.timm import TimmEncoder
    from mmavlm.model.encoders.tiny import TinyEncoder

__all__ = [
    "HFTextEncoder",
    "InstructBlipEncoder",
    "StandInEncoder",
    "TimmEncoder",
    "TinyEncoder",
    "TinyTextEncoder",
]

__getattr__, __dir__ = lazy_names(__name__)
