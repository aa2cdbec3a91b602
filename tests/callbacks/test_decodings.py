import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hydra.utils import instantiate
from lightning.pytorch.plugins.precision import Precision

from mmavlm.callbacks import Decodings
from mmavlm.callbacks.decodings import FOLDER, PLAIN, SETTINGS
from mmavlm.core.contrast import Contrast
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.data.readers import PopeReader
from mmavlm.metrics import read_predictions
from mmavlm.metrics.abstention import ABSTAINED, choose_abstaining
from mmavlm.model.contrast_views import NoFilm, Shuffle
from mmavlm.model.saliency import AttentionSaliency
from mmavlm.stages import FineTune, OptimizerRecipe, SemanticAlignment
from support import composed, random_batch, tiny_backbone

VALIDATION = replace(
    random_batch((4, 3, 4), targets=["a", "b", "c"], seed=1), item_id=["v0", "v1", "v2"]
)
TEST = random_batch((4, 2, 3), targets=["a", "b", "c"])


@pytest.fixture(scope="module")
def stage():
    return FineTune(
        tiny_backbone(), OptimizerRecipe(), tasks=["genre", "open"], num_beams=1, num_answers=1,
        max_new_tokens=3,
    ).eval()  # fmt: skip


def answered_by(stage, folder, callback, world_size=1, validation=None, reader=None):
    """What a test leaves in its folder: settings, and the rows of each decoding."""
    validation = VALIDATION if validation is None else validation
    data = SimpleNamespace(val_dataloader=lambda: [validation], reader=reader)
    trainer = SimpleNamespace(
        default_root_dir=folder, datamodule=data, precision_plugin=Precision(),
        world_size=world_size,
    )  # fmt: skip
    callback.on_test_start(trainer, stage)
    callback.on_test_batch_end(trainer, stage, None, TEST, 0)
    callback.on_test_end(trainer, stage)
    files = (folder / FOLDER).glob("*.jsonl")
    rows = {path.stem: read_predictions(path) for path in files}
    settings = folder / FOLDER / SETTINGS
    return json.loads(settings.read_text()) if settings.is_file() else None, rows


def test_each_decoding_answers_as_a_stage_with_its_settings(stage, tmp_path):
    told, rows = answered_by(stage, tmp_path, Decodings({"no_film": NoFilm()}, [1.5], [0.0]))
    assert told["no_film"]["settings"] == {"alpha": 1.5, "beta": 0.0}
    assert [row.best for row in rows[PLAIN]] == [r.best for r in stage.answer(TEST, "both")[1]]
    stage.contrast = Contrast(view=NoFilm(), alpha=1.5, beta=0.0)
    expected = [row.best for row in stage.answer(TEST, "both")[1]]
    stage.contrast = None
    assert [row.best for row in rows["no_film"]] == expected
    changed = sum(a.best != b.best for a, b in zip(rows["no_film"], rows[PLAIN], strict=True))
    assert told["no_film"]["changed"] == changed
    assert told[PLAIN]["changed"] == 0


def test_the_settings_with_the_most_right_answers_in_validation_are_taken(
    stage, tmp_path, monkeypatch
):
    answer, asked = stage.answer, []

    def right_with(batch, by):
        """As the stage answers, but all are right that are decoded with α 2."""
        loss, rows = answer(batch, by)
        alpha = 0 if stage.contrast is None else stage.contrast.alpha
        asked.append((alpha, batch.item_id == TEST.item_id))
        said = [SimpleNamespace(text=row.truth if alpha == 2 else "no word", log_prob=0.0)
                for row in rows]  # fmt: skip
        for row, one in zip(rows, said, strict=True):
            row.answers[:] = [type(row.answers[0])(one.text, one.log_prob)]
        return loss, rows

    monkeypatch.setattr(stage, "answer", right_with)
    told, _ = answered_by(stage, tmp_path, Decodings({"shuffle": Shuffle()}, [1.0, 2.0, 3.0]))
    assert told["shuffle"]["settings"]["alpha"] == 2
    assert told["shuffle"]["validation"] == 1
    assert told[PLAIN]["validation"] == 0
    assert [alpha for alpha, of_test in asked if of_test] == [0, 2], "a test is answered once"


def test_of_equal_settings_the_first_is_taken(stage, tmp_path):
    told, _ = answered_by(stage, tmp_path, Decodings({"shuffle": Shuffle()}, [0.5, 1.0], [1.0]))
    assert told["shuffle"]["settings"]["alpha"] == 0.5  # with β 1 the answers are the plain ones
    assert told["shuffle"]["changed"] == 0


def test_a_sentence_behind_each_question_is_a_decoding(stage, tmp_path):
    told, rows = answered_by(stage, tmp_path, Decodings({}, suffixes={"careful": " Be careful."}))
    assert told["careful"]["settings"] == {"prompt_suffix": " Be careful."}
    assert len(rows["careful"]) == len(TEST)
    assert stage.prompt_suffix == ""


def test_frames_are_re_weighted_while_a_decoding_says_so(stage, tmp_path):
    given = [AttentionSaliency(strength=1.0, of="patches")]
    told, rows = answered_by(stage, tmp_path, Decodings({}, saliencies={"saliency": given}))
    assert told["saliency"]["settings"] == {"strength": 1.0, "of": "patches"}
    assert stage.backbone.vision.saliency is None
    stage.backbone.vision.saliency = given[0]
    expected = [row.best for row in stage.answer(TEST, "both")[1]]
    stage.backbone.vision.saliency = None
    assert [row.best for row in rows["saliency"]] == expected


def test_plain_answers_are_held_back_below_the_threshold_of_the_validation(stage, tmp_path):
    told, rows = answered_by(stage, tmp_path, Decodings({}, abstaining={"abstains": 1.0}))
    chosen = choose_abstaining(stage.answer(VALIDATION, "both")[1], 1.0)
    expected = [row.best for row in chosen.answered(stage.answer(TEST, "both")[1])]
    assert [row.best for row in rows["abstains"]] == expected
    assert told["abstains"]["settings"]["target"] == 1.0
    assert told["abstains"]["changed"] == expected.count(ABSTAINED)


def test_several_processes_and_stages_without_answers_are_refused(stage, tmp_path):
    callback = Decodings({"no_film": NoFilm()})
    with pytest.raises(ConfigError, match="chooses in one process, and there are 2"):
        answered_by(stage, tmp_path, callback, world_size=2)
    alignment = SemanticAlignment(tiny_backbone("backbone.llm=null"), OptimizerRecipe())
    with pytest.raises(ConfigError, match="SemanticAlignment decodes none"):
        answered_by(alignment, tmp_path, callback)


def test_items_that_decodings_were_chosen_on_are_not_tested(stage, tmp_path):
    with pytest.raises(DataError, match="item 'i0' is in the validation and in the test"):
        answered_by(stage, tmp_path, Decodings({"no_film": NoFilm()}), validation=TEST)


def test_frames_are_encoded_once_for_all_decodings_of_a_batch(stage, tmp_path, monkeypatch):
    encode, seen = stage.backbone.vision.encode, []
    monkeypatch.setattr(
        stage.backbone.vision, "encode", lambda frames: seen.append(len(frames)) or encode(frames)
    )
    views = {"no_film": NoFilm(), "shuffle": Shuffle()}
    answered_by(stage, tmp_path, Decodings(views, [0.5, 1.0], [0.0, 0.1]))
    assert len(seen) == 2, "one batch of the validation, one of the test"


def test_a_benchmark_which_has_no_validation_is_tested_without(stage, tmp_path, caplog):
    callback = Decodings({"no_film": NoFilm()})
    assert answered_by(stage, tmp_path, callback, reader=PopeReader()) == (None, {})
    assert "nothing to choose them by" in caplog.text
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": {}}, "nothing to decode by"),
        ({"views": {"no_film": NoFilm()}, "alphas": []}, "nothing to decode by"),
        ({"views": {"plain": NoFilm()}}, r"names \['plain'\] twice"),
        ({"views": {"a": NoFilm()}, "suffixes": {"a": "?"}}, r"names \['a'\] twice"),
        ({"views": {}, "suffixes": {"a": "?"}, "abstaining": {"a": 0.9}}, r"names \['a'\] twice"),
        ({"views": {}, "saliencies": {"a": []}}, "nothing to decode by"),
    ],
)
def test_settings_that_decode_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Decodings(**settings)


def test_the_group_callbacks_has_the_decodings_and_the_views_are_views():
    callback = instantiate(composed("callbacks=decodings").callbacks.decodings)
    views = {name: choices[0].contrast for name, choices in callback.choices.items()}
    assert views.pop("asks_for_yes") is None
    assert views.pop("asks_for_care") is None
    assert views.pop("saliency") is None
    assert [choice.saliency.strength for choice in callback.choices["saliency"]] == [0.5, 1.0]
    assert isinstance(views["no_film"].view, NoFilm)
    assert {len(callback.choices[name]) for name in views} == {6}
