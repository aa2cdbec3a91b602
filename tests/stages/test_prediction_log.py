"""What a test keeps to be looked at."""

from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction
from mmavlm.stages.predictions import MOST_ITEMS, SAMPLE_ITEMS, PredictionLog
from support import random_batch


def kept(answers, task="genre"):
    """Item ids whose frames are kept, of items answered so about "yes"."""
    log = PredictionLog()
    batch = random_batch((2,))
    for number, (said, of_task) in enumerate(
        zip(answers, task.split() * len(answers), strict=False)
    ):
        row = Prediction(str(number), "v", of_task, "?", "yes", [Answer(said, -1.0)], [], ["yes"])
        log.extend([row], batch)
    return list(map(int, log.frames))


def test_the_first_items_are_kept_and_the_first_wrong_ones_behind_them():
    right = ["yes"] * 20
    assert kept(right) == list(range(SAMPLE_ITEMS))
    wrong_later = [*right, "no", "yes", "no"]
    assert kept(wrong_later) == [*range(SAMPLE_ITEMS), 20, 22]
    assert kept(["no"] * 20) == list(range(2 * SAMPLE_ITEMS))


def test_every_task_has_its_items_up_to_a_page_full():
    assert kept(["yes"] * 20, "a b") == list(range(2 * SAMPLE_ITEMS))
    many = " ".join(f"t{n}" for n in range(100))
    assert len(kept(["no"] * 200, many)) == MOST_ITEMS
