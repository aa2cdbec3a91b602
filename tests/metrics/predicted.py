"""Predictions to be scored, compared and written."""

from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction


def predicted(number, answers, truth="yes", *, task="qa", ranking=(), references=(), **more):
    """The prediction for item `number`; three items a video."""
    return Prediction(
        item_id=f"i{number}",
        video_id=f"v{number // 3}",
        task=task,
        prompt="what?",
        truth=truth,
        answers=[Answer(text, -1.0 - place) for place, text in enumerate(answers)],
        ranking=[Answer(text, -1.0 - place) for place, text in enumerate(ranking)],
        references=[truth, *references],
        **more,
    )
