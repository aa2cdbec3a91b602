"""Encode a data set once: `python -m mmavlm.cache experiment=lvu_genre data.root=… data.cache=…`.

Started again it goes on where it was stopped; started several times at once, the processes share
the work.
"""

from __future__ import annotations

from hydra.utils import instantiate
from omegaconf import DictConfig

from mmavlm.callbacks import check_trainer
from mmavlm.cli import run_command
from mmavlm.data.readers.annotations import listed
from mmavlm.run.features import CacheWork


def cache(config: DictConfig) -> None:
    """Say what the cache has, lacks and will take; then, with `write`, fill it."""
    check_trainer(config.trainer)
    data = instantiate(config.data)
    work = CacheWork(config, data, listed(config.splits))
    print(work.filler, flush=True)
    if not config.write:
        work.filler.require_room()
        return
    written = work.fill()
    print(f"{written} entries written; {data.broken.summary()}")
    print(f"train from it: data.cache={work.cache.root} data.crop=false data.flip=false")


def main() -> None:
    """Entry point of `mmavlm-cache`."""
    run_command(cache, "cache")


if __name__ == "__main__":
    main()
