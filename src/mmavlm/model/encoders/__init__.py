from typing import TYPE_CHECKING

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.model.encoders.imagebind import ImageBindSoundEncoder
    from mmavlm.model.encoders.instructblip import InstructBlipEncoder
    from mmavlm.model.encoders.siglip import SiglipEncoder
    from mmavlm.model.encoders.sound import TinySoundEncoder
    from mmavlm.model.encoders.sound_pretrained import (
        AstSoundEncoder,
        ClapSoundEncoder,
        Wav2Vec2SoundEncoder,
        WhisperSoundEncoder,
    )
    from mmavlm.model.encoders.stand_in import StandInEncoder
    from mmavlm.model.encoders.text import HFTextEncoder, TinyTextEncoder
    from mmavlm.model.encoders.timm import TimmEncoder
    from mmavlm.model.encoders.tiny import TinyEncoder

__all__ = [
    "AstSoundEncoder",
    "ClapSoundEncoder",
    "HFTextEncoder",
    "ImageBindSoundEncoder",
    "InstructBlipEncoder",
    "SiglipEncoder",
    "StandInEncoder",
    "TimmEncoder",
    "TinyEncoder",
    "TinySoundEncoder",
    "TinyTextEncoder",
    "Wav2Vec2SoundEncoder",
    "WhisperSoundEncoder",
]

__getattr__, __dir__ = lazy_names(__name__)
