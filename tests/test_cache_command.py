"""A data set encoded once, and the runs that then need no encoder."""

import csv
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from mmavlm import cache, evaluate, predict, train
from mmavlm.data import fill_cache, known_films
from mmavlm.model.encoders import TinyEncoder
from mmavlm.run import features
from mmavlm.run.features import build_encoder
from support import SMALL, CountedEncoder, composed

LVU = ["experiment=lvu_genre", *SMALL, "data.crop=false", "data.flip=false"]
COUNTED = ["encoder._target_=support.CountedEncoder"]


@pytest.fixture(autouse=True)
def built():
    """How often an encoder was built in a test, as a list of one number."""
    CountedEncoder.built = 0
    return lambda: CountedEncoder.built


@pytest.fixture(scope="session")
def full_cache(films, tmp_path_factory):
    """A cache that holds the twelve films' features, by the counted encoder."""
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = [*LVU, *COUNTED, f"data.root={films}", f"data.cache={folder}/cache"]
        patch.setattr("sys.argv", ["cache", *arguments])
        cache.main()
    return folder / "cache"


def contents(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def losses(folder):
    with (folder / "csv/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row["train/loss"]) for row in rows if row["train/loss"]]


def test_the_command_tells_its_size_first_and_when_run_again_writes_nothing(
    run, films, tmp_path, capsys, built
):
    arguments = [*LVU, *COUNTED, f"data.root={films}", "data.cache=cache"]
    assert run(cache, *arguments, "write=false") == 0
    assert "12 entries, 0 present, 12 missing: up to " in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()
    assert run(cache, *arguments) == 0
    assert "12 entries written; 0 of 12 videos broken" in capsys.readouterr().out
    assert built() == 2
    before = contents(tmp_path / "cache")
    assert run(cache, *arguments) == 0
    assert "12 entries, 12 present\n0 entries written" in capsys.readouterr().out
    assert contents(tmp_path / "cache") == before
    assert built() == 2


def test_a_run_from_a_full_cache_builds_no_encoder_and_writes_nothing_there(
    run, films, full_cache, built, tmp_path
):
    before, before_data = contents(full_cache), contents(films)
    common = [*LVU, *COUNTED, f"data.root={films}", f"data.cache={full_cache}"]
    assert run(train, *common, "hydra.run.dir=run") == 0
    assert built() == 0
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    assert run(evaluate, f"checkpoint={checkpoint}", "trust=support", "hydra.run.dir=again") == 0
    assert built() == 0
    assert contents(full_cache) == before
    assert contents(films) == before_data
    one, two = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "again")
    )
    tested = {name: value for name, value in one.items() if name.startswith("test/")}
    assert {name: two[name] for name in tested} == pytest.approx(tested, abs=1e-5)


def test_training_from_the_cache_gives_the_losses_of_training_without_it(
    run, films, full_cache, tmp_path
):
    common = [*LVU, *COUNTED, f"data.root={films}", "test=false", "trainer.max_epochs=2",
              "trainer.log_every_n_steps=1", "optimizer.warmup_steps=0"]  # fmt: skip
    assert run(train, *common, "hydra.run.dir=without") == 0
    assert run(train, *common, f"data.cache={full_cache}", "hydra.run.dir=from") == 0
    assert run(train, *common, "data.cache=new", "hydra.run.dir=filling") == 0
    without, cached, filling = (losses(tmp_path / name) for name in ("without", "from", "filling"))
    assert len(without) >= 3
    assert without[0] != without[-1]
    assert cached == pytest.approx(without, rel=2e-3)
    assert filling == cached


def test_a_first_run_fills_the_cache_and_the_next_builds_no_encoder(run, films, built, capsys):
    common = [*LVU, *COUNTED, f"data.root={films}", "data.cache=cache", "test=false"]
    assert run(train, *common, "hydra.run.dir=one") == 0
    assert built() == 1
    assert "0 present, " in capsys.readouterr().err
    assert run(train, *common, "hydra.run.dir=two") == 0
    assert built() == 1


def test_an_encoder_of_random_weights_is_the_same_for_every_seed_of_a_run():
    random = ["encoder=timm", "encoder.name=vit_tiny_patch16_224", "encoder.pretrained=false"]
    before = torch.get_rng_state()
    one, other = (build_encoder(composed(*random, f"seed={seed}")) for seed in (1, 2))
    assert one.fingerprint == other.fingerprint
    assert torch.equal(torch.get_rng_state(), before)


def test_other_chunks_need_no_encoder_and_another_seed_of_it_does(
    run, films, full_cache, built, capsys
):
    copy = shutil.copytree(full_cache, Path("cache"))
    common = [*LVU, *COUNTED, f"data.root={films}", f"data.cache={copy}"]
    assert run(cache, *common, "encoder.chunk_size=3") == 0
    assert built() == 0
    assert run(cache, *common, "encoder.seed=5") == 0
    assert "12 entries, 0 present" in capsys.readouterr().out
    assert built() == 1


def test_an_encoder_that_changed_under_the_same_settings_is_told(
    run, films, full_cache, capsys, monkeypatch
):
    copy = shutil.copytree(full_cache, Path("cache"))
    for entry in copy.rglob("*.safetensors"):
        entry.unlink()
    monkeypatch.setattr(CountedEncoder, "fingerprint", "changed")
    common = [*LVU, *COUNTED, f"data.root={films}", f"data.cache={copy}"]
    assert run(cache, *common) == 1
    assert "holds features of another encoder under these settings" in capsys.readouterr().err
    assert run(cache, *common) == 0
    assert "12 entries written" in capsys.readouterr().out


def test_a_broken_film_is_named_within_the_budget_and_needs_no_encoder_later(
    run, films, built, capsys
):
    root = shutil.copytree(films, Path("copy"))
    video = next(iter(json.loads((root / "lvu/annotation/train.json").read_text())))
    (root / f"lvu/videos/{video}.mp4").write_bytes(b"")
    common = [*LVU, *COUNTED, f"data.root={root}", "data.cache=cache"]
    assert run(cache, *common) == 1
    assert "raise data.max_broken" in capsys.readouterr().err
    assert run(cache, *common, "data.max_broken=0.5") == 0
    output = capsys.readouterr()
    assert f"broken video {video} left out: " in output.err
    assert "1 of 12 videos broken or missing" in output.out
    before = built()
    assert run(train, *common, "data.max_broken=0.5", "hydra.run.dir=run", "test=false") == 0
    assert built() == before


def test_predict_asks_of_a_new_film_with_the_encoder_itself(
    run, films, full_cache, built, tmp_path, capsys
):
    common = [*LVU, *COUNTED, f"data.root={films}", f"data.cache={full_cache}", "test=false"]
    assert run(train, *common, "hydra.run.dir=run") == 0
    video = next((films / "lvu/videos").glob("*.mp4"))
    arguments = [f"checkpoint={tmp_path}/run/checkpoints/last.ckpt", f"video={video}"]
    assert run(predict, *arguments, "prompt=what", "format=json", "trust=support") == 0
    assert built() == 1


def test_stage_one_trains_from_the_cache_too(run, films, built):
    common = ["experiment=webvid_alignment", *SMALL, *COUNTED, f"data.root={films}",
              "data.crop=false", "data.flip=false", "data.cache=cache"]  # fmt: skip
    assert run(cache, *common) == 0
    assert built() == 1
    assert run(train, *common, "hydra.run.dir=run") == 0
    assert built() == 1


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (cache, [], "data.cache is null; name the folder of the cache: data.cache=…"),
        (cache, ["data.cache=cache", "data.root=/nowhere"], "data.root=/nowhere does not exist"),
        (cache, ["data.cache=file/cache"], "file/cache"),
        (
            train,
            ["data.cache=cache", "data.crop=true"],
            "set data.crop=false data.flip=false, or data.cache=null",
        ),
        (
            train,
            ["data.cache=cache", "data.flip=true"],
            "set data.crop=false data.flip=false, or data.cache=null",
        ),
        (
            train,
            ["data.cache=cache", "data.image_size=32"],
            "data.image_size=32, but the encoder whose features are cached takes pictures of 64",
        ),
    ],
)
def test_a_mistake_gets_one_message_and_nothing_is_written(
    run, films, capsys, tmp_path, module, arguments, message
):
    (tmp_path / "file").touch()
    assert run(module, *LVU, f"data.root={films}", *arguments, "hydra.run.dir=.") == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "cache").exists()


def test_a_disk_that_is_short_is_refused_before_anything_is_written(
    run, films, capsys, tmp_path, monkeypatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(fill_cache.shutil, "disk_usage", lambda _: usage(10**6, 10**6, 1000))
    for module in (cache, train):
        arguments = [*LVU, f"data.root={films}", "data.cache=cache", "hydra.run.dir=."]
        assert run(module, *arguments) == 1
        assert "data.cache=cache needs up to " in capsys.readouterr().err
        assert not (tmp_path / "cache").exists()


def test_the_counted_encoder_is_the_tiny_one():
    encoder = CountedEncoder()
    assert encoder.fingerprint != TinyEncoder().fingerprint  # its name is part of it
    frames = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(encoder(frames), TinyEncoder()(frames))


@pytest.mark.slow
def test_a_mix_is_trained_from_the_cache_and_shares_entries_with_its_sets(
    run, films, full_cache, capsys, built
):
    sets = ("lvu", "breakfast", "msvd_qa")
    whole = [f"data.sets.{name}.{key}=false" for name in sets for key in ("crop", "flip")]
    mix = ["experiment=mix", *SMALL, *COUNTED, f"data.root={films}", f"data.cache={full_cache}"]
    assert run(cache, *mix, *whole, "write=false") == 0
    assert "24 entries, 12 present, 12 missing" in capsys.readouterr().out
    copy = [*mix[:-1], "data.cache=copy"]
    shutil.copytree(full_cache, "copy")
    assert run(train, *copy, *whole, "test=false", "hydra.run.dir=first") == 0
    before = built()
    assert run(train, *copy, *whole, "test=false", "hydra.run.dir=second") == 0
    assert built() == before
    assert run(train, *copy, "hydra.run.dir=third") == 1
    assert "data.cache holds features of whole pictures" in capsys.readouterr().err


def test_a_cache_is_packed_and_pruned_and_trained_from(run, films, tmp_path, capsys, built):
    arguments = [*LVU, *COUNTED, f"data.root={films}", "data.cache=cache"]
    assert run(cache, *arguments, "data.num_frames=3") == 0
    assert run(cache, *arguments, "pack=true", "prune=true") == 0
    said = capsys.readouterr().out
    assert "packed: 24 entries" in said
    assert "needed:  24 entries" in said
    assert "nothing was removed" in said
    for note in (tmp_path / "cache").glob("*/uses/*.use"):
        note.unlink()
    assert run(cache, *arguments, "prune=remove", "verify=true") == 0
    said = capsys.readouterr().out
    assert "12 entries, 12 present" in said
    assert "removed: 0 entries" in said
    assert "unknown: 12 entries" in said
    assert run(cache, *arguments, "prune=all") == 0
    assert "removed: 12 entries" in capsys.readouterr().out
    before = built()
    assert run(train, *arguments, "trainer.max_epochs=1", "test=false") == 0
    assert built() == before


def test_a_way_to_prune_that_there_is_none_of_is_refused(run, films, capsys):
    arguments = [*LVU, f"data.root={films}", "data.cache=cache"]
    assert run(cache, *arguments, "prune=everything") == 1
    assert "prune=everything is unknown; choose true" in capsys.readouterr().err
    assert run(cache, *arguments, "keep_days=3") == 1
    assert "read with prune=true alone" in capsys.readouterr().err


def test_films_of_a_large_cache_are_looked_at_when_they_are_read(
    run, films, tmp_path, monkeypatch, capsys
):
    for module in (fill_cache, features):
        monkeypatch.setattr(module, "OPENED", 5)
    own = tmp_path / "own"
    shutil.copytree(films / "lvu", own / "lvu", symlinks=False)
    arguments = [*LVU, *COUNTED, f"data.root={own}", "data.cache=cache", "test=false"]
    assert run(cache, *arguments[:-1]) == 0
    (table,) = (tmp_path / "cache").glob("films.known")
    looked, identity = [], known_films.identity
    monkeypatch.setattr(known_films, "identity", lambda p: looked.append(p) or identity(p))
    assert run(train, *arguments, "hydra.run.dir=first") == 0
    assert looked == []
    for path in (own / "lvu/videos").glob("*.mp4"):
        path.touch()
    assert run(train, *arguments, "hydra.run.dir=second") == 1
    assert "has changed, or is gone, since its features" in capsys.readouterr().err
    before = table.read_bytes()
    assert run(cache, *arguments[:-1]) == 0
    assert "12 entries written" in capsys.readouterr().out
    assert table.read_bytes() != before
    assert run(train, *arguments, "hydra.run.dir=third") == 0
