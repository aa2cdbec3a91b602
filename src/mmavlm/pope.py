"""Make POPE for video from captions: `python -m mmavlm.pope data=msvd_caption data.root=…`.

With `about=sounds` of sound events, in place of objects.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from mmavlm.commands.cli import announce, run_command
from mmavlm.core.errors import ConfigError
from mmavlm.data.readers.json_files import require_root

FOLDERS = {
    "objects": "pope",
    "sounds": "pope_sounds",
}  # what is asked about → where, below the root


def pope(config: DictConfig) -> None:
    """Write three files of questions below `to`, and print what they ask."""
    root = require_root(Path(config.data.root))
    if config.about not in FOLDERS:
        raise ConfigError(f"about={config.about} is unknown; choose one of {', '.join(FOLDERS)}")
    announce(config, "reading captions")
    # Imported here, so that mistakes are told at once.
    from mmavlm.data.object_probes import ProbeMaker, describe, write_probes
    from mmavlm.metrics import ObjectVocabulary, SoundVocabulary

    sounds = config.about == "sounds"
    vocabulary = (SoundVocabulary if sounds else ObjectVocabulary).read(config.vocabulary)
    items = instantiate(config.data.reader)(root, config.split, config.data.task)
    films = describe(items, vocabulary, root)
    maker = ProbeMaker(
        films,
        vocabulary,
        per_film=config.per_film,
        agree=config.agree,
        leave_out=config.leave_out,
        seed=config.seed,
    )
    folder = root / FOLDERS[config.about] if config.to is None else Path(config.to)
    table = Table("negatives", "questions", "films", "yes", "objects", "most often absent")
    for strategy, count in write_probes(maker, folder).items():
        rows = list(maker.questions(strategy))
        absent = Counter(row["object"] for row in rows if row["label"] == "no")
        share = f"{1 - absent.total() / count:.1%}" if count else "–"
        asked = len({(row["video"], row.get("start_s")) for row in rows})
        often = ", ".join(f"{name} {times}" for name, times in absent.most_common(3))
        table.add_row(strategy, str(count), str(asked), share, str(len(absent)), often)
    console = Console()
    console.print(table)
    console.print(
        f"{folder}: pope_<negatives>.jsonl, of {len(films)} films with captions", soft_wrap=True
    )


def main() -> None:
    """Entry point of `mmavlm-pope`."""
    run_command(pope, "pope")


if __name__ == "__main__":
    main()
