"""Which encoder a feature cache was filled by, found again without building the encoder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmavlm.core import files
from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import SoundEncoder, VisualEncoder

log = logging.getLogger(__name__)

# A card is a few hundred bytes; numbers above these are no encoder's.
MAX_CARD_BYTES = 1 << 20
MAX_SIZE = 1 << 16
RESULT_STAYS = ("chunk_size",)  # settings that change no token


@dataclass(frozen=True)
class EncoderCard:
    """What is to be known of an encoder whose outputs are there: P tokens of width Dv a frame.

    `image_size` is None for an encoder of sound, whose frames are clips.
    """

    image_size: int | None
    num_tokens: int
    width: int
    fingerprint: str

    @classmethod
    def of(cls, encoder: VisualEncoder | SoundEncoder) -> EncoderCard:
        """The card of an encoder that is built."""
        size: int | None = getattr(encoder, "image_size", None)
        return cls(size, encoder.num_tokens, encoder.width, encoder.fingerprint)

    @property
    def of_pictures(self) -> bool:
        """Whether the encoder takes pictures, not clips of sound."""
        return self.image_size is not None

    @property
    def folder(self) -> str:
        """The name of its folder in a cache."""
        return hashlib.sha256(self.fingerprint.encode()).hexdigest()[:32]

    @property
    def frame_bytes(self) -> int:
        """What one frame takes as float16."""
        return 2 * self.num_tokens * self.width


def find_card(
    root: Path, settings: Mapping[str, Any], *, of_pictures: bool = True
) -> EncoderCard | None:
    """The card noted for these settings of an encoder, or None where it must be built to know."""
    path = _index(root, settings)
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes are no card")
        told = json.loads(path.read_text(encoding="utf-8"))
        names = ["image_size"] * of_pictures + ["num_tokens", "width"]
        sizes = {name: told[name] for name in names}
        if not all(isinstance(size, int) and 0 < size <= MAX_SIZE for size in sizes.values()):
            raise ValueError(f"its sizes are {sizes}")
        return EncoderCard(**{"image_size": None, **sizes}, fingerprint=str(told["fingerprint"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s); the encoder is built to write it anew", path, error)
        return None


def note_card(root: Path, settings: Mapping[str, Any], card: EncoderCard) -> None:
    """Remember which encoder these settings give, beside its features and by its settings.

    Raises:
        ConfigError: if the folder cannot be written.
    """
    told = json.dumps({**asdict(card), "settings": settings}, indent=2, default=str)
    for path in (root / card.folder / "encoder.json", _index(root, settings)):
        write_whole(path, told.encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file of the cache, there whole or not at all, whoever else writes or reads it.

    Raises:
        ConfigError: if the folder cannot be written, or its disk is full.
    """
    try:
        files.write_whole(path, content)
    except OSError as error:
        raise ConfigError(
            f"data.cache: {path.parent} cannot be written ({error.strerror}); make room or "
            "give a folder that can be written"
        ) from error


def _index(root: Path, settings: Mapping[str, Any]) -> Path:
    """Where the card of these settings lies; files and folders they name count with their times."""
    told = {
        name: [value, *local_files(value)]
        for name, value in sorted(settings.items())
        if name not in RESULT_STAYS
    }
    key = hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:32]
    return root / "encoders" / f"{key}.json"


def local_files(value: Any) -> list[list[Any]]:
    """Name, size and time of change of the file, or of each file in the folder, of that name."""
    if not isinstance(value, str):
        return []
    path = Path(value).expanduser()
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
        stats = [(file.name, file.stat()) for file in files if file.is_file()]
    except (OSError, ValueError):
        return []
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
