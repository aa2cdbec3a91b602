"""Films and sounds in one model: what is heard stands where a conversation lets it be heard."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.interfaces import Answer
from mmavlm.core.medium import Medium
from mmavlm.core.turns import Shown, Turn
from mmavlm.metrics import Prediction
from mmavlm.model.explain import explain
from mmavlm.stages import OptimizerRecipe, SemanticAlignment
from mmavlm.stages.predictions import PredictionLog
from support import asking, random_batch, rows_of, tiny_backbone

ANSWERS = ["comedy", "a long answer"]


def medium(name, kind):
    return Medium(medium_id=name, source=Path(name), kind=kind)


def joint(batch, real=(3, 0)):
    """The films of a batch with a sound in front of each, of so many real clips."""
    talks = [
        Conversation(
            (
                Turn("user", (Shown(1), "this is heard. ", Shown(0), talk.prompt)),
                Turn("assistant", (talk.target,), learned=True),
            ),
            (*talk.media, medium("sound", "sound")),
        )
        for talk in batch.conversations
    ]
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(3) < torch.tensor(real)[:, None]
    clips = torch.randn(len(batch), 3, 32_000, generator=generator).clamp(-1, 1)
    return replace(
        batch,
        conversations=talks,
        media_rows=[(row, row) for row in range(len(batch))],
        clips=clips * mask[:, :, None],
        clip_mask=mask,
    )


@pytest.fixture(scope="module")
def model():
    return tiny_backbone("sound=clip_qformer", "alignment=none").eval()


@torch.no_grad()
def test_tokens_stand_in_the_order_of_the_conversation(model):
    media = model.media_tokens(joint(random_batch((4, 2)), real=(3, 1)))
    assert media.views == [2, 2]
    assert media.tokens.shape[0] == 4
    assert media.mask.sum(1).tolist() == [8, 8, 8, 8]
    films = random_batch((4, 2))
    alone = model.media_tokens(asking(films, prompt=[f"this is heard. {p}" for p in films.prompt]))
    torch.testing.assert_close(media.tokens[1::2, :8], alone.tokens)


@torch.no_grad()
def test_a_film_without_sound_is_asked_as_if_nothing_were_heard(model):
    batch = joint(random_batch((4, 4)), real=(3, 0))
    silent = [
        replace(talk, turns=(Turn("user", ("this is heard. ", Shown(0), talk.prompt[15:])),
                             talk.turns[1]), media=talk.media[:1])
        for talk in batch.conversations
    ]  # fmt: skip
    without = replace(batch, conversations=silent, media_rows=[(0,), (1,)], clips=None,
                      clip_mask=None)  # fmt: skip
    heard, unheard = model.rank(batch, ANSWERS), model.rank(without, ANSWERS)
    assert (heard[0] - unheard[0]).abs().max() > 1e-4
    # the guide is the same text, so the film gives the same tokens
    torch.testing.assert_close(heard[1], unheard[1], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_each_row_is_answered_as_if_alone(model):
    batch = joint(random_batch((4, 2)), real=(3, 1))
    together = model.rank(batch, ANSWERS)
    for row in (0, 1):
        alone = replace(rows_of(batch, row), clips=batch.clips[row : row + 1],
                        clip_mask=batch.clip_mask[row : row + 1])  # fmt: skip
        torch.testing.assert_close(
            model.rank(alone, ANSWERS), together[row : row + 1], atol=1e-4, rtol=1e-4
        )


def test_what_is_heard_gets_gradient_and_the_encoder_none():
    model = tiny_backbone("sound=clip_qformer", "alignment=none").train()
    model(joint(random_batch((4, 2))))["text"].backward()
    for part in (model.sound.temporal, model.sound.projector, model.vision.temporal):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    assert all(p.grad is None for p in model.sound.encoder.parameters())
    assert not model.sound.encoder.training


def test_rows_of_a_batch_take_their_sounds_with_them():
    batch = joint(random_batch((4, 2)), real=(3, 1))
    second = batch.rows([1])
    assert torch.equal(second.clips[0], batch.clips[1])
    assert torch.equal(second.frames[0], batch.frames[1])
    assert second.media_rows == [(0, 0)]
    assert random_batch((4, 2)).rows([1]).film_of(0) == 0


def test_a_film_that_is_heard_is_explained_by_no_film_alone(model):
    batch = joint(random_batch((4, 2)))
    assert batch.film_of(0) is None
    with pytest.raises(ConfigError, match="of one question about one film"):
        explain(model, batch, ["comedy", "comedy"], stretches=2)


def test_the_frames_that_are_kept_are_those_of_the_film_and_not_of_the_sound():
    batch = joint(random_batch((4, 4)))
    talks = [
        Conversation(
            (Turn("user", (Shown(0), Shown(1), talk.prompt)), talk.turns[1]), talk.media[::-1]
        )
        for talk in batch.conversations
    ]
    batch = replace(batch, conversations=talks, media_rows=[(1, 0), (0, 1)])
    log = PredictionLog()
    log.extend([Prediction.of(batch, row, [Answer("no", -1.0)], []) for row in (0, 1)], batch)
    for row, film in ((0, 0), (1, 1)):
        kept = torch.stack([torch.from_numpy(f) for f in log.frames[batch.item_id[row]]])
        assert torch.equal(kept, batch.frames[film].permute(0, 2, 3, 1))


@pytest.mark.parametrize("talk", [Conversation.question(None, "who?", "he"), None])
def test_stage_one_names_the_item_that_is_not_about_one_film(talk):
    batch = joint(random_batch((4, 2)))
    if talk is not None:
        batch = replace(batch, conversations=[talk] * 2, media_rows=[(), ()])
    stage = SemanticAlignment(tiny_backbone("stage=semantic_alignment"), OptimizerRecipe())
    with pytest.raises(DataError, match=r"item i0 .* one film"):
        stage.losses(batch)


def test_a_model_that_hears_nothing_says_so():
    with pytest.raises(ConfigError, match=r"no branch for it; choose sound=clip_qformer"):
        tiny_backbone("alignment=none")(joint(random_batch((4, 2))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"media_rows": [(0, 0), (1, 2)]}, r"rows \(1, 2\) of 2 films and 2 sounds"),
        ({"clip_mask": torch.ones(2, 2).bool()}, r"clips must be \(A,S,N\) and clip_mask"),
        ({"clips": None}, r"rows \(0, 0\) of 2 films and 0 sounds"),
    ],
)
def test_what_does_not_fit_together_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(joint(random_batch((4, 2))), **changes)
