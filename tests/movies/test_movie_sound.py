import hashlib
import json
from collections import Counter

import av
import numpy as np
import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.data.sound import SoundSource
from mmavlm.movies import Movie, MovieSetParameters, ensure_movie_set, plan_movies
from mmavlm.movies.__main__ import main
from mmavlm.movies.labels import TASKS
from mmavlm.movies.sound import ALARMS, RATE_HZ, alarm_of, soundtrack

SMALL = {"clips": 6, "duration_s": 4, "fps": 5, "size": 32}
PLANNED = [movie for _, movie in plan_movies(MovieSetParameters(clips=60, duration_s=6))]


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    return ensure_movie_set(tmp_path_factory.mktemp("heard"), **SMALL, sound=True)


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    return ensure_movie_set(tmp_path_factory.mktemp("silent"), **SMALL)


def films(root):
    return sorted((root / "lvu/videos").glob("*.mp4"))


def script(root, film):
    return Movie.from_dict(json.loads((root / f"lvu/script/{film.stem}.json").read_text()))


def questions(root, task):
    rows = [
        json.loads(line)
        for split in ("train", "val", "test")
        for line in (root / f"sound/{split}.jsonl").read_text().splitlines()
    ]
    return {row["video"]: row["answer"] for row in rows if row["task"] == task}


def packets(path):
    with av.open(str(path)) as file:
        return [hashlib.sha256(bytes(p)).hexdigest() for p in file.demux(video=0) if p.size]


def test_a_set_without_sound_knows_nothing_of_it(silent):
    assert not (silent / "sound").exists()
    for name in ("parameters.json", "manifest.json"):
        assert "sound" not in json.loads((silent / name).read_text())
    assert not SoundSource(films(silent)[0]).has_sound


def test_pictures_and_annotations_are_those_of_the_set_without_sound(heard, silent):
    assert [packets(film) for film in films(heard)] == [packets(film) for film in films(silent)]
    for folder in ("lvu/annotation", "lvu/script", "captions", "cuts"):
        for file in sorted((silent / folder).iterdir()):
            assert (heard / folder / file.name).read_bytes() == file.read_bytes()


def test_a_set_with_sound_is_equal_byte_for_byte_whatever_the_workers(heard, tmp_path):
    again = ensure_movie_set(tmp_path / "again", **SMALL, sound=True, workers=2)
    for file in (f for f in heard.rglob("*") if f.is_file()):
        assert (again / file.relative_to(heard)).read_bytes() == file.read_bytes()


def test_the_track_of_a_film_is_the_sound_of_its_script(heard):
    alarms = questions(heard, "heard")
    for film in films(heard):
        expected = soundtrack(script(heard, film), alarms[f"lvu/videos/{film.name}"]) / 32768
        found = SoundSource(film, RATE_HZ).clips(1, 4.0, 0.0, 4.0).clips[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_each_film_is_asked_what_is_heard_and_what_is_seen(heard):
    names = {f"lvu/videos/{film.name}" for film in films(heard)}
    assert set(questions(heard, "heard")) == set(questions(heard, "seen")) == names
    for film in films(heard):
        answer = questions(heard, "seen")[f"lvu/videos/{film.name}"]
        assert answer == script(heard, film).labels["scene"]


def test_alarms_are_balanced_and_tell_nothing_of_the_labels():
    movies = [movie for _, movie in plan_movies(MovieSetParameters(clips=2000))]
    alarms = [alarm_of(0, number) for number in range(len(movies))]
    assert set(Counter(alarms).values()) == {500}
    for task, classes in TASKS.items():
        counts = Counter(zip(alarms, (m.labels[task] for m in movies), strict=True))
        table = np.array([[counts[a, c] for c in classes] for a in ALARMS])
        expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
        freedom = (len(ALARMS) - 1) * (len(classes) - 1)
        chi2 = ((table - expected) ** 2 / expected).sum()
        assert chi2 < freedom + 4 * (2 * freedom) ** 0.5, task


def spectrum(samples):
    """The loudest of each band over time: what an alarm adds to a film's voices."""
    frames = np.lib.stride_tricks.sliding_window_view(samples / 32768.0, 1024)[::512]
    energies = np.abs(np.fft.rfft(frames * np.hanning(1024)))
    bands = energies[:, :512].reshape(len(energies), 64, 8).sum(axis=2)
    return np.log(np.quantile(bands, 0.9, axis=0) + 1e-3)


def test_the_sound_tells_the_alarm():
    """The nearest mean spectrum of other films finds it, in nearly all of sixty films."""
    answers = np.array([alarm_of(0, number) for number in range(len(PLANNED))])
    features = np.stack([spectrum(soundtrack(m, a)) for m, a in zip(PLANNED, answers, strict=True)])
    learned, asked = features[:40], features[40:]
    means = np.stack([learned[answers[:40] == alarm].mean(axis=0) for alarm in ALARMS])
    nearest = np.linalg.norm(asked[:, None] - means, axis=2).argmin(axis=1)
    assert (np.array(ALARMS)[nearest] == answers[40:]).mean() > 0.9


def test_nothing_is_cut_off_and_a_sound_is_as_long_as_its_film():
    for movie in PLANNED[:20]:
        for alarm in ALARMS:
            samples = soundtrack(movie, alarm)
            assert samples.dtype == np.int16
            assert len(samples) == 6 * RATE_HZ
            assert 3000 < np.abs(samples.astype(int)).max() < 32767


def test_who_speaks_is_heard_while_speaking():
    for movie in PLANNED[:10]:
        differs = [soundtrack(movie, alarm) for alarm in ("bell", "siren")]
        ringing = np.nonzero(differs[0] != differs[1])[0]
        same = np.ones(len(differs[0]), bool)
        same[ringing[0] - 2 : ringing[-1] + 3] = False
        busy = np.zeros(len(same), bool)
        for event in (*movie.words, *movie.walks):
            busy[round(event.start_s * RATE_HZ) : round((event.end_s + 0.1) * RATE_HZ)] = True
        assert not differs[0][same & ~busy].any()
        spoken = np.zeros(len(same), bool)
        for words in movie.words:
            spoken[round(words.start_s * RATE_HZ) : round(words.end_s * RATE_HZ)] = True
        assert (differs[0][same & spoken] != 0).mean() > 0.9


def test_the_command_makes_films_with_sound(tmp_path, capsys):
    out = tmp_path / "set"
    main([f"out={out}", "clips=3", "duration_s=2", "fps=2", "size=32", "workers=0", "sound=true"])
    assert all(SoundSource(film).has_sound for film in films(out))
    with pytest.raises(SystemExit):
        main([f"out={out}", "sound=loud"])
    assert "'loud' is neither true nor false" in capsys.readouterr().err


def test_a_set_of_other_sound_is_another_set(silent):
    with pytest.raises(ConfigError, match=r"sound=True is asked for"):
        ensure_movie_set(silent, **SMALL, sound=True)
