"""Features of sounds in the feature cache: what is kept, and runs that then decode no sound."""

import csv
import json
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmavlm import cache, train
from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import VideoError
from mmavlm.core.items import Item
from mmavlm.core.medium import Medium
from mmavlm.data.collate import collate
from mmavlm.data.dataset import BrokenItem, VideoDataset
from mmavlm.data.encoder_cards import EncoderCard, find_card, note_card
from mmavlm.data.feature_cache import MISSING, FeatureCache
from mmavlm.data.fill_cache import CacheFiller
from mmavlm.data.sound import ClipSettings, SoundSource
from mmavlm.data.sound_entries import CachedSounds, SoundPlan
from mmavlm.model.encoders import TinySoundEncoder
from support import SMALL, CountedSoundEncoder, tiny_backbone

CLIPS = ClipSettings(16_000, 3, 2.0)


def write_tone(path, hertz, length_s=7.0):
    tone = np.sin(2 * np.pi * hertz * np.arange(int(length_s * 8000)) / 8000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((tone * 20_000).astype("<i2").tobytes())
    return path


def sound(path, **stretch):
    return Medium(medium_id=path.name, source=path, kind="sound", **stretch)


@pytest.fixture
def media(tmp_path, make_clip):
    """A tone, a stretch of it, one shorter than a clip, and a film without sound."""
    tone = write_tone(tmp_path / "tone.wav", 440)
    short = write_tone(tmp_path / "short.wav", 900, 1.0)
    return [sound(tone), sound(tone, start_s=1.0, end_s=6.0), sound(short), sound(make_clip())]


def filled(folder, media, encoder=None, settings=CLIPS):
    """A cache that was filled with some sounds, what its dataset reads, and what was broken."""
    encoder = encoder or TinySoundEncoder()
    kept, plan, broken = (
        FeatureCache(folder, EncoderCard.of(encoder)),
        SoundPlan(media, settings),
        [],
    )
    with torch.no_grad():
        CacheFiller(kept, plan.entries).fill(encoder, broken.extend)
    return CachedSounds(kept, plan), broken


def dataset(media, sounds=None):
    items = [
        Item(
            item_id=str(number),
            conversation=Conversation.question(medium, "what is heard?", "a tone"),
            task="open",
        )
        for number, medium in enumerate(media)
    ]
    return VideoDataset(items, num_frames=1, image_size=32, clips=CLIPS, sounds=sounds)


@torch.no_grad()
def test_a_model_gives_the_loss_and_the_answers_of_one_that_decodes_and_encodes(tmp_path, media):
    model = tiny_backbone("sound=clip_qformer", "alignment=none").eval()
    cached, broken = filled(tmp_path / "cache", media, model.sound.encoder)
    decoded = collate([dataset(media)[row] for row in range(len(media))])
    looked_up = collate([dataset(media, cached)[row] for row in range(len(media))])
    assert not broken
    assert looked_up.clips is None
    assert looked_up.clip_mask.tolist() == decoded.clip_mask.tolist()
    assert looked_up.clip_mask.sum(1).tolist() == [3, 3, 1, 0]
    rounded = replace(decoded, clips=None, clip_features=model.sound.encode(decoded.clips).half())
    loss = model(looked_up)["text"]
    torch.testing.assert_close(loss, model(rounded)["text"], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(loss, model(decoded)["text"], atol=2e-3, rtol=2e-3)
    names = ["a tone", "a dog"]
    ranked = model.rank(looked_up, names)
    torch.testing.assert_close(ranked, model.rank(rounded, names), atol=1e-5, rtol=1e-5)
    for row in (0, 3):
        torch.testing.assert_close(
            model.rank(looked_up.rows([row]), names), ranked[row : row + 1], atol=1e-4, rtol=1e-4
        )


def test_other_clips_and_another_encoder_never_read_what_is_kept(tmp_path, media):
    cached, _ = filled(tmp_path / "cache", media)
    here = cached.cache
    assert [here.problem(entry) for entry in cached.plan.entries] == [None] * 4
    for settings in (
        CLIPS._replace(clips=2),
        CLIPS._replace(clip_s=1.0),
        CLIPS._replace(rate_hz=8000),
    ):
        entries = SoundPlan(media, settings).entries
        assert [here.problem(entry) for entry in entries] == [MISSING] * 4
    for encoder in (
        TinySoundEncoder(seed=1),
        TinySoundEncoder(1.0),
        TinySoundEncoder(rate_hz=8000),
    ):
        other = FeatureCache(here.root, EncoderCard.of(encoder))
        assert [other.problem(entry) for entry in cached.plan.entries] == [MISSING] * 4


def test_a_changed_sound_is_another_entry(tmp_path, media):
    cached, _ = filled(tmp_path / "cache", media)
    write_tone(media[0].source, 440, 8.0)
    problems = [cached.cache.problem(entry) for entry in SoundPlan(media, CLIPS).entries]
    assert problems == [MISSING, MISSING, None, None]


def test_a_sound_that_cannot_be_decoded_is_named_and_never_taken_for_silence(tmp_path, media):
    path = tmp_path / "broken.wav"
    path.write_bytes(media[0].source.read_bytes()[:20_000])
    both = [sound(path), media[0]]
    cached, broken = filled(tmp_path / "cache", both)
    assert len(broken) == 1
    assert "broken.wav" in broken[0]
    assert "cut off" in broken[0]
    with pytest.raises(VideoError, match=r"is gone from data\.cache"):
        cached.read(both[0])
    assert isinstance(dataset(both, cached)[0], BrokenItem)
    assert cached.read(both[1]).mask.all()


def test_a_damaged_entry_is_named_and_computed_again(tmp_path, media):
    cached, _ = filled(tmp_path / "cache", media)
    before = cached.read(media[0]).clips.clone()
    path = cached.cache.path(cached.plan.place(media[0]))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"tone\.wav.*checksum"):
        [cached.read(medium) for medium in media]
    path.unlink()
    again, _ = filled(tmp_path / "cache", media)
    assert torch.equal(again.read(media[0]).clips, before)


def test_a_card_of_sound_has_no_picture_size_and_is_none_of_pictures(tmp_path):
    card = EncoderCard.of(TinySoundEncoder())
    note_card(tmp_path, {"clip_s": 2.0}, card)
    assert not card.of_pictures
    assert find_card(tmp_path, {"clip_s": 2.0}, of_pictures=False) == card
    assert find_card(tmp_path, {"clip_s": 2.0}) is None


def test_a_model_that_hears_needs_no_sounds_in_a_set(tmp_path):
    assert not SoundPlan([], CLIPS).entries
    assert not SoundPlan([sound(tmp_path / "a.wav")], None).entries


@pytest.fixture
def captioned(tmp_path, make_clip):
    """Captioned tones, and a film without sound."""
    root = tmp_path / "data"
    (root / "sounds").mkdir(parents=True)
    rows = [
        {"sound": write_tone(root / f"{n}.wav", 200 + 900 * (n % 2), 3.0).name, "caption": word}
        for n, word in enumerate(["a low tone", "a high tone"] * 2)
    ]
    make_clip("data/silent.mp4")
    rows.append({"sound": "silent.mp4", "caption": "nothing"})
    for split in ("train", "val", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / "sounds" / f"{split}.jsonl").write_text(text)
    return root


def losses(folder):
    with (folder / "csv/metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.slow
def test_training_from_the_cache_needs_no_encoder_of_sound_and_decodes_none(
    run, captioned, tmp_path, monkeypatch, capsys
):
    common = ["experiment=video_llama_audio_pretrain", *SMALL, "data.batch_size=2",
              "sound_encoder=tiny", "sound_encoder._target_=support.CountedSoundEncoder",
              f"data.root={captioned}", "data.crop=false", "data.flip=false"]  # fmt: skip
    fit = ["test=false", "trainer.log_every_n_steps=1", "optimizer.warmup_steps=0",
           "stage.num_beams=1", "stage.num_answers=1", "stage.max_new_tokens=2"]  # fmt: skip
    assert run(train, *common, *fit, "hydra.run.dir=without") == 0
    CountedSoundEncoder.built = 0
    assert run(cache, *common, "data.cache=cache") == 0
    assert CountedSoundEncoder.built == 1
    assert "5 entries of sound, 0 present, 5 missing" in capsys.readouterr().out

    def refuse(*_):
        raise AssertionError("a sound was decoded")

    monkeypatch.setattr(SoundSource, "clips", refuse)
    assert run(train, *common, *fit, "data.cache=cache", "hydra.run.dir=from") == 0
    assert CountedSoundEncoder.built == 1
    without, cached = losses(tmp_path / "without"), losses(tmp_path / "from")
    assert len(without) == 3
    assert without[0] != without[-1]
    assert cached == pytest.approx(without, rel=2e-3)
    assert run(cache, *common, "data.cache=cache", "write=false", "clips.clips=2") == 0
    assert "5 entries of sound, 0 present, 5 missing" in capsys.readouterr().out
