"""What a model says without the film, and with its frames shuffled: how much of an answer is habit.

The text of a question alone, and frames without their order, are the controls of the field: an
answer that stays when what it should rest on is taken away does not rest on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mmavlm.core.batch import Batch
from mmavlm.core.contrast import ContrastView
from mmavlm.core.generation import Generation
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.contrast_views import NoFilm, Shuffle

WITHOUT_FILM, SHUFFLED = "without_film", "shuffled"
VIEWS: dict[str, ContrastView] = {WITHOUT_FILM: NoFilm(), SHUFFLED: Shuffle()}
Say = Callable[[Batch], Sequence[str]]  # one text for each conversation of a batch


@dataclass(frozen=True)
class Otherwise:
    """What a model says where a `view` is shown in place of the film.

    `answer` is its answer then, and `log_prob` that of the answer that it gave to the film, and of
    its end.
    """

    view: str
    answer: str
    log_prob: float


def other_views(batch: Batch) -> dict[str, Batch]:
    """A batch without its films, and with their frames shuffled, by the name of the view.

    Left out is what changes nothing: the order of frames where no film has two; and the text alone
    where a row asks with its film alone.
    """
    views = dict(VIEWS)
    if not all(prompt.strip() for prompt in batch.prompt):
        del views[WITHOUT_FILM]
    if batch.frame_mask.shape[1] < 2:
        del views[SHUFFLED]
    return {name: view(batch) for name, view in views.items()}


@torch.no_grad()
def otherwise(
    backbone: VideoLanguageModel, batch: Batch, answers: Sequence[str], say: Say | None = None
) -> list[tuple[Otherwise, ...]]:
    """Of each row of `batch`, answered by `answers`: what is said of the other views.

    `say` answers a batch as the film was answered; without it the likeliest token is taken, up to
    the length of the longest of `answers`. Takes a pass through memory and LLM for each view.

    Raises:
        ConfigError: if the model has no LLM.
    """
    rows: list[list[Otherwise]] = [[] for _ in answers]
    for name, view in other_views(batch).items():
        media = backbone.media_tokens(view)
        llm = backbone.llm
        assert llm is not None  # media_tokens refuses a model without
        if say is None:
            longest = max(llm.answer_length(answer) for answer in answers)
            greedy = Generation(num_beams=1, max_new_tokens=longest)
            asked = [talk.asked for talk in view.conversations]
            said = [found[0].text for found in llm.generate(asked, media, greedy)]
        else:
            said = list(say(view))
        for row, (answer, text) in enumerate(zip(answers, said, strict=True)):
            of_row = media.rows([row])
            score = llm.rank([view.conversations[row].asked], of_row, [answer])
            rows[row].append(Otherwise(name, text, float(score)))
    return [tuple(found) for found in rows]
