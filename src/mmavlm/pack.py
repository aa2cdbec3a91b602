"""Make shards of a data set: `python -m mmavlm.pack data=captions data.root=… out=s3://bucket/set`.

Started again it goes on where it was stopped; started on several machines, they share the work.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmavlm.commands.checks import check_config
from mmavlm.commands.cli import announce, run_command
from mmavlm.core.errors import ConfigError
from mmavlm.core.settings import whole_at_least
from mmavlm.data.readers.annotations import listed
from mmavlm.data.shards.places import Place


def pack(config: DictConfig) -> None:
    """Write the shards of each split, and say how to train from them."""
    check_config(config)
    if "sets" in config.data:
        raise ConfigError("data=mix has several sets; pack them one by one, to an out of each")
    whole_at_least("", 1, processes=config.processes)
    announce(config, "reading annotations")
    # Imported here, so that mistakes are told before torch is there.
    from hydra.utils import instantiate

    from mmavlm.data.shards.packing import Packing
    from mmavlm.data.shards.work import Packer

    packing = Packing(
        f".{config.format}",
        config.shard_mb,
        config.frames_fps,
        config.short_side,
        float(config.data.frame_fps),
        beside=config.data.subtitles is True,
    )
    data = instantiate(config.data)
    options: Any = OmegaConf.to_container(config.options, resolve=True)
    packer = Packer(str(config.out), packing, config.processes, options)
    for split in listed(config.splits):
        print(packer.pack(data, split), flush=True)
    print(data.broken.summary())
    print(f"train from them: data=shards data.root={Place(str(config.out))}")


def main() -> None:
    """Entry point of `mmavlm-pack`."""
    run_command(pack, "pack")


if __name__ == "__main__":
    main()
