from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.plugins.precision import Precision

from mmavlm.callbacks import HabitScores
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError
from mmavlm.core.medium import Medium
from mmavlm.model.otherwise import SHUFFLED, WITHOUT_FILM, other_views
from mmavlm.stages import FineTune, OptimizerRecipe, SemanticAlignment
from support import random_batch, tiny_backbone

TRAINER = SimpleNamespace(is_global_zero=True, precision_plugin=Precision())


class Logging:
    """What a stage logs, in place of Lightning's logger."""

    def __init__(self):
        self.values = {}

    def __call__(self, values, **kwargs):
        self.values |= values


def logged(batch, monkeypatch, **answering):
    """The values that are logged for a test of one batch, and the stage."""
    stage = FineTune(
        tiny_backbone(), OptimizerRecipe(), tasks=["genre", "open"], num_beams=1, num_answers=1,
        max_new_tokens=3, **answering,
    ).eval()  # fmt: skip
    logging = Logging()
    monkeypatch.setattr(stage, "log_dict", logging)
    stage.predictions.extend(stage.answer(batch, stage.answer_by)[1], batch)
    callback = HabitScores()
    callback.on_test_start(TRAINER, stage)
    callback.on_test_batch_end(TRAINER, stage, None, batch, 0)
    callback.on_test_epoch_end(TRAINER, stage)
    return logging.values, stage


def test_every_question_is_asked_again_of_both_views(monkeypatch):
    batch = random_batch((4, 3, 4), targets=["a", "b", "c"])
    values, stage = logged(batch, monkeypatch)
    for name, view in other_views(batch).items():
        again = [row.best for row in stage.answer(view, "both")[1]]
        of_film = [stage.predictions.latest[item].best for item in batch.item_id]
        same = sum(a == b for a, b in zip(of_film, again, strict=True)) / 3
        assert values[f"test/{name}/same"] == pytest.approx(same)
    assert {"test/habitual_mistakes", "test/habitual_mistakes_low"} <= set(values)


def test_a_model_whose_films_are_grey_makes_no_other_mistakes_in_another_order(monkeypatch):
    batch = random_batch((4, 4), targets=["a", "b"])
    batch.frames.fill_(128)
    values, _ = logged(batch, monkeypatch)
    assert values[f"test/{SHUFFLED}/same"] == 1


def test_captions_are_left_out(monkeypatch):
    values, _ = logged(random_batch((4, 4), targets=["a", "b"]), monkeypatch, compare="caption",
                       monitor="val/cider_plain")  # fmt: skip
    assert values == {}


def test_a_stage_that_answers_nothing_is_refused():
    stage = SemanticAlignment(tiny_backbone("backbone.llm=null"), OptimizerRecipe())
    with pytest.raises(ConfigError, match="SemanticAlignment answers none"):
        HabitScores().on_test_start(TRAINER, stage)


def test_views_that_change_nothing_are_left_out():
    assert set(other_views(random_batch((4,)))) == {WITHOUT_FILM, SHUFFLED}
    assert set(other_views(random_batch((1, 1)))) == {WITHOUT_FILM}
    film = Medium(medium_id="v0", source=Path("v0"))
    wordless = replace(random_batch((4,)), conversations=[Conversation.question(film, " ", "a")])
    assert set(other_views(wordless)) == {SHUFFLED}
