"""What `doctor` found of a thing, and how it is told."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

OK: Literal["ok"] = "ok"
LOW: Literal["low"] = "low"  # there, and less of it than may be needed
MISSING: Literal["missing"] = "missing"  # and mmavlm works without it
BROKEN: Literal["broken"] = "broken"  # needed by all that mmavlm does
State = Literal["ok", "low", "missing", "broken"]
STATE_COLUMN, NAME_COLUMN = 9, 14


@dataclass(frozen=True)
class Finding:
    """A thing by `name`: its state, what was found, what it is needed for, how to get it."""

    name: str
    state: State
    found: str
    needed_for: str = ""
    remedy: str = ""


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing is broken that all of mmavlm needs."""
    return all(finding.state != BROKEN for finding in findings)


def table(findings: Sequence[Finding]) -> str:
    """A line for each finding, wrapped to the terminal, and what they come to."""
    columns = max(shutil.get_terminal_size((100, 24)).columns, 60)
    indent = " " * (STATE_COLUMN + NAME_COLUMN)
    lines = []
    for one in findings:
        head = f"{one.state:<{STATE_COLUMN}}{one.name:<{NAME_COLUMN}}"
        lines += textwrap.wrap(
            head + "; ".join(_said(one)),
            columns,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )
    return "\n".join([*lines, "", _sum(findings)])


def _said(finding: Finding) -> Iterator[str]:
    yield finding.found
    if finding.needed_for:
        yield f"for {finding.needed_for}"
    if finding.remedy and finding.state != OK:
        yield f"to mend: {finding.remedy}"


def _sum(findings: Sequence[Finding]) -> str:
    broken = [one.name for one in findings if one.state == BROKEN]
    if broken:
        return f"broken: {', '.join(broken)}; mmavlm does not work before that is mended"
    rest = [one.name for one in findings if one.state != OK]
    also = f"; missing or low, which some parts need: {', '.join(rest)}" if rest else ""
    return f"all that is needed is here{also}"
