"""Look at a data set before training on it: `python -m mmavlm.check data=lvu data.root=…`."""

from __future__ import annotations

import json

from hydra.utils import instantiate
from omegaconf import DictConfig

from mmavlm.cli import run_command
from mmavlm.data.inspect import inspect


def check(cfg: DictConfig) -> None:
    """Print item counts, class balance, and missing and broken videos of every split."""
    inspection = inspect(
        instantiate(cfg.data.reader), cfg.data.root, cfg.data.task, decode=cfg.decode
    )
    if cfg.format == "json":
        print(json.dumps(inspection.as_dict(), ensure_ascii=False))
    else:
        inspection.print()


def main() -> None:
    """Entry point of `mmavlm-check`."""
    run_command(check, "check")


if __name__ == "__main__":
    main()
