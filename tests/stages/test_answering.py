from dataclasses import replace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import Answer, MediaTokens
from mmavlm.core.options import Options
from mmavlm.stages import FineTune, OptimizerRecipe
from mmavlm.stages.answering import answer_batch
from support import asking, random_batch, rows_of, tiny_backbone

CLASSES = ["comedy", "a long drama", "action"]
PETS = Options(("a dog", "a cat"), "letters")
COLOURS = Options(("red", "green", "dark blue"), "texts")


def stage_of(**settings):
    defaults = {"tasks": ["genre", "open"], "classes": {"genre": CLASSES}, "num_beams": 2,
                "num_answers": 2, "max_new_tokens": 2}  # fmt: skip
    return FineTune(tiny_backbone(), OptimizerRecipe(), **defaults | settings).eval()


@pytest.fixture
def stage():
    return stage_of()


@pytest.fixture
def tested(tmp_path):
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False,
                        default_root_dir=tmp_path)  # fmt: skip

    def tested(stage, *batches):
        [metrics] = trainer.test(stage, DataLoader(batches, batch_size=None), verbose=False)
        return metrics, list(stage.predictions.read())

    return tested


def in_order(names, ranked):
    """The scores of a ranking, in the order of the names."""
    scores = {answer.text: answer.log_prob for answer in ranked}
    return torch.tensor([scores[name] for name in names])


@torch.no_grad()
def losses_one_by_one(stage, batch, names):
    """Log-probabilities of answers to a batch of one: each its own film, memory and loss."""
    llm = stage.backbone.llm
    return torch.tensor(
        [
            -stage.backbone(asking(batch, target=[name]), align=False)["text"]
            * llm.answer_length(name)
            for name in names
        ]
    )


@torch.no_grad()
def test_a_ranking_is_the_loss_of_each_class_one_by_one(stage):
    batch = random_batch((6, 6), targets=("comedy", "action"))
    batch = replace(batch, task=["genre", "genre"])
    for row, prediction in enumerate(stage.answer(batch, "rank")[1]):
        found = in_order(CLASSES, prediction.ranking)
        expected = losses_one_by_one(stage, rows_of(batch, row), CLASSES)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert prediction.ranking == sorted(prediction.ranking, key=lambda a: -a.log_prob)


@torch.no_grad()
def test_a_ranking_is_without_ends_if_the_stage_says_so():
    stage, batch = stage_of(rank_with_eos=False), rows_of(random_batch((6, 6)), 0)
    backbone, [row] = stage.backbone, stage.answer(batch, "rank")[1]
    asked = batch.conversations, backbone.media_tokens(batch), CLASSES
    expected = backbone.llm.rank(*asked, with_eos=False)[0]
    assert (expected - backbone.llm.rank(*asked)[0]).abs().min() > 1e-3
    torch.testing.assert_close(in_order(CLASSES, row.ranking), expected)


@torch.no_grad()
def test_penalties_of_the_stage_reach_the_language_model(monkeypatch):
    stage = stage_of(repetition_penalty=1.5, penalize_bos=True, length_penalty=0.0)
    asked = []
    generate = stage.backbone.llm.generate
    monkeypatch.setattr(
        stage.backbone.llm, "generate", lambda *a, **k: asked.append(a[-1]) or generate(*a, **k)
    )
    stage.answer(random_batch(), "generate")
    assert (asked[0].repetition_penalty, asked[0].length_penalty) == (1.5, 0.0)
    assert asked[0].penalize_bos is True


@torch.no_grad()
def test_a_ranking_depends_on_every_frame_the_memory_holds(stage):
    batch = rows_of(random_batch((6, 6)), 0)
    before = in_order(CLASSES, stage.answer(batch, "rank")[1][0].ranking)
    for t in range(6):
        frames = batch.frames.clone()
        frames[:, t] = 255 - frames[:, t]
        changed = stage.answer(replace(batch, frames=frames), "rank")[1][0].ranking
        assert (in_order(CLASSES, changed) - before).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("by", "generated", "ranked"),
    [("both", True, True), ("generate", True, False), ("rank", False, True)],
)
def test_tasks_with_classes_are_answered_as_the_stage_says(tested, by, generated, ranked):
    metrics, rows = tested(stage_of(answer_by=by), random_batch())
    genre, free = rows
    assert (bool(genre.answers), bool(genre.ranking)) == (generated, ranked)
    assert (bool(free.answers), bool(free.ranking)) == (True, False)
    assert ("test/genre/top1" in metrics, "test/genre/rank_top1" in metrics) == (generated, ranked)
    assert "test/open/top1" in metrics
    assert not any("unparsed" in name for name in metrics)


@torch.no_grad()
def test_options_of_a_question_are_ranked_as_they_would_be_answered(stage):
    batch = replace(random_batch((4, 2)), options=[PETS, COLOURS])
    for row, options in enumerate((PETS, COLOURS)):
        found = in_order(options.answers, stage.answer(batch, "rank")[1][row].ranking)
        expected = losses_one_by_one(stage, rows_of(batch, row), options.answers)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_answer_counts_as_the_option_it_names(tested, monkeypatch):
    stage = stage_of(tasks=["pets", "colours"], classes={}, tasks_with_options=["pets", "colours"],
                     compare="first_word", answer_by="generate")  # fmt: skip
    batch = replace(
        random_batch((2, 2, 2, 2), targets=("A", "B", "dark blue", "red")),
        task=["pets", "pets", "colours", "colours"],
        options=[PETS, PETS, COLOURS, COLOURS],
    )
    said = ["The answer is (A)", "a man", "it is dark blue", "green"]
    monkeypatch.setattr(
        stage.backbone.llm, "generate", lambda *_, **__: [[Answer(s, 0.0)] for s in said]
    )
    metrics, rows = tested(stage, batch)
    assert [row.answers[0].text for row in rows] == ["A", "", "dark blue", "green"]
    assert [row.said for row in rows] == [[s] for s in said]
    assert metrics["test/pets/top1"] == metrics["test/pets/unparsed"] == 0.5
    assert metrics["test/pets/parsed_of"] == 2
    assert (metrics["test/colours/top1"], metrics["test/colours/unparsed"]) == (0.5, 0)


def test_open_questions_beside_those_with_options_stay_open(tested):
    stage = stage_of(tasks=["open"], classes={}, tasks_with_options=["open"])
    batch = replace(random_batch(), task=["open", "open"], options=[PETS, None])
    metrics, (chosen, free) = tested(stage, batch)
    assert (len(chosen.said), len(chosen.ranking)) == (2, 2)
    assert (free.said, free.ranking) == ([], [])
    assert metrics["test/open/count"] == 2
    assert metrics["test/open/rank_count"] == metrics["test/open/parsed_of"] == 1


def test_a_way_to_answer_that_is_none_is_refused():
    with pytest.raises(
        ConfigError, match=r"stage.answer_by='guess' is unknown; choose one of both"
    ):
        stage_of(answer_by="guess")


def test_validating_by_ranking_goes_with_ranking_only():
    with pytest.raises(ConfigError, match=r"validates by ranking, which stage.answer_by=generate"):
        stage_of(answer_by="generate", generate_in_validation=False)


@torch.no_grad()
@pytest.mark.parametrize("by", ["generate", "rank"])
def test_each_group_of_rows_keeps_its_own_mask_of_video_tokens(stage, by):
    llm, counts = stage.backbone.llm, (4, 1, 3)
    batch = random_batch((6, 6, 6), targets=("comedy", "zebra", "action"))
    batch = replace(batch, task=["genre", "open", "genre"])
    video = torch.randn(3, 4, llm.width, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(4) < torch.tensor(counts)[:, None]
    short = Generation(num_beams=2, num_answers=2, max_new_tokens=2)
    media = MediaTokens(video, [1, 1, 1], mask)
    together = answer_batch(llm, media, batch, stage.classes, by, short)
    for row, (count, found) in enumerate(zip(counts, together, strict=True)):
        shown = MediaTokens(video[row : row + 1, :count], [1])
        [alone] = answer_batch(llm, shown, rows_of(batch, row), stage.classes, by, short)
        for answers, expected in ((found.generated, alone.generated), (found.ranked, alone.ranked)):
            assert [answer.text for answer in answers] == [answer.text for answer in expected]
            scores, whole = ([a.log_prob for a in some] for some in (answers, expected))
            assert scores == pytest.approx(whole, rel=1e-5, abs=1e-5)
