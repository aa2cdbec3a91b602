"""What a test says, in sentences: what was learnt, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from mmavlm.metrics.duet.words import HEADLINE
from mmavlm.metrics.habit import HABITUAL
from mmavlm.metrics.headline import OF_RETRIEVAL, Score
from mmavlm.model.otherwise import VIEWS

MOST_SENTENCES = 5  # of so many tasks each has a sentence; of more they are counted
COUNTED = ("top1", "rank_top1", "video_top1")  # shares of items that are right


def lead(scores: Sequence[Score]) -> list[str]:
    """One sentence for the first number of each task, or one about all where tasks are many.

    A number is told to be above or below guessing only if guessing lies outside its 95 % interval.
    """
    habit = [score for score in scores if score.kind == HABITUAL]
    scores = [score for score in scores if score.kind != HABITUAL and score.task not in VIEWS]
    first = {score.task or score.name: score for score in reversed(scores)}
    told = [score for score in scores if first[score.task or score.name] is score]
    told = [score for score in told if score.kind != "accuracy"]
    if not told:
        return ["No test was run, so this report does not say what was learnt."]
    sentences = [_sentence(s) for s in told] if len(told) <= MOST_SENTENCES else _counted(told)
    return [*sentences, *map(_of_habit, habit)]


def label(score: Score) -> str:
    """Whose number it is, as a heading."""
    if score.kind in OF_RETRIEVAL:
        words = f"{score.task.removesuffix('joint').strip('/')} alignment"
    else:
        words = (score.task or score.name).replace("_", " ")
    words = words.strip()
    return words[:1].upper() + words[1:]


def against_guess(score: Score) -> str:
    """How a number stands to guessing: above, below, within; "" where it cannot be told."""
    if score.guess is None or score.low is None or score.high is None:
        return ""
    if score.low > score.guess:
        return "above"
    return "below" if score.high < score.guess else "within"


def _sentence(score: Score) -> str:
    items = "" if score.items is None else f" of {score.items} test items"
    if score.kind in COUNTED:
        said = f"{score.shown}{items} right"
    else:
        share = score.shown.endswith("%") and score.kind not in HEADLINE
        over = items if share else items.replace(" of ", " over ")
        said = f"{score.meaning.short}, {score.shown}{over}"
    if score.interval:
        said += f", 95 % interval {score.interval}"
    if score.lower_is_better:
        said += "; lower is better"
    return f"{_isolated(label(score))}: {said}{_guess(score)}."


def _of_habit(score: Score) -> str:
    interval = f" (95 % interval {score.interval})" if score.interval else ""
    if not score.value:
        return f"No wrong answer is given without the film, too{interval}."
    return (
        f"Of the wrong answers {score.shown}{interval} are given without the film, too: they are "
        "what the model is used to say."
    )


def _isolated(name: str) -> str:
    """A task's name within a sentence, whose order a name from right to left must not turn."""
    return f"\u2068{name}\u2069"


def _guess(score: Score) -> str:
    if score.guess is None:
        return ""
    guess = f"{100 * score.guess:.1f} %"
    if score.kind in OF_RETRIEVAL:
        return f"; a random order would give {guess}"
    alone = "the best rhythm" if score.kind in HEADLINE else "the most common answer"
    verdict = {
        "above": "",
        "within": "; this is no better than guessing, as far as these items can tell",
        "below": "; this is worse than guessing",
        "": "",
    }[against_guess(score)]
    return f"{verdict}; {alone} alone would give {guess}"


def _counted(scores: Sequence[Score]) -> list[str]:
    """Which of many tasks are above guessing, which are not, and of which it cannot be told."""
    parts = {
        "above": "better than the most common answer alone",
        "within": "no better than the most common answer alone, as far as the test items can tell",
        "below": "worse than the most common answer alone",
        "": "not to be compared with guessing",
    }
    found = []
    for verdict, words in parts.items():
        names = [
            f"{_isolated(label(s))} ({s.shown})" for s in scores if against_guess(s) == verdict
        ]
        if names:
            found.append(f"{len(names)} of {len(scores)} {words}: {', '.join(names)}.")
    return found
