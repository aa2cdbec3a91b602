"""What `mmavlm.cache` does beside filling: `pack=true` and `prune=…`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from mmavlm.core.errors import ConfigError
from mmavlm.core.settings import at_least

if TYPE_CHECKING:  # what these need is imported when mistakes have been told
    from mmavlm.data.cache_upkeep import Count
    from mmavlm.data.feature_cache import FeatureCache

LIST, REMOVE, ALL = True, "remove", "all"


def check_upkeep(config: DictConfig) -> None:
    """Refuse settings of the upkeep that there are none of.

    Raises:
        ConfigError: naming the setting.
    """
    if config.prune not in (False, None, LIST, REMOVE, ALL):
        raise ConfigError(
            f"prune={config.prune} is unknown; choose true, which lists what no run needs, remove, "
            "which removes it, or all, which removes entries from before needs were noted, too"
        )
    at_least("", 0, keep_days=config.keep_days)
    if not config.prune and config.keep_days is not None:
        raise ConfigError(f"keep_days={config.keep_days} is read with prune=true alone")


def packed(cache: FeatureCache) -> str:
    """Pack what has files of its own, and say how much that was."""
    from mmavlm.data.cache_upkeep import pack_entries

    return f"packed: {_told(pack_entries(cache))} of {cache.folder}"


def pruned(root: Path, config: DictConfig) -> Iterator[str]:
    """List what no run needs, encoder by encoder, or remove it, and say so."""
    from mmavlm.data.cache_upkeep import Pruning

    pruning = Pruning(root, keep_days=config.keep_days, also_before=config.prune == ALL)
    removes = config.prune in (REMOVE, ALL)
    for found in pruning.run(remove=removes):
        yield f"encoder {found.encoder}:"
        yield f"  needed:  {_told(found.kept)}, by {'; '.join(found.needed_by) or 'no run'}"
        yield f"  {'removed: ' if removes else 'unused:  '}{_told(found.unused)}"
        if found.before.entries:
            yield (
                f"  unknown: {_told(found.before)} from before runs noted what they need; start "
                "`mmavlm.cache write=false` for each experiment that uses this cache, then "
                "prune=all"
            )
    if not removes:
        yield "nothing was removed; prune=remove does that"


def _told(count: Count) -> str:
    from mmavlm.data.fill_cache import size

    return f"{count.entries} entries, {size(count.bytes)}"
