"""What a sweep over arms and seeds says: sentences, tables, and a report in the look of a run's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmavlm.metrics.arms import ArmDifference, Mean
from mmavlm.metrics.planted_bias import SCORES
from mmavlm.report import Report, Table, draw_arms
from mmavlm.run.sweep_page import PAGE

Means = dict[str, dict[str, Mean]]  # arm → score → mean
Comparisons = dict[str, dict[str, dict[str, ArmDifference]]]  # reference → arm → score → difference

TOLD = ("accuracy", "habit")  # the scores that the first sentences are about
SURE = 0.05  # p below which a difference is told


def describe_arms(
    folder: Path,
    means: Means,
    against: Comparisons,
    missing: Sequence[str],
    groups: Sequence[Mapping[str, str]],
) -> Report:
    """The report of means and differences; `missing` are runs that are not in them."""
    lead = [
        sentence for name, arms in against.items() if arms for sentence in _all_told(name, arms)
    ]
    if missing:
        lead.append(f"Not finished: {', '.join(missing)}.")
    return Report(
        title=f"Arms · {folder.name}",
        lead=lead or [f"{len(means)} arms, none of which is compared with another."],
        tables=[*arms_tables(means, against, main=True), _runs(folder)],
        drawings={"Arms beside each other": draw_arms(means, groups, in_page=True)},
    )


def arms_tables(means: Means, against: Comparisons, main: bool = False) -> Iterator[Table]:
    """The means of all arms, and for each reference the differences to it."""
    runs = {len(of_score["accuracy"].values) for of_score in means.values()}
    note = f"Mean and 95 % interval over {'-'.join(map(str, sorted(runs)))} seeds, in percent."
    rows = [[arm, *map(_mean, of_score.values())] for arm, of_score in means.items()]
    yield Table("Arms", ["arm", *SCORES], rows, note, main=main)
    for reference, arms in against.items():
        if not arms:
            continue
        note = (
            f"Less {reference}, in points: mean over seeds, its 95 % interval, p of the paired "
            "t-test over seeds, that p for all arms of the table at once (Holm), p of the films "
            "exchanged."
        )
        columns = ["arm", "score", "difference", "interval", "p", "p, Holm", "p, films"]
        rows = [[arm, s, *_difference(d)] for arm, of in arms.items() for s, d in of.items()]
        yield Table(f"Against {reference}", columns, rows, note, main=main)


def _runs(folder: Path) -> Table:
    """Every run that has a report, which it leads to."""
    there = sorted(path.parent.name for path in folder.glob(f"*/{PAGE}"))
    return Table("Runs", ["run"], [[name] for name in there], "", [f"{n}/{PAGE}" for n in there])


def _all_told(reference: str, arms: Mapping[str, Mapping[str, ArmDifference]]) -> list[str]:
    """What can be told of arms beside a reference."""
    seeds = {len(of_score[score].seeds) for of_score in arms.values() for score in of_score}
    if max(seeds) < 2:
        return [f"One seed cannot tell the arms from {reference}: train with several."]
    counted = "-".join(map(str, sorted(seeds)))
    found = {score: {arm: of_score[score] for arm, of_score in arms.items()} for score in TOLD}
    return [_told(reference, score, of_arm, counted) for score, of_arm in found.items()]


def _told(reference: str, score: str, found: Mapping[str, ArmDifference], seeds: str) -> str:
    """In which arms a score differs from a reference for sure, and in which it may be chance."""
    sure = {arm: d for arm, d in found.items() if d.p_holm < SURE}
    listed = ", ".join(
        f"{arm} by {100 * d.difference:+.1f} points (95 % interval {100 * d.low:+.1f} to "
        f"{100 * d.high:+.1f})"
        for arm, d in sure.items()
    )
    rest = sum(d.p_holm >= SURE for d in found.values())
    untold = len(found) - len(sure) - rest  # p is none where seeds differ in nothing
    chance = f"may be chance, with {seeds} seeds and p ≥ {SURE} for all arms at once (Holm)"
    parts = [f"differs in {listed}"] if sure else []
    if rest:
        others = f"in {rest} {'other ' * bool(sure)}arm{'s' * (rest > 1)} a difference"
        parts.append(f"{others} {chance}")
    if untold:
        parts.append(f"in {untold} the difference is the same in all seeds, of which no p is made")
    return f"Against {reference}, {score}: {'; '.join(parts)}."


def _mean(found: Mean) -> str:
    if len(found.values) == 1:
        return f"{100 * found.mean:.1f}"
    return f"{100 * found.mean:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _difference(found: ArmDifference) -> list[str]:
    bounds = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    return [
        f"{100 * found.difference:+.1f}",
        bounds if len(found.seeds) > 1 else "",
        *("" if p != p else f"{p:.2g}" for p in (found.p_seeds, found.p_holm, found.p_films)),
    ]
