import os
import wave
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import torch

from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.data import sound_track as sounding
from mmavlm.data.probe import probe
from mmavlm.data.sound import SoundSource

# Container and codec, and how far its encoder may move or smear a sound, in seconds.
CODECS = {
    "sound.wav": ("pcm_s16le", 0.0),
    "sound.flac": ("flac", 0.0),
    "sound.mp3": ("libmp3lame", 0.03),
    "sound.ogg": ("libopus", 0.01),
    "sound.m4a": ("aac", 0.03),
    "sound.mp4": ("aac", 0.03),
    "sound.mkv": ("pcm_s16le", 0.001),
    "sound.webm": ("libopus", 0.01),
    "sound.ts": ("aac", 0.03),
}
FORMATS = {"libmp3lame": "fltp", "aac": "fltp", "libopus": "flt"}


def write(path, samples, rate=48_000, *, codec="pcm_s16le", start_s=0.0, film_s=0.0, fps=10):
    """A file with `samples` (C,n) from `start_s` on, and a grey film of `film_s` if any."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    with av.open(str(path), "w") as file:
        film = file.add_stream("libx264", rate=fps, options={"threads": "1"}) if film_s else None
        stream = file.add_stream(codec, rate=rate, layout=layout)
        stream.format = FORMATS.get(codec, "s16")
        if film is not None:
            film.width, film.height, film.pix_fmt = 32, 32, "yuv420p"
            for number in range(round(film_s * fps)):
                grey = np.full((32, 32, 3), 100, np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                file.mux(film.encode(frame))
            file.mux(film.encode())
        planes = np.ascontiguousarray(samples, np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, round(start_s * rate)
        frame.time_base = Fraction(1, rate)
        resampler = av.AudioResampler(stream.format.name, layout, rate, stream.frame_size or 1024)
        for given in (frame, None):
            for part in resampler.resample(given):
                file.mux(stream.encode(part))
        file.mux(stream.encode())
    return path


def tone(hz, seconds, rate=48_000):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)[None]


def loudest_hz(clip, rate):
    return (
        float(np.abs(np.fft.rfft(clip.numpy() * np.hanning(len(clip)))).argmax()) * rate / len(clip)
    )


@pytest.mark.parametrize("name", CODECS)
def test_a_tone_is_found_again_in_every_clip(tmp_path, name):
    path = write(tmp_path / name, tone(1000, 6), codec=CODECS[name][0])
    source = SoundSource(path)
    found = source.clips(4, 1.0)
    assert found.clips.shape == (4, 16_000)
    assert found.mask.all()
    assert source.duration_s == pytest.approx(6, abs=0.1)
    for clip in found.clips:
        assert loudest_hz(clip, 16_000) == pytest.approx(1000, abs=1)
        middle = clip[2000:-2000]  # encoders fade in and out
        assert middle.abs().max() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("name", CODECS)
def test_a_click_lands_where_it_was(tmp_path, name):
    codec, slack_s = CODECS[name]
    samples = np.zeros((1, 8 * 48_000))
    clicks_s = (0.6, 3.25, 6.9)
    for at_s in clicks_s:
        samples[0, round(at_s * 48_000) :][:24] = 0.9
    path = write(tmp_path / name, samples, codec=codec)
    found = SoundSource(path).clips(7, 2.0, end_s=8.0)
    heard = 0
    for clip, start_s in zip(found.clips, found.times_s.tolist(), strict=True):
        for at_s in clicks_s:
            if start_s + 0.1 < at_s < start_s + 1.9:
                near = clip[round((at_s - start_s - 0.1) * 16_000) :][:3200]
                where_s = at_s - 0.1 + int((near.abs() > 0.3).nonzero()[0]) / 16_000
                assert where_s == pytest.approx(at_s, abs=slack_s + 1 / 16_000)
                heard += 1
    assert heard >= 3


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
@pytest.mark.parametrize("codec", ["pcm_s16le", "flac"])
def test_clips_are_slices_of_the_sound_resampled_as_a_whole(tmp_path, rate, codec):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 7 * rate))
    path = write(
        tmp_path / f"sound.{'wav' if codec[0] == 'p' else codec}", noise, rate, codec=codec
    )
    source = SoundSource(path)
    whole = source.clips(1, 7.0).clips[0]
    for clip, at_s in zip(*source.clips(5, 1.0)[:2], strict=True):
        begin = round(float(at_s) * 16_000)
        torch.testing.assert_close(clip[800:-800], whole[begin:][: len(clip)][800:-800])
    resampler = av.AudioResampler("fltp", "mono", 16_000)
    with av.open(str(path)) as file:
        frames = [*file.decode(audio=0), None]
        parts = [p.to_ndarray()[0] for f in frames for p in resampler.resample(f)]
    expected = torch.from_numpy(np.concatenate(parts))[: len(whole)]
    torch.testing.assert_close(whole[800:110_000], expected[800:110_000], atol=2e-3, rtol=0)


def test_clips_reach_from_the_start_of_a_stretch_to_its_end(tmp_path):
    source = SoundSource(write(tmp_path / "sound.wav", tone(300, 9)))
    times_s = source.clips(8, 2.0, 1.0, 8.5).times_s
    assert times_s[0] == 1.0
    assert times_s[-1] + 2.0 == 8.5
    assert torch.allclose(times_s.diff(), torch.tensor(5.5 / 7, dtype=torch.float64))
    assert source.clips(1, 2.0, 1.0, 8.0).times_s.tolist() == [3.5]
    assert source.clips(2, 2.0).times_s.tolist() == [0.0, 7.0]


@pytest.mark.parametrize("length_s", [0.5, 2.0])
def test_a_sound_no_longer_than_a_clip_gives_one_with_silence_behind(tmp_path, length_s):
    found = SoundSource(write(tmp_path / "sound.wav", tone(300, length_s))).clips(4, 2.0)
    assert found.mask.tolist() == [True, False, False, False]
    end = round(length_s * 16_000)
    assert found.clips[0, : end - 50].abs().max() > 0.4
    assert not found.clips[0, end:].any()
    assert not found.clips[1:].any()


def test_what_lies_behind_a_stretch_is_not_heard(tmp_path):
    found = SoundSource(write(tmp_path / "sound.wav", tone(300, 5))).clips(3, 2.0, 1.0, 1.5)
    assert found.mask.tolist() == [True, False, False]
    assert found.times_s[0] == 1.0
    assert found.clips[0, :8000].any()
    assert not found.clips[0, 8000:].any()


def test_a_stretch_behind_the_sound_has_no_clips(tmp_path):
    found = SoundSource(write(tmp_path / "sound.wav", tone(300, 3))).clips(2, 2.0, 5.0, 9.0)
    assert not found.mask.any()
    assert not found.clips.any()


@pytest.mark.parametrize("channels", [2, 6])
def test_all_channels_are_mixed(tmp_path, channels):
    samples = np.zeros((channels, 2 * 48_000))
    samples[-1] = tone(700, 2)[0]
    found = SoundSource(write(tmp_path / "sound.wav", samples)).clips(1, 2.0)
    assert loudest_hz(found.clips[0], 16_000) == pytest.approx(700, abs=1)
    assert found.clips[0, 1000:-1000].abs().max() == pytest.approx(0.5 / channels, abs=1e-3)


def test_channels_of_opposite_sign_cancel(tmp_path):
    left = tone(500, 1)[0]
    found = SoundSource(write(tmp_path / "sound.wav", np.stack([left, -left]))).clips(1, 1.0)
    assert found.clips.abs().max() < 1e-4


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4"])
def test_a_track_that_starts_late_is_silent_before(tmp_path, name):
    codec = "pcm_s16le" if name.endswith("mkv") else "aac"
    path = write(tmp_path / name, tone(400, 4), codec=codec, start_s=2.0, film_s=6.0)
    source = SoundSource(path)
    assert source.duration_s == pytest.approx(6.0, abs=0.05)
    clip = source.clips(1, 6.0, 0.0, 6.0).clips[0]
    assert clip[: round(1.9 * 16_000)].abs().max() < 1e-3
    begins = int((clip.abs() > 0.1).nonzero()[0]) / 16_000
    assert begins == pytest.approx(2.0, abs=0.03)
    middle = source.clips(2, 1.0, 1.5, 4.0).clips[0]
    assert not middle[:7000].any()
    assert middle[10_000:].abs().max() > 0.4


def test_seconds_count_from_the_first_frame_of_the_film(tmp_path):
    path = write(tmp_path / "film.ts", tone(400, 3), codec="aac", start_s=1.0, film_s=4.0)
    info = probe(path)
    assert info.start_pts * info.tick_s > 0.1, "the film must not start at 0"
    assert SoundSource(path).track.zero_s == pytest.approx(info.start_pts * info.tick_s)
    clip = SoundSource(path).clips(1, 4.0, 0.0, 4.0).clips[0]
    assert int((clip.abs() > 0.1).nonzero()[0]) / 16_000 == pytest.approx(1.0, abs=0.04)


def test_a_film_without_sound_gives_no_clips(make_clip):
    source = SoundSource(make_clip())
    assert not source.has_sound
    assert source.duration_s == 0
    found = source.clips(3, 1.0)
    assert found.clips.shape == (3, 16_000)
    assert not found.mask.any()
    assert not found.clips.any()


def test_a_folder_of_frames_has_no_sound(tmp_path):
    assert not SoundSource(tmp_path).has_sound


def test_a_file_of_no_samples_has_no_sound(tmp_path):
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    assert not SoundSource(path).has_sound


def test_files_that_are_no_sound_are_named(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound at all " * 100)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nother.wav\n")
    for name in ("missing.wav", "empty.wav", "text.wav", "list.m3u8"):
        with pytest.raises(VideoError, match=name):
            SoundSource(tmp_path / name).clips()


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("name", ["sound.wav", "sound.flac", "sound.m4a", "sound.mkv"])
def test_a_file_that_is_cut_off_is_refused(tmp_path, name, share):
    path = write(tmp_path / name, tone(300, 10), codec=CODECS[name][0])
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(VideoError, match=name):
        SoundSource(path).clips()


def test_a_header_without_its_samples_is_refused(tmp_path):
    path = write(tmp_path / "sound.wav", tone(300, 10))
    os.truncate(path, 100)
    with pytest.raises(VideoError, match=r"sound.wav"):
        SoundSource(path).clips()


def test_damage_in_a_clip_is_named_and_damage_elsewhere_does_not_matter(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 10 * 48_000))
    path = write(tmp_path / "sound.flac", noise, codec="flac")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40_000] = bytes(40_000)
    path.write_bytes(data)
    source = SoundSource(path)
    assert source.clips(1, 1.0, 1.0, 2.0).mask.all()
    with pytest.raises(VideoError, match=r"sound.flac"):
        source.clips(1, 2.0, 4.0, 6.0)


def test_a_rate_that_no_sound_has_is_refused(tmp_path):
    path = write(tmp_path / "sound.wav", tone(300, 1))
    data = bytearray(path.read_bytes())
    data[24:28] = (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"2000000000 samples a second"):
        SoundSource(path).clips()


def test_settings_that_make_no_clip_are_refused(tmp_path):
    path = write(tmp_path / "sound.wav", tone(300, 1))
    with pytest.raises(ConfigError, match=r"rate_hz is 0"):
        SoundSource(path, 0)
    with pytest.raises(ConfigError, match=r"0 clips"):
        SoundSource(path).clips(0)
    with pytest.raises(ConfigError, match=r"1e-06 s"):
        SoundSource(path).clips(1, 1e-6)
    with pytest.raises(ValueError, match=r"from 3 s to 2 s"):
        SoundSource(path).clips(1, 1.0, 3, 2)


@pytest.mark.parametrize("name", ["sound.wav", "sound.m4a", "sound.mkv", "sound.ogg", "sound.mp3"])
def test_only_what_the_clips_need_is_decoded(tmp_path, name, monkeypatch):
    path = write(tmp_path / name, tone(300, 60, 16_000), 16_000, codec=CODECS[name][0])
    source = SoundSource(path)
    assert source.has_sound
    decoded_s = []
    mono = sounding._mono

    def counted(path, frame):
        decoded_s.append(frame.samples / frame.sample_rate)
        return mono(path, frame)

    monkeypatch.setattr(sounding, "_mono", counted)
    source.clips(4, 1.0)
    assert sum(decoded_s) < 4 * (1.0 + 2 * sounding.PREROLL_S)


def test_times_without_leaps_join_without_gaps(tmp_path):
    """Matroska rounds times to 1 ms, which is 48 samples."""
    path = write(tmp_path / "sound.mkv", tone(440, 4))
    clip = SoundSource(path, 48_000).clips(1, 4.0).clips[0, :-48].numpy()
    np.testing.assert_allclose(clip, tone(440, 4)[0][:-48], atol=1e-4)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["video/dog_barking.mp4", "video/cooking_70s.mp4", "audio/car.wav"]
)
def test_real_sounds_are_as_long_as_what_decodes(real_data, name):
    source = SoundSource(real_data / name, 44_100)
    with av.open(str(real_data / name)) as file:
        frames = list(file.decode(audio=0))
        total = sum(frame.samples for frame in frames)
    assert round(source.duration_s * frames[0].sample_rate) == total
    whole = np.concatenate([sounding._mono(source.path, frame) for frame in frames])
    found = source.clips(8, 2.0)
    assert found.mask.all()
    for clip, at_s in zip(found.clips, found.times_s.tolist(), strict=True):
        expected = whole[round(at_s * 44_100) :][: len(clip)]
        # AAC may put noise of its own in place of the film's, other noise after a seek
        assert np.corrcoef(clip[: len(expected)], expected)[0, 1] > 0.999
    assert all(a < b for a, b in pairwise(found.times_s.tolist()))


@pytest.mark.real_data
def test_a_real_film_without_sound_has_no_clips(real_data):
    assert not SoundSource(real_data / "video/birthday_no_audio.mp4").clips().mask.any()
