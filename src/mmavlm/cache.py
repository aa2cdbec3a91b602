"""Encode a data set once: `python -m mmavlm.cache experiment=lvu_genre data.root=… data.cache=…`.

Started again it goes on where it was stopped; started several times at once, the processes share
the work. `pack=true` moves entries into a few large files, and `prune=true` lists those that no run
needs.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from mmavlm.commands.cache_upkeep import check_upkeep, packed, pruned
from mmavlm.commands.checks import check_config
from mmavlm.commands.cli import announce, run_command
from mmavlm.data.readers.annotations import listed


def cache(config: DictConfig) -> None:
    """Say what the cache has, lacks and will take; then, with `write`, fill it."""
    check_config(config)
    announce(config, "looking at the films")
    # Imported here, so that mistakes are told before torch is there.
    from hydra.utils import instantiate

    from mmavlm.callbacks import check_trainer
    from mmavlm.run.features import CacheWork, encoder_parts

    check_trainer(config.trainer)
    check_upkeep(config)
    data = instantiate(config.data)
    splits, written = listed(config.splits), 0
    for part in encoder_parts(config):
        work = CacheWork(config, data, splits, part, verify=config.verify)
        print(work.filler, flush=True)
        if config.write:
            written += work.fill()
        else:
            work.filler.require_room()
        if config.pack:
            print(packed(work.cache))
    if config.write:
        print(f"{written} entries written; {data.broken.summary()}")
        print(f"train from it: data.cache={data.cache} data.crop=false data.flip=false")
    if config.prune:
        for line in pruned(Path(data.cache), config):
            print(line)


def main() -> None:
    """Entry point of `mmavlm-cache`."""
    run_command(cache, "cache")


if __name__ == "__main__":
    main()
