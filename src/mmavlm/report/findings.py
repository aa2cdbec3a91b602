"""What an explanation says, in sentences, and what it cannot say."""

from __future__ import annotations

import math
import textwrap

from mmavlm.metrics.rules import normalise_answer
from mmavlm.model.explain import Explanation
from mmavlm.model.otherwise import SHUFFLED, WITHOUT_FILM

# A change in log-probability below this is told as none: it changes the probability by a tenth.
SAME_NATS = 0.1
LEAST_NATS = -14.0  # below it, a probability of one in a million, numbers are hard to read
VIEWS = {WITHOUT_FILM: "Without the film", SHUFFLED: "With the frames shuffled"}
LONGEST = 60  # characters of another answer


def likely(log_prob: float, name: str = "probability ") -> str:
    """A probability in words; its logarithm where it would round to nothing, as of long answers."""
    if log_prob < LEAST_NATS:
        return f"log-probability {log_prob:.1f}".replace("-", "−").replace("log−", "log-")
    return f"{name}{math.exp(log_prob):.3g}"


def findings(explanation: Explanation) -> list[str]:
    """Sentences about whether the film matters to the answer, and where the model looked.

    "Nearly the same" is said of changes below `SAME_NATS` alone.
    """
    return [*_of_habit(explanation), *_of_film(explanation), *_of_places(explanation)]


def _of_habit(explanation: Explanation) -> list[str]:
    """What the model says of other views, and how probable the answer is there."""
    sentences = []
    for other in explanation.otherwise:
        shares = f"{likely(other.log_prob)}, of the film {likely(explanation.log_prob, '')}"
        if normalise_answer(other.answer) == normalise_answer(explanation.answer):
            sentences.append(f"{VIEWS[other.view]} the model says the same ({shares}).")
        else:
            said = textwrap.shorten(other.answer, LONGEST, placeholder=" …") or "nothing"
            sentences.append(
                f"{VIEWS[other.view]} the model says “{said}”; this answer has {shares}."
            )
    return sentences


def _of_film(explanation: Explanation) -> list[str]:
    if not explanation.stretches:
        return []
    change = explanation.change_when_grey
    largest = float(explanation.changes.abs().max())
    sentences = []
    if change is not None:
        nats = f"{change:+.3f} nats".replace("-", "−")
        if abs(change) < SAME_NATS:
            rests = (
                ". It does not rest on what this film shows."
                if largest < SAME_NATS
                else f", yet hiding one stretch changes it by {largest:.3f} nats."
            )
            sentences.append(
                "Nearly the same with every frame grey: the answer's log-probability changes by "
                f"{nats}{rests}"
            )
        else:
            way = "less" if change < 0 else "more"
            times = math.exp(min(abs(change), 700))
            sentences.append(
                f"With every frame grey the answer is {times:.3g} times {way} probable ({nats})."
            )
    if largest < SAME_NATS:
        sentences.append(
            f"No stretch matters by itself: hiding one changes the log-probability by "
            f"{largest:.3f} nats at most."
        )
    return sentences


def _of_places(explanation: Explanation) -> list[str]:
    grid, tokens = explanation.patch_grid, explanation.patch_attention.shape[1]
    if explanation.frames is None:
        return [
            "Where in the picture the model looked is not drawn: it read cached features, so there "
            "are no frames to draw on."
        ]
    if grid is None:
        return [
            "Where in the picture the model looked is not drawn: the encoder does not say how the "
            f"{tokens} tokens of a frame lie in it."
        ]
    placed = float(explanation.patch_attention[:, grid.first : grid.stop].sum())
    if grid.stop - grid.first == tokens:
        return []
    return [f"{1 - placed:.0%} of the attention is on tokens of no place, such as a class token."]
