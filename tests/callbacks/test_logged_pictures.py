"""What loggers are given beside numbers, and when."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.plugin_util import markdown_to_safe_html

from mmavlm.callbacks import LoggedPictures
from mmavlm.callbacks.picture_loggers import OnTensorBoard, StoredFile
from mmavlm.core.errors import ConfigError
from mmavlm.core.interfaces import Answer
from mmavlm.metrics import Prediction
from mmavlm.report import Report, SampleAnswer
from support import random_batch

DATA = SimpleNamespace(annotation_files={}, sets=(), root="films")


class Kept:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.given = []

    def pictures(self, name, pictures, step):
        self.given.append((name, [picture.name for picture in pictures], step))

    def answers(self, name, samples, step):
        self.given.append((name, [(s.task, s.right, len(s.frames)) for s in samples], step))

    def data(self, name, files):
        self.given.append((name, files))

    def model(self, file, score):
        self.given.append(("model", file.name, score))


def trainer(**changes):
    settings = {
        "is_global_zero": True, "sanity_checking": False, "global_step": 7, "loggers": [],
        "datamodule": DATA, "checkpoint_callback": None,
    }  # fmt: skip
    return SimpleNamespace(**{**settings, **changes})


def stage(classes=None):
    return SimpleNamespace(classes=classes or {}, device=torch.device("cpu"))


def showing(**settings):
    callback = LoggedPictures(**settings)
    callback.loggers = [Kept()]
    return callback


def answered(batch, answers):
    rows = [Prediction.of(batch, row, [Answer(text, -1.0)], []) for row, text in enumerate(answers)]
    return {"answered": rows}


def validated(callback, outputs, batch, *, classes=None, **changes):
    """What a logger is given by a validation of one batch."""
    here, module = trainer(**changes), stage(classes)
    callback.on_validation_start(here, module)
    callback.on_validation_batch_end(here, module, outputs, batch, 0)
    callback.on_validation_epoch_end(here, module)
    return callback.loggers[0].given


def test_a_validation_shows_some_items_of_each_task_and_the_confusion_of_those_with_classes():
    batch = random_batch((4, 3, 4, 1, 4, 2), targets=["a"] * 6)  # tasks: genre and open by turns
    outputs = answered(batch, ["a", "a", "a", "a", "b", "a"])
    classes = {"genre": ["a", "b"], "scene": ["c"]}
    given = validated(showing(per_task=1), outputs, batch, classes=classes)
    shown = [("genre", True, 4), ("open", True, 3), ("genre", False, 4)]
    assert given == [("val/answers", shown, 7), ("val/confusion", ["genre"], 7)]


def test_no_more_items_are_shown_than_are_asked_for_in_all():
    batch = random_batch((2,) * 6, targets=["a"] * 6)
    (name, items, _), *_ = validated(showing(most=3), answered(batch, ["b"] * 6), batch)
    assert (name, len(items)) == ("val/answers", 3)


def test_the_first_films_are_compared_with_their_texts():
    batch = random_batch((2,) * 5, targets=list("abcde"))
    generator = torch.Generator().manual_seed(0)
    films, texts = torch.randn(2, 5, 4, generator=generator)
    compared = {"compared": [(batch, {"low": (films, texts), "joint": (films, films)})]}
    callback = showing(pairs=3)
    callback._begin(stage(), {})
    callback._seen.take(compared, batch)
    callback._seen.take(compared, batch)
    found = callback._seen.similarity()
    assert (found.films, found.texts) == (["v0", "v1", "v2"], ["a", "b", "c"])
    slow = torch.cosine_similarity(films[:3, None], texts[None, :3], dim=-1)
    assert torch.allclose(torch.from_numpy(found.levels["low"]), slow)
    assert found.same.tolist() == torch.eye(3).bool().tolist()
    given = validated(callback, compared, batch)
    assert given == [("val/similarity", ["films and texts"], 7)]


def test_none_is_compared_where_no_pairs_are_asked_for():
    batch = random_batch((2,) * 2, targets=["a", "b"])
    compared = {"compared": [(batch, {"low": (torch.eye(2), torch.eye(2))})]}
    assert validated(showing(pairs=0), compared, batch) == []


def test_only_every_nth_validation_is_shown_and_no_sanity_check():
    batch = random_batch((2,), targets=["a"])
    callback = showing(every_n_validations=2)
    outputs = answered(batch, ["a"])
    for step in range(5):
        validated(callback, outputs, batch, global_step=step)
        validated(callback, outputs, batch, global_step=step, sanity_checking=True)
    assert [step for _, _, step in callback.loggers[0].given] == [1, 3]


def test_another_process_shows_nothing():
    batch = random_batch((2,), targets=["a"])
    assert validated(showing(), answered(batch, ["a"]), batch, is_global_zero=False) == []


def test_a_logger_without_pictures_costs_nothing(tmp_path):
    callback = LoggedPictures()
    here = trainer(loggers=[CSVLogger(tmp_path)], datamodule=None)
    callback.setup(here, stage(), "fit")
    callback.on_fit_start(here, stage())
    callback.on_validation_start(here, stage())
    assert callback.loggers == []
    assert callback._seen is None
    callback.show_run(here, None, None)


def test_the_files_of_the_data_are_told_once_and_the_model_only_where_it_is_wanted(tmp_path):
    file = tmp_path / "best.ckpt"
    file.write_bytes(b"weights")
    data = SimpleNamespace(annotation_files={"train.json": file}, sets=("lvu", "own"), root=None)
    callback = showing(model=True)
    here = trainer(datamodule=data)
    callback.on_fit_start(here, stage())
    callback.on_test_start(here, stage())
    callback.show_run(here, Report(title="t"), file)
    ((name, files), model) = callback.loggers[0].given
    assert (name, [f.name for f in files], files[0].size) == ("lvu-own", ["train.json"], 7)
    assert model == ("model", "best.ckpt", None)
    for other in (showing(data=False), showing()):
        other.on_fit_start(trainer(), stage())
        other.show_run(here, Report(title="t"), file)
        assert other.loggers[0].given == []


def test_texts_mean_nothing_to_the_pages_that_show_them(tmp_path):
    evil = "a|b <script>x</script> & *c* _d_ [e](http://f) `g` \\h"
    logger = TensorBoardLogger(tmp_path)
    texts = {}
    logger.experiment.add_text = lambda name, text, step: texts.update({name: text})
    shower = OnTensorBoard(logger)
    sample = SampleAnswer(evil, "film", evil, [], [], evil)
    shower.answers("val/answers", [sample], 0)
    shower.data("films", [StoredFile(evil, tmp_path, 1, "0")])
    for text in texts.values():
        page = markdown_to_safe_html(text)
        assert "a|b &lt;script&gt;x&lt;/script&gt; &amp; *c* _d_ [e](http://f) `g` \\h" in page
        assert "<script" not in page


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_task": -1}, "callbacks.pictures.per_task must be at least 0, got -1"),
        ({"pairs": 1.5}, "callbacks.pictures.pairs must be a whole number"),
        ({"classes": 0}, "callbacks.pictures.classes must be at least 1"),
        ({"every_n_validations": 0}, "callbacks.pictures.every_n_validations must be at least 1"),
        ({"model": "yes"}, "callbacks.pictures.model must be true or false, got 'yes'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LoggedPictures(**settings)
