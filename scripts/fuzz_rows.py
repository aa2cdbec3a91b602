"""Damage rows of every public reader, and see that each is refused by its place, or read as meant.

    python scripts/fuzz_rows.py --count 1000

A set of each reader is written, one value, key or the text of one of its files is damaged, and the
set is read. Refused means by the library's own error, or told as left out: with the file, the row
and, where a value was damaged, its key. What is read must have no Python form of a value in any
text, and all other rows must be as they were. Anything else is a fault. A damaged set follows from
seed, reader and number alone, so that `--readers NAME --only NUMBER` makes one again.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from machine import machine
from mmavlm.core.errors import MmavlmError
from mmavlm.core.items import Item
from row_mutations import OF_TEXTS, Damage, damage_value
from row_samples import Sample, encoded, samples

TWICE = "was there before"  # an id, which may be made of several keys
SPARED = 0.6  # of the items, where one row of six or four is damaged
READ, REFUSED = "read", "refused"
FAULTS = ("crash", "python form", "no place", "taken", "others changed")
PLACE = re.compile(r"(line|entry|annotation|image|triplet) ")
FORM = re.compile(
    r"\bNone\b|\bTrue\b|\bFalse\b|\b[nN]a[nN]\b|\binf\b|\bdict\(|<[A-Z]\w+|^\s*[\[{(].*[\]})]\s*$|"
    r"\d[eE][-+]?\d|N/A",
    re.DOTALL,
)


@dataclass(frozen=True)
class Case:
    """One damaged set: what was done to it, and what came of it."""

    reader: str
    number: int
    mutation: str
    outcome: str = ""
    detail: str = ""


def texts_of(item: Item) -> Iterator[str]:
    """Every text of an item, those in its notes too."""
    yield from (item.item_id, item.video_id, item.prompt, item.target, item.task)
    yield from item.references
    yield from item.options.texts if item.options else ()
    values = list(item.meta.values())
    while values:
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            values += [*value, *value.values()]
    yield from (medium.source.name for medium in item.conversation.media)


def read(sample: Sample, root: Path) -> tuple[list[Item], list[str]]:
    """The items of a set, and the reasons of what is refused, be it all."""
    reader = sample.reader()
    found = reader.read(root, sample.split, sample.task)
    reader.classes(root, sample.task)
    list(map(str, found.notes))
    return found.items, list(found.skipped.values())


def judge(sample: Sample, damage: Damage, root: Path, whole: list[Item]) -> tuple[str, str]:
    """What came of a damaged set, and in which words."""
    try:
        items, reasons = read(sample, root)
    except MmavlmError as error:
        items, reasons = [], [str(error)]
    except BaseException:
        return "crash", traceback.format_exc(limit=-4)
    forms = (t for item in items if item not in whole for t in texts_of(item) if FORM.search(t))
    if (form := next(forms, None)) is not None and not damage.may_say(form):
        return "python form", form[:200]
    if reasons:
        file = Path(sample.path).name
        named = any(file in reason and PLACE.search(reason) for reason in reasons)
        by_key = damage.key is None or any(damage.key in r or TWICE in r for r in reasons)
        whole_file = damage.key is None and any(file in reason for reason in reasons)
        if not (named and by_key) and not whole_file:
            return "no place", reasons[0][:300]
        kept = {item.item_id for item in whole} & {item.item_id for item in items}
        if damage.key is not None and items and len(kept) < len(whole) * SPARED:
            return "others changed", f"{len(kept)} of {len(whole)} items are as they were"
        return REFUSED, reasons[0][:300]
    if damage.never and damage.key not in sample.unread:
        allowed = damage.key in sample.lists and damage.is_list
        if not allowed:
            return "taken", f"{damage.key}: {damage.what}"
    return READ, ""


def fuzz_one(sample: Sample, number: int, seed: int, root: Path, whole: list[Item]) -> Case:
    """Damage a set, read it, and make it whole again."""
    random = np.random.default_rng((seed, zlib.crc32(sample.name.encode()), number))
    path = root / sample.path
    if random.random() < 0.75:
        content = copy.deepcopy(sample.content)
        damage = damage_value(content, random, table=path.suffix == ".csv")
        text = encoded(content, path.suffix)
        for mark, written in damage.written.items():
            text = text.replace(mark, written)
        raw = text.encode("utf-8", "surrogatepass")
    else:
        way = OF_TEXTS[random.integers(len(OF_TEXTS))]
        raw = way(encoded(sample.content, path.suffix), random)
        damage = Damage(way.__name__)
    path.write_bytes(raw)
    outcome, detail = judge(sample, damage, root, whole)
    path.write_bytes(encoded(sample.content, path.suffix).encode())
    return Case(sample.name, number, damage.what, outcome, detail)


def fuzz(options: argparse.Namespace) -> list[Case]:
    """All cases with what came of them."""
    cases = []
    for sample in samples():
        if options.readers and sample.name not in options.readers:
            continue
        with tempfile.TemporaryDirectory() as made:
            root = Path(made)
            sample.write(root)
            whole, reasons = read(sample, root)
            if reasons:
                raise AssertionError(f"{sample.name} is not whole: {reasons}")
            numbers = options.only or range(options.count)
            cases += [fuzz_one(sample, n, options.seed, root, whole) for n in numbers]
    return cases


def show(cases: list[Case]) -> None:
    """Print counts by reader and by mutation, and each fault."""
    kinds = [REFUSED, READ, *FAULTS]
    for title, of in (("reader", lambda c: c.reader), ("damage", lambda c: c.mutation)):
        table = Table(title, *kinds, "all")
        for name in dict.fromkeys(map(of, cases)):
            counts = Counter(case.outcome for case in cases if of(case) == name)
            table.add_row(name, *(str(counts[k]) for k in kinds), str(sum(counts.values())))
        Console().print(table)
    for case in cases:
        if case.outcome in FAULTS:
            print(f"{case.reader} {case.number} {case.mutation}: {case.outcome}: {case.detail}")


def main() -> None:
    """Parse the command line, damage and read, print; exit with 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--count", type=int, default=1000, help="damaged sets of each reader")
    parser.add_argument("--readers", nargs="+", help="names of sets, as the table has them")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of sets to look at again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of tables")
    options = parser.parse_args()
    cases = fuzz(options)
    faults = [case for case in cases if case.outcome in FAULTS]
    if options.json:
        counts = Counter(case.outcome for case in cases)
        of_readers = {
            name: Counter(case.outcome for case in cases if case.reader == name)
            for name in dict.fromkeys(case.reader for case in cases)
        }
        print(json.dumps({**machine(), "seed": options.seed, "sets": len(cases), **counts,
                          "readers": of_readers,
                          "faults": [asdict(case) for case in faults]}))  # fmt: skip
    else:
        show(cases)
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
