from dataclasses import replace

import pytest
import torch
from hydra.utils import instantiate

from mmavlm.core.contrast import Contrast
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.generation import Generation
from mmavlm.core.medium import Medium
from mmavlm.model.contrast_views import NoFilm, Noise, Shuffle, Thin, alpha_bar
from support import composed, random_batch, rows_of, tiny_backbone

OPTIONS = ["comedy", "a long answer", "drama"]
VIEWS = {"no_film": NoFilm, "noise": Noise, "shuffle": Shuffle, "thin": Thin}


@pytest.fixture(scope="module")
def model():
    return tiny_backbone().eval()


def featured(model, batch):
    return replace(batch, frames=None, features=model.vision.encode(batch.frames))


@pytest.mark.parametrize("name", VIEWS)
def test_each_view_is_a_choice_of_the_group_contrast(name):
    contrast = instantiate(composed(f"contrast={name}", "contrast.alpha=2").stage.contrast)
    assert contrast == Contrast(view=VIEWS[name](), alpha=2.0, beta=0.1)


def test_by_default_answers_are_decoded_from_what_is_shown_alone():
    assert composed().stage.contrast is None


@pytest.mark.parametrize("name", VIEWS)
@torch.no_grad()
def test_each_row_of_a_batch_is_answered_as_if_alone(model, name):
    batch, contrast = random_batch((7, 3)), Contrast(view=VIEWS[name]())
    one_by_one = [rows_of(batch, row) for row in (0, 1)]
    together = model.rank(batch, OPTIONS, contrast)
    alone = torch.cat([model.rank(row, OPTIONS, contrast) for row in one_by_one])
    torch.testing.assert_close(together, alone, atol=5e-3, rtol=1e-4)
    settings = Generation(num_beams=3, max_new_tokens=4)
    said = [[a.text for a in row] for row in model.generate(batch, settings, contrast)]
    assert said == [
        [a.text for a in model.generate(row, settings, contrast)[0]] for row in one_by_one
    ]


@pytest.mark.parametrize("name", VIEWS)
@torch.no_grad()
def test_each_view_shows_something_else(model, name):
    media, against = model.seen(random_batch((7, 5)), Contrast(view=VIEWS[name]()))
    assert not torch.equal(media.tokens, against.media.tokens)


@pytest.mark.parametrize("name", ["no_film", "shuffle", "thin"])
@torch.no_grad()
def test_features_of_the_cache_serve_as_frames_do(model, name):
    batch, contrast = random_batch((7, 3)), Contrast(view=VIEWS[name](), beta=0.0)
    found = model.rank(featured(model, batch), OPTIONS, contrast)
    torch.testing.assert_close(found, model.rank(batch, OPTIONS, contrast))


@torch.no_grad()
def test_frames_that_both_views_have_are_encoded_once(model, monkeypatch):
    batch, encoded, encode = random_batch((7, 3)), [], model.vision.encode
    monkeypatch.setattr(
        model.vision, "encode", lambda frames: encoded.append(len(frames)) or encode(frames)
    )
    model.rank(batch, OPTIONS, Contrast(view=Shuffle()))
    assert encoded == [2]
    model.rank(batch, OPTIONS, Contrast(view=Noise()))
    assert encoded == [2, 2, 2], "noised frames are others"


def test_without_film_the_words_are_left_and_nothing_is_shown_or_heard():
    batch = random_batch()
    other = NoFilm()(batch)
    assert other.prompt == batch.prompt
    assert not other.views.films
    assert other.frames is other.features is other.clips is None


def test_a_question_without_words_cannot_be_asked_without_its_film():
    batch = random_batch()
    film = Medium(medium_id="film", source=batch.conversations[0].media[0].source)
    talks = [Conversation.question(film, ""), batch.conversations[1]]
    with pytest.raises(DataError, match=r"asks with what it shows alone.*give it a prompt"):
        NoFilm()(replace(batch, conversations=talks))


@pytest.mark.parametrize("view", [Shuffle(), Thin(every=2)])
def test_padding_stays_behind_the_real_frames(view):
    batch = random_batch((6, 3))
    other = view(batch)
    assert torch.equal(other.frames[1, 3:], batch.frames[1, 3:])
    assert torch.equal(other.frame_mask, batch.frame_mask)
    assert torch.equal(other.timestamps_s, batch.timestamps_s)


@pytest.mark.parametrize("seed", range(8))
def test_a_shuffled_film_has_the_same_frames_in_another_order(seed):
    batch = random_batch((6, 2))
    first, second = Shuffle(seed)(batch).frames, Shuffle(seed)(batch).frames
    assert torch.equal(first, second)
    for row, count in enumerate((6, 2)):
        old, new = (list(map(torch.Tensor.tolist, f[row, :count])) for f in (batch.frames, first))
        assert new != old
        assert sorted(new) == sorted(old)


def test_a_thinned_film_stands_still_until_the_next_frame_that_is_kept():
    batch = random_batch((7,), targets=("comedy",))
    kept = batch.frames[:, [0, 0, 0, 3, 3, 3, 6]]
    assert torch.equal(Thin(every=3)(batch).frames, kept)


def test_noise_has_the_mean_and_variance_of_the_diffusion():
    grey = torch.full((1, 2, 3, 64, 64), 140, dtype=torch.uint8)
    batch = replace(random_batch((2,), targets=("comedy",)), frames=grey)
    kept = 1.0
    for step in range(20):  # as it stands in the published code
        sigmoid = 1 / (1 + 2.718281828459045 ** -(-6 + 12 * step / 999))
        kept *= 1 - (1e-5 + (0.5e-2 - 1e-5) * sigmoid)
    noised = Noise(steps=20)(batch).frames.float() / 127.5 - 1
    assert noised.mean().item() == pytest.approx(kept**0.5 * (140 / 127.5 - 1), abs=2e-3)
    assert noised.std().item() == pytest.approx((1 - kept) ** 0.5, rel=0.05)
    assert not torch.equal(noised[:, 0], noised[:, 1])
    left = alpha_bar()
    assert (left.diff() < 0).all(), "each step leaves less"


def test_noise_needs_frames(model):
    batch = featured(model, random_batch())
    with pytest.raises(ConfigError, match=r"contrast=noise needs frames.*leave out data.cache"):
        Noise()(batch)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Contrast(view=NoFilm(), alpha=-1), "contrast.alpha"),
        (lambda: Contrast(view=NoFilm(), beta=-0.1), "contrast.beta"),
        (lambda: Contrast(view=NoFilm(), beta=1.5), "contrast.beta"),
        (lambda: Noise(steps=0), "contrast.view.steps"),
        (lambda: Noise(steps=1001), "contrast.view.steps"),
        (lambda: Thin(every=1), "contrast.view.every"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(make, named):
    with pytest.raises(ConfigError, match=named):
        make()
