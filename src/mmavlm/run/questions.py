"""A file of questions, answered row by row into another one, from where it stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from mmavlm.core.batch import Batch
from mmavlm.core.contrast import Contrast
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.files import write_whole
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.data.collate import collate
from mmavlm.data.dataset import BrokenItem, Sample, VideoDataset
from mmavlm.data.subtitles import check_choice, subtitles_of
from mmavlm.model.token_tables import TooLongError
from mmavlm.run.ask import Ready, load_model, several_answers, with_probabilities
from mmavlm.run.build import build_contrast
from mmavlm.stages.answering import Answered, answer_batch

Row = dict[str, Any]
# Settings on which answers depend, beside the weights.
ASKED_WITH = (
    "candidates", "num_answers", "stage", "init", "pretrained", "encoder", "vision", "qformer",
    "temporal", "memory", "fusion", "llm", "prompt_tokenizer", "sound", "sound_encoder",
)  # fmt: skip


class Group(NamedTuple):
    """Questions about a few films: the batch of those that can be asked, and why the others cannot.

    Each film is one row of the batch, however many questions it is asked. `broken` are reasons by
    the ids of items.
    """

    items: Sequence[Item]
    batch: Batch
    broken: dict[str, str]


class Found(NamedTuple):
    """A question with its answers, or the error in their way, and the times of the frames seen."""

    item: Item
    told: Row
    times_s: tuple[float, ...] = ()


@torch.inference_mode()
def answer_questions(config: DictConfig, items: Sequence[Item]) -> None:
    """Append a row of answers for each question that has none yet; see `mmavlm.predict`.

    Raises:
        ConfigError: if the model answers nothing, or the file of answers is of another model,
            other settings or other questions.
        CheckpointError: if the weights do not fit.
        DataError: if the file of answers holds something else.
    """
    path = answers_file(config)
    by = asked_with(config)
    there = answers_there(path, items, by)
    left = [item for item in items if item.item_id not in there]
    if there:
        note(f"{len(there)} of {len(items)} questions are answered in {path}")
    failed = 0
    if left:
        path.parent.mkdir(parents=True, exist_ok=True)
        model = load_model(config)
        with path.open("a", encoding="utf-8") as file:
            for row in answered(config, model, left):
                failed += "error" in row
                if "error" in row:
                    note(f"{row['item_id']} is not answered: {row['error']}")
                file.write(json.dumps(row | {"by": by}) + "\n")
                file.flush()
    say(config, path, len(items) - failed, failed)


def answered(config: DictConfig, model: Ready, items: Sequence[Item]) -> Iterator[Row]:
    """A row for each question: its answers, or the error that stands in their way."""

    def shown(groups: Iterable[Group], total: int) -> Iterable[Group]:
        to, silent = Console(stderr=True), not sys.stderr.isatty()
        return track(groups, "answering", total=total, console=to, disable=silent)

    for found in found_of(config, model, items, shown):
        yield row_of(found.item, **found.told)


def found_of(
    config: DictConfig,
    model: Ready,
    items: Sequence[Item],
    shown: Callable[[Iterable[Group], int], Iterable[Group]] = lambda groups, total: groups,
) -> Iterator[Found]:
    """What is found of each question; `shown` passes groups on, and is told how many there are."""
    size = config.data.get("eval_batch_size") or config.data.batch_size
    groups = list(about_films(items, size))

    def read(group: list[Item]) -> Group:
        return read_group(group, config.data, model.backbone.vision.encoder.image_size)

    for group in shown(ahead(groups, read), len(groups)):
        found, times_s = answers_of(config, model, group.batch, size), _times(group.batch)
        for item in group.items:
            reason = group.broken.get(item.item_id)
            if reason is None:
                yield Found(item, next(found), next(times_s))
            else:
                yield Found(item, {"error": reason})


def _times(batch: Batch) -> Iterator[tuple[float, ...]]:
    """When the frames are, in seconds, that each question of a batch is about."""
    for (film,) in batch.media_rows:
        yield tuple(batch.timestamps_s[film, batch.frame_mask[film]].tolist())


def answers_of(config: DictConfig, model: Ready, batch: Batch, size: int) -> Iterator[Row]:
    """The answers to each question of a batch, so many at a time; its films are encoded once.

    Where the view to decode against needs frames, they are encoded with each question.
    """
    if not len(batch):
        return
    batch = batch.to(model.device)
    contrast = build_contrast(config)
    if contrast is None or contrast.reads_features:
        assert batch.frames is not None  # each question shows a film
        features = model.backbone.vision.encode(batch.frames)
        batch = replace(batch, frames=None, features=features)
    for start in range(0, len(batch), size):
        yield from answers_to(config, model, batch.rows(slice(start, start + size)), contrast)


def answers_to(
    config: DictConfig, model: Ready, batch: Batch, contrast: Contrast | None = None
) -> list[Row]:
    """The answers to each question of a batch, or that it is too long for the LLM."""
    candidates = tuple(str(candidate) for candidate in config.candidates or ())
    classes = dict.fromkeys(batch.task, candidates)
    media, against = model.backbone.seen(batch, contrast)
    try:
        answers = answer_batch(
            model.llm,
            media,
            batch,
            classes,
            "rank",  # where there is something to choose from; the others are generated
            several_answers(config, model.max_new_tokens),
            rank_with_eos=config.stage.rank_with_eos,
            against=against,
        )
    except TooLongError as error:
        if len(batch) == 1:
            return [{"error": str(error)}]
        alone = (batch.rows([row]) for row in range(len(batch)))
        rows = (answers_to(config, model, one, contrast) for one in alone)
        return [row for one in rows for row in one]
    return [{"answers": _as_values(one)} for one in answers]


def about_films(items: Sequence[Item], films: int) -> Iterator[list[Item]]:
    """Consecutive items about at most so many films, or stretches of them."""
    group: list[Item] = []
    seen: set[Medium] = set()
    for item in items:
        if item.film not in seen and len(seen) == films:
            yield group
            group, seen = [], set()
        group.append(item)
        seen.add(item.film)
    if group:
        yield group


def read_group(group: Sequence[Item], data: DictConfig, image_size: int) -> Group:
    """Decode each film of some questions once."""
    subtitles = check_choice(data.get("subtitles"))
    firsts = list({item.film: item for item in reversed(group)}.values())[::-1]
    dataset = VideoDataset(
        firsts,
        num_frames=data.num_frames,
        sample_fps=data.get("sample_fps"),
        image_size=image_size,
        subtitles=subtitles,
    )
    whole: dict[Medium, Sample] = {}
    reasons: dict[Medium, str] = {}
    for number, first in enumerate(firsts):
        sample = dataset[number]
        if isinstance(sample, BrokenItem):
            reasons[first.film] = sample.reason.removeprefix(f"item {first.item_id!r}: ")
        else:
            whole[first.film] = sample
    at = {film: row for row, film in enumerate(whole)}
    asked = [item for item in group if item.film in at]

    def said(item: Item) -> Conversation:
        sample = replace(whole[item.film], item=item)
        return sample.timed([subtitles_of(item.film, subtitles)]).item.conversation

    batch = replace(
        collate(list(whole.values())),
        conversations=[said(item) for item in asked],
        media_rows=[(at[item.film],) for item in asked],
        item_id=[item.item_id for item in asked],
        task=[item.task for item in asked],
        references=None,
        options=[item.options for item in asked],
        label=None,
    )
    broken = {item.item_id: reasons[item.film] for item in group if item.film in reasons}
    return Group(group, batch, broken)


def ahead(groups: Iterable[list[Item]], read: Callable[[list[Item]], Group]) -> Iterator[Group]:
    """What is read of each group, while the one before is answered."""
    with ThreadPoolExecutor(1) as pool:
        coming = None
        for group in groups:
            following = pool.submit(read, group)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()


def answers_there(path: Path, items: Sequence[Item], by: str) -> set[str]:
    """The items that a file answers already; rows of errors, and a torn last one, leave it.

    Raises:
        ConfigError: if its answers are of another model, other settings or other questions.
        DataError: naming a line that is none of answers.
    """
    if not path.exists():
        return set()
    content = path.read_bytes()
    *lines, _torn = content.split(b"\n")
    kept: list[bytes] = []
    there: set[str] = set()
    asked = {item.item_id: (item.video_id, item.prompt) for item in items}
    another = "give another file with answers_to=…, or move that one away"
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            name, question, made_by = row["item_id"], (row["video"], row["prompt"]), row["by"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number} is no row of answers; {another}") from error
        if "error" in row:
            continue
        if made_by != by:
            raise ConfigError(f"{path} holds answers of another model or other settings; {another}")
        if asked.get(name, question) != question:
            raise ConfigError(
                f"{path}, line {number} answers another question under the id {name!r}; {another}"
            )
        kept.append(line + b"\n")
        there.add(name)
    if (whole := b"".join(kept)) != content:
        write_whole(path, whole)
    return there & asked.keys()


def asked_with(config: DictConfig) -> str:
    """A short hash of what answers depend on: the weights, and the settings of the model."""
    parts = {name: config.get(name) for name in ASKED_WITH}
    settings = {
        name: OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part
        for name, part in parts.items()
    }
    given = [Path(path) for path in (config.checkpoint, config.init.weights) if path is not None]
    files = [file for one in given for file in (sorted(one.iterdir()) if one.is_dir() else [one])]
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    shown = [config.data.num_frames]
    if (subtitles := config.data.get("subtitles")) is not None:
        shown.append(subtitles)
    if (sample_fps := config.data.get("sample_fps")) is not None:
        shown.append(f"{sample_fps} fps")
    told = json.dumps([settings, *shown, state], sort_keys=True, default=str)
    return sha256(told.encode()).hexdigest()[:12]


def answers_file(config: DictConfig) -> Path:
    """Where the answers go: `answers_to`, or else into the folder where the command runs."""
    return Path(config.answers_to or f"{Path(config.questions).stem}_answers.jsonl")


def row_of(item: Item, **found: Any) -> Row:
    """The row of a question with what was found."""
    return {"item_id": item.item_id, "video": item.video_id, "prompt": item.prompt, **found}


def note(text: str) -> None:
    """Say what is no result; a log would leave a file in the folder where the command runs."""
    print(text, file=sys.stderr, flush=True)


def say(config: DictConfig, path: Path, done: int, failed: int) -> None:
    """Print how many questions are answered, and where."""
    if config.format == "json":
        print(json.dumps({"answers_to": str(path), "answered": done, "failed": failed}))
        return
    not_all = f"; {failed} could not be, their rows say why" if failed else ""
    print(f"{done} questions are answered in {path}{not_all}")


def _as_values(found: Answered) -> list[dict[str, object]]:
    if found.ranked:
        return with_probabilities(found.ranked, among=True)
    return with_probabilities(found.generated, among=False)
