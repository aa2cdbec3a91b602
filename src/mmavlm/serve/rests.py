"""What an answer rests on, as plain values that a page can draw."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmavlm.loaded.explained import Explained
from mmavlm.model.otherwise import SHUFFLED, WITHOUT_FILM

DIGITS = 4


def what_it_rests_on(found: Explained) -> dict[str, Any]:
    """Times, slots, attention and hidden stretches of an explanation, and how likely without.

    `slots` (S,T) says how much of a frame's tokens each slot holds, `attention` (T,) adds up to 1.
    `log_prob` is that of the answer with the film, without it and with its frames shuffled.
    """
    told = found.explanation
    times = told.times_s.tolist()
    views = {view.view: view for view in told.otherwise}
    likely = {"with the film": told.log_prob}
    for name, view in (("without the film", WITHOUT_FILM), ("frames shuffled", SHUFFLED)):
        if view in views:
            likely[name] = views[view].log_prob
    if told.change_when_grey is not None:
        likely["all grey"] = told.log_prob + told.change_when_grey
    return {
        "answer": told.answer,
        "sentences": list(found.sentences),
        "times_s": _rounded(told.times_s),
        "slots": [_rounded(row) for row in told.slots],
        "attention": _rounded(told.frame_attention.mean(dim=(0, 1))),
        "hidden": [
            {"first_s": times[first], "last_s": times[stop - 1], "change": change}
            for (first, stop), change in zip(told.stretches, told.changes.tolist(), strict=True)
        ],
        "log_prob": likely,
        "says": {view.view: view.answer for view in told.otherwise},
    }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, DIGITS) for value in values.tolist()]
