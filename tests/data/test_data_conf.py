import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from mmavlm.core.config_files import config_dir
from mmavlm.data.datamodule import VideoDataModule

GROUP = sorted(path.stem for path in (Path(config_dir()) / "data").glob("*.yaml"))
GROUP.remove("mix")  # of several of the others
GROUP.remove("videos")  # what the others have in common


def datamodule(name, root, *overrides):
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", [f"data={name}", f"data.root={root}", "model=tiny", *overrides])
    return instantiate(config.data)


@pytest.mark.parametrize("name", GROUP)
def test_every_data_config_makes_a_datamodule(name, tmp_path):
    data = datamodule(name, tmp_path)
    assert isinstance(data, VideoDataModule)
    assert data.broken.max_broken == 0.01
    assert data.seed == 42


@pytest.mark.parametrize("name", GROUP)
def test_all_data_configs_have_the_same_settings_and_no_root(name):
    of_all, own = (
        yaml.safe_load((Path(config_dir()) / "data" / f"{file}.yaml").read_text())
        for file in ("videos", name)
    )
    assert own["root"] == "???"
    assert own["defaults"] == ["videos", "_self_"]
    assert own.keys() - {"defaults"} <= of_all.keys()


def test_own_rows_may_stand_in_a_csv_without_any_setting(tmp_path):
    (tmp_path / "a.mp4").touch()
    for split in ("train", "val", "test"):
        rows = "video,prompt,answer\na.mp4,what?,a dog\n"
        (tmp_path / f"{split}.csv").write_text(rows)
    data = datamodule("own_videos", tmp_path)
    assert [item.target for item in data.items("train")] == ["a dog"]


def test_webvid_is_read_from_csv_without_any_setting(tmp_path):
    film = tmp_path / "videos" / "p1" / "7.mp4"
    film.parent.mkdir(parents=True)
    film.touch()
    (tmp_path / "train.csv").write_text("videoid,name,page_dir\n7,A dog.,p1\n")
    data = datamodule("webvid", tmp_path, "data.reader.val=train.csv")
    assert [item.film.source for item in data.items("val")] == [film]


def test_other_names_of_keys_are_set_as_the_comments_and_the_remedy_say(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "train.jsonl").write_text('{"video": "a.mp4", "question": "what?", "answer": "so"}')
    data = datamodule("own_videos", tmp_path, "data.reader.keys={prompt: question}")
    assert [item.prompt for item in data.items("train")] == ["what?"]
    for path in (Path(config_dir()) / "data").glob("*.yaml"):
        if example := re.search(r"keys: .*# .*(\{.+\})", path.read_text()):
            inner = "reader.reader" if path.stem == "heard_videos" else "reader"
            datamodule(path.stem, tmp_path, f"data.{inner}.keys={example[1]}")
