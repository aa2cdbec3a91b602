"""Preference training: true answers before false ones, films before others."""

from copy import deepcopy
from dataclasses import replace
from math import log

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from mmavlm.core.errors import ConfigError
from mmavlm.core.items import Item
from mmavlm.model.contrast_views import NoFilm, Noise, Shuffle
from mmavlm.model.llm.adapt import LoraSettings, add_lora
from mmavlm.stages import FineTune, OptimizerRecipe, Preference
from mmavlm.stages.pairs import AnotherFilm, OwnTwin, PairScores, pairs_of
from mmavlm.stages.preference import preference_loss
from mmavlm.stages.reference import Reference
from support import StopAtBatch, asking, random_batch, tiny_backbone

FALSE = {"i0": "no", "i1": "yes", "i2": "no", "i3": "yes"}
RECIPE = OptimizerRecipe(lr=1e-2, warmup_steps=0)


def yes_no_batch(seed=0, target=("yes", "no", "yes", "no")):
    batch = random_batch((4, 2, 3, 1), targets=target, seed=seed)
    asked = asking(batch, prompt=["is there a cat?"] * 4, target=list(target))
    return replace(asked, task=["qa"] * 4)


def items(batch):
    asked = zip(batch.item_id, batch.conversations, batch.task, strict=True)
    return [Item(item_id=name, conversation=talk, task=task) for name, talk, task in asked]


def build(backbone=None, **settings):
    given = {"tasks": ["qa"], "align_weight": 0.0, "items": items(yes_no_batch())} | settings
    return Preference(backbone or tiny_backbone("alignment=none"), RECIPE, **given)


def moved(stage):
    """The same stage with the reference it starts from, and other weights since."""
    stage.reference = Reference.of(PairScores(stage.backbone))
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in stage.backbone.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=draws)
    return stage


def with_adapters():
    """A backbone of which the adapters of the LLM alone learn."""
    backbone = tiny_backbone("alignment=none")
    backbone.requires_grad_(False)
    torch.manual_seed(0)
    add_lora(backbone.llm.model, LoraSettings(rank=2, dropout=0.0, target_modules=["q_proj"]))
    return backbone


def trainer(**settings):
    given = {"max_epochs": 1, "enable_checkpointing": False} | settings
    return L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False,
                     enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
                     **given)  # fmt: skip


def loader(batches):
    return DataLoader(batches, batch_size=None)


def test_the_gradient_of_the_loss_is_that_of_the_formula():
    won, lost = torch.randn(2, 6, dtype=torch.float64).requires_grad_().unbind(0)
    won.retain_grad()
    lost.retain_grad()
    losses, margins = preference_loss(won, lost, beta=0.3)
    torch.testing.assert_close(losses, -torch.log(1 / (1 + torch.exp(-0.3 * (won - lost)))))
    losses.sum().backward()
    torch.testing.assert_close(won.grad, -0.3 * torch.sigmoid(-margins))
    torch.testing.assert_close(lost.grad, -won.grad)


def slow_log_prob(backbone, batch, row, answer):
    """log π of an answer as a sum over its tokens, each ranked among all that could come."""
    llm = backbone.llm
    talk = batch.conversations[row].asked
    [tokens] = llm.learned_log_probs(
        [talk.answered(answer, learned=True)], backbone.media_tokens(batch.rows([row]))
    )[:1]
    [ranked] = llm.rank([talk], backbone.media_tokens(batch.rows([row])), [answer])
    torch.testing.assert_close(tokens, ranked)
    return float(ranked.detach())


def test_losses_are_those_of_pairs_one_by_one():
    stage = build(beta=0.5, film_weight=2.0, film_view=Shuffle(), text_weight=0.25).eval()
    before = deepcopy(stage.backbone)
    now, batch = moved(stage).backbone, yes_no_batch()
    shuffled = Shuffle()(batch)
    losses = {"answer": [], "film": []}
    for row, (true, false) in enumerate(zip(batch.target, FALSE.values(), strict=True)):
        ratios = [
            slow_log_prob(now, shown, row, said) - slow_log_prob(before, shown, row, said)
            for shown, said in ((batch, true), (batch, false), (shuffled, true))
        ]
        for name, lost in zip(losses, ratios[1:], strict=True):
            margin = torch.tensor(0.5 * (ratios[0] - lost))
            losses[name].append(-torch.log(torch.sigmoid(margin)))
    found = stage.losses(batch)
    answers, films = (torch.stack(rows).mean() for rows in losses.values())
    text = now.answer_loss(batch, now.media_tokens(batch))
    torch.testing.assert_close(found["answer_pairs"], answers, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["film_pairs"], films, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["text"], text)
    total = answers + 2 * films + 0.25 * text
    torch.testing.assert_close(found["loss"], total, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("view", [AnotherFilm(), NoFilm(), Noise(), Shuffle()], ids=str)
def test_at_the_start_no_margin_is_there_and_the_loss_is_the_logarithm_of_two(view):
    found = build(film_weight=1.0, film_view=view).eval().losses(yes_no_batch())
    for kind in ("answer", "film"):
        assert found[f"{kind}_margin"].item() == pytest.approx(0, abs=1e-5)
        assert found[f"{kind}_pairs"].item() == pytest.approx(log(2), abs=1e-5)


def test_adapters_switched_off_are_the_model_before_they_moved():
    stage = moved(build(with_adapters(), film_weight=1.0, film_view=Shuffle()).eval())
    assert stage.reference.weights is None
    scorer, batch = PairScores(stage.backbone), yes_no_batch()
    start = PairScores(with_adapters()).eval()
    pairs = pairs_of(stage.backbone, batch, FALSE, Shuffle())
    kept = Reference({n: p for n, p in start.named_parameters() if p.requires_grad})
    now, off = stage.reference.beside(scorer, pairs)
    for found, wanted, by_weights, present in zip(
        off, start(pairs), kept.beside(scorer, pairs)[1], now, strict=True
    ):
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(found, by_weights)
        assert found.dtype == torch.int64 or not torch.allclose(found, present)
    stage.losses(batch)["loss"].backward()
    learned = {name: p.grad for name, p in stage.backbone.named_parameters() if p.requires_grad}
    assert learned
    assert all("lora_" in name and grad is not None for name, grad in learned.items())


def test_adapters_that_have_learned_before_are_part_of_the_reference():
    stage = moved(build(with_adapters()).eval())
    stage.reference = None
    margin = stage.losses(yes_no_batch())["answer_margin"].item()
    assert margin == pytest.approx(0, abs=1e-5)
    assert stage.reference.weights


def test_the_reference_has_no_dropout_and_leaves_modes_as_they_were():
    stage = moved(build(tiny_backbone("alignment=none", "qformer.dropout=0.5")).train())
    scorer = PairScores(stage.backbone)
    modes = [part.training for part in stage.modules()]
    pairs = pairs_of(stage.backbone, yes_no_batch(), FALSE, None)
    first, second = (stage.reference.beside(scorer, pairs) for _ in range(2))
    torch.testing.assert_close(first[1].chosen, second[1].chosen, rtol=0, atol=0)
    assert not torch.equal(first[0].chosen, second[0].chosen)
    assert [part.training for part in stage.modules()] == modes


def test_gradients_are_those_of_single_precision_under_autocast():
    stage = moved(build(film_weight=1.0, film_view=AnotherFilm()).eval())
    gradients = []
    for enabled in (False, True):
        stage.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = stage.losses(yes_no_batch())["loss"]
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in stage.parameters()
                                    if p.grad is not None]))  # fmt: skip
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9


def test_another_film_is_one_to_which_the_same_question_has_another_answer():
    batch = yes_no_batch(target=("yes", "no", "No", "no"))
    other = AnotherFilm()(batch)
    assert other.media_rows == [(1,), (0,), (0,), (0,)]
    asked = asking(batch, prompt=["a cat?", "a dog?", "a cat?", "a bin?"], target=batch.target)
    assert AnotherFilm()(asked).media_rows == [(2,), (1,), (0,), (3,)]
    backbone = tiny_backbone("alignment=none")
    assert pairs_of(backbone, asked, {}, AnotherFilm()).film_rows == [0, 2]
    same = yes_no_batch(target=("yes",) * 4)
    assert pairs_of(backbone, same, {}, AnotherFilm()).other is None


def test_a_film_is_preferred_to_its_own_twin_where_it_has_one():
    batch = replace(yes_no_batch(), twin_rows=[3, None, None, 0])
    assert OwnTwin()(batch).media_rows == [(3,), (1,), (2,), (0,)]
    backbone = tiny_backbone("alignment=none").eval()
    pairs = pairs_of(backbone, batch, {}, OwnTwin())
    assert pairs.film_rows == [0, 3]
    asked = replace(batch, twin_rows=None, media_rows=[(3,), (1,), (2,), (0,)])
    alone = PairScores(backbone)(pairs_of(backbone, asked, {}, None)).chosen
    torch.testing.assert_close(PairScores(backbone)(pairs).other, alone[[0, 3]])
    some = batch.rows([3, 1])  # which show films 3 and 1; 0 comes along as a twin
    assert (some.twin_rows, some.media_rows) == ([2, None], [(0,), (1,)])
    torch.testing.assert_close(some.frames, batch.frames[[3, 1, 0]])


def test_twins_that_no_item_brings_along_are_asked_for():
    with pytest.raises(ConfigError, match=r"set data\.counterfactual=true data\.twin_films=true"):
        build(film_weight=1.0, film_view=OwnTwin()).losses(yes_no_batch())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("answer", {}),
        (
            "film",
            {"beta": 1.0, "answer_weight": 0.0, "film_weight": 1.0, "film_view": AnotherFilm()},
        ),
    ],
)
def test_a_few_films_are_learned_from_pairs_of_either_kind(kind, settings):
    stage = build(**settings)
    batch = yes_no_batch()
    light = torch.tensor([1, 0, 1, 0], dtype=torch.uint8)[:, None, None, None, None]
    batch = replace(batch, frames=batch.frames * light) if kind == "film" else batch
    fitted = trainer(max_epochs=25)
    fitted.fit(stage, loader([batch]))
    assert fitted.callback_metrics[f"train/{kind}_right"] == 1.0
    assert fitted.callback_metrics[f"train/{kind}_margin"] > 0.1
    shown = (batch, AnotherFilm()(batch))
    own, other = (stage.eval().backbone.rank(seen, ["yes", "no"]) for seen in shown)
    true = torch.tensor([0, 1, 0, 1])[:, None]
    gained = (own - other).gather(1, true)  # by the film, over one of which the answer is false
    if kind == "answer":
        gained = gained - (own - other).gather(1, 1 - true)
    assert (gained > 0).all()


def test_a_resumed_run_keeps_the_reference_of_the_run_that_was_stopped(tmp_path):
    batches = [yes_no_batch(seed) for seed in range(3)]
    whole = build()
    trainer(max_epochs=2).fit(whole, loader(batches))
    cut = build()
    first = trainer(max_epochs=2, callbacks=[StopAtBatch(3)])
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        first.fit(cut, loader(batches))
    first.save_checkpoint(tmp_path / "cut.ckpt")
    resumed = build()
    path = str(tmp_path / "cut.ckpt")
    trainer(max_epochs=2).fit(resumed, loader(batches), ckpt_path=path, weights_only=True)
    for name, start in whole.reference.weights.items():
        assert torch.equal(resumed.reference.weights[name], start)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_items_without_a_false_answer_count_for_films_and_text_alone():
    some = build(items=items(yes_no_batch())[:2]).eval()
    batch = yes_no_batch()
    alone = moved(some).losses(batch)
    torch.testing.assert_close(alone["loss"], some.losses(batch.rows([0, 1]))["loss"])
    some.film_weight, some.film_view = 1.0, Shuffle()
    beside = some.losses(batch)
    torch.testing.assert_close(beside["answer_pairs"], alone["answer_pairs"])
    assert "answer_pairs" not in some.losses(batch.rows([2, 3]))
    some.film_weight = 0.0
    assert some.losses(batch.rows([2, 3]))["loss"] == 0


def test_the_last_answer_of_a_conversation_alone_is_preferred():
    stage, batch = build().eval(), yes_no_batch()
    once = batch.rows([0])
    [talk] = once.conversations
    asked = talk.asked.answered("a long answer", learned=True)
    again = replace(talk.turns[0], parts=("and a cat?",))
    turns = (*asked.turns, again, talk.turns[1])
    longer = replace(once, conversations=[replace(talk, turns=turns)])
    scores = PairScores(stage.backbone)(pairs_of(stage.backbone, longer, FALSE, None))
    assert scores.tokens.tolist() == [stage.backbone.llm.answer_length("yes")]


def test_alignment_goes_on_beside_pairs():
    backbone = tiny_backbone("alignment=symmetric", "aligned_frames=first_last")
    stage = build(backbone, align_weight=0.5).eval()
    batch = yes_no_batch()
    found, plain = stage.losses(batch), build(backbone).eval().losses(batch)
    aligned = backbone(batch, answer=False)
    assert aligned
    torch.testing.assert_close(found["loss"], plain["loss"] + 0.5 * sum(aligned.values()))


def test_a_test_answers_as_stage_two_does():
    answered = []
    for stage in (build(), FineTune(tiny_backbone("alignment=none"), RECIPE, tasks=["qa"])):
        trainer().test(stage, loader([yes_no_batch()]), verbose=False)
        answered.append(list(stage.predictions.read()))
    assert answered[0] == answered[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0}, r"stage\.beta must be above 0"),
        ({"answer_weight": -1}, r"stage\.answer_weight must be at least 0"),
        ({"answer_weight": 0}, r"both 0, so that nothing is preferred"),
        ({"film_weight": 1}, r"there is no stage\.film_view"),
        (
            {"false_answers": "nowhere.jsonl"},
            r"stage\.false_answers: nowhere\.jsonl does not exist",
        ),
        ({"num_beams": 0}, r"stage\.num_beams must be at least 1"),
    ],
)
def test_settings_that_prefer_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(**settings)


def test_training_without_any_false_answer_is_refused():
    batch = yes_no_batch(target=("a cat", "a dog", "a bin", "a lamp"))
    told = [item for item in items(batch) if item.item_id == "i0"]
    with pytest.raises(ConfigError, match=r"none of the 1 items of training has a false answer"):
        build(items=told)
    assert build(items=told, answer_weight=0, film_weight=1, film_view=NoFilm())
    assert build(items=()).false_answers == {}  # of a test
