"""Video-language models: train, evaluate, ask. In Python it begins with `load`."""

from typing import TYPE_CHECKING, Any

from mmavlm.core.lazy import lazy_names

if TYPE_CHECKING:
    from mmavlm.loaded.auto import register_auto_classes
    from mmavlm.loaded.model import load

__all__ = ["load", "register_auto_classes"]

_named, __dir__ = lazy_names(__name__)


def __getattr__(name: str) -> Any:
    if name != "__version__":
        return _named(name)
    from importlib.metadata import version  # which takes longer than all the rest

    return version("mmavlm")
