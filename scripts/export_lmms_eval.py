"""A hallucination benchmark as a task of lmms-eval, which has none of them.

    python scripts/export_lmms_eval.py videohallucer --root data/videohallucer --to tasks
    python -m lmms_eval --model … --tasks mmavlm_videohallucer --include_path tasks

The set is one of conf/data with metrics of its own. Written are tasks/<set>/: the questions as a
jsonl, with absolute paths of the films; the task's yaml; and the utils.py it names, which takes
prompts and scores from mmavlm.metrics. Of mmavlm this needs neither training nor models: beside
lmms-eval, `pip install --no-deps` of this repository and torchmetrics are enough. Ends with 1 on a
mistake.

Stretches of a film are not cut: a set with start_s or end_s is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from mmavlm.callbacks.benchmarks import ScoredReader
from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import ConfigError, DataError, MmavlmError
from mmavlm.core.files import write_whole
from mmavlm.metrics.benchmarks import Benchmark
from mmavlm.metrics.lmms_eval import row_of

# The values that stand for a metric in a table; bounds and counts stay in mmavlm's own reports.
TOLD = ("accuracy", "basic", "hallucinated", "item_accuracy", "precision", "recall", "f1",
        "yes_ratio", "yes_difference", "unparsed", "in_accuracy", "out_accuracy", "sah_ratio",
        "mcc", "classification_score")  # fmt: skip
LOWER_IS_BETTER = ("unparsed", "sah_ratio", "yes_difference")

YAML = Template("""\
# Written by mmavlm's scripts/export_lmms_eval.py.
task: $task
dataset_path: json
dataset_kwargs:
  data_files:
    test: $rows
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
process_results: !function utils.process_results
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
  num_beams: 1
  do_sample: false
metric_list:
$metrics
lmms_eval_specific_kwargs:
  default:
    pre_prompt: ""
    post_prompt: ""
metadata:
  - version: 1.0
""")
METRIC = Template("""\
  - metric: $name
    aggregation: !function utils.$name
    higher_is_better: $higher""")
UTILS = Template('''\
"""What $task.yaml names. Written by mmavlm's scripts/export_lmms_eval.py."""

from mmavlm.metrics.benchmarks import $maker
from mmavlm.metrics.lmms_eval import aggregations, answered, prompt_of, video_of

BENCHMARK = $maker($tasks, $parsing)
METRICS = $names  # name in lmms-eval → value of the benchmark

doc_to_visual = video_of


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return prompt_of(doc, lmms_eval_specific_kwargs)


def process_results(doc, results):
    return answered(doc, results, list(METRICS))


globals().update(aggregations(BENCHMARK, METRICS, __file__))
''')


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the task of a benchmark; 1 if that cannot be, else 0."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        print(export(options.set, options.root, options.to, options.setting))
    except (MmavlmError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def export(name: str, root: Path, to: Path, settings: Sequence[str] = ()) -> Path:
    """Write the task of the set `name` below `to`; its folder.

    Raises:
        ConfigError: if the set is unknown, or no benchmark.
        DataError: if its annotation cannot be used, or asks about stretches of films.
    """
    reader = _reader(name, settings)
    if not root.is_dir():
        raise ConfigError(f"--root {root} is no folder; give the one that holds the data")
    items = reader(root, "test", None)
    if any(item.film.start_s or item.film.end_s is not None for item in items):
        raise DataError(f"{name} asks about stretches of films, which lmms-eval does not cut")
    tasks = sorted({item.task for item in items})
    folder = to / name
    rows = "".join(json.dumps(row_of(item), ensure_ascii=False) + "\n" for item in items)
    names = metric_names(reader.scores(tasks), items)
    write_whole(folder / f"{name}.jsonl", rows.encode())
    listed = [
        METRIC.substitute(name=metric, higher=str(not metric.endswith(LOWER_IS_BETTER)).lower())
        for metric in names
    ]
    filled = {"task": f"mmavlm_{name}", "metrics": "\n".join(listed),
              "rows": json.dumps(str((folder / f"{name}.jsonl").absolute()))}  # fmt: skip
    write_whole(folder / f"mmavlm_{name}.yaml", YAML.substitute(filled).encode())
    utils = UTILS.substitute(task=filled["task"], maker=name, tasks=tasks, names=names,
                             parsing=repr(reader.parsing))  # fmt: skip
    write_whole(folder / "utils.py", utils.encode())
    return folder


def metric_names(scores: Benchmark, items: Sequence[Any]) -> dict[str, str]:
    """Name of a metric in lmms-eval → value of the benchmark, for all that are told."""
    scores.update(items, [item.target for item in items])
    values = [key.removeprefix(f"{scores.name}/") for key in scores.compute() if "/" in key]
    told = [value for value in values if value.rsplit("/", 1)[1] in TOLD]
    return {value.replace("/", "_").replace(" ", "_"): value for value in told}


def _reader(name: str, settings: Sequence[str]) -> Any:
    path = config_dir() / "data" / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"there is no data={name}; choose a benchmark, such as videohallucer")
    config = OmegaConf.merge(OmegaConf.load(path).reader, OmegaConf.from_dotlist(list(settings)))
    reader = instantiate(config)
    if not isinstance(reader, ScoredReader):
        raise ConfigError(f"data={name} is no benchmark with metrics; choose videohallucer or so")
    return reader


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", help="a benchmark of conf/data: videohallucer, pope, …")
    parser.add_argument("--root", type=Path, required=True, help="its folder, as data.root")
    parser.add_argument("--to", type=Path, required=True, help="folder of tasks to write to")
    parser.add_argument("setting", nargs="*", help="of the reader, such as parsing=elv")
    return parser


if __name__ == "__main__":
    sys.exit(main())
