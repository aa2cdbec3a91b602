"""What a run leaves behind holds no secret of its environment."""

import pytest

from mmavlm import train
from mmavlm.core.errors import ConfigError
from mmavlm.run.secrets import refuse_secrets
from support import SMALL

SECRETS = {"WANDB_API_KEY": "0123456789abcdef-wandb", "HF_TOKEN": "hf_0123456789abcdef"}


@pytest.fixture(autouse=True)
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_no_file_and_no_word_of_a_run_holds_a_secret(run, films, tmp_path, capfd):
    arguments = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "hydra.run.dir=one"]
    assert run(train, *arguments) == 0
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert {"config.yaml", "last.ckpt", "report.html"} <= {path.name for path in files}
    said = "".join(capfd.readouterr())
    for secret in SECRETS.values():
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert secret not in said


def test_a_setting_that_takes_one_in_is_named_and_its_value_is_not(run, films, tmp_path, capsys):
    arguments = ["experiment=lvu_genre", *SMALL, f"data.root={films}", "hydra.run.dir=one"]
    assert run(train, *arguments, "+logger.csv.prefix=${oc.env:HF_TOKEN}") == 1
    said = capsys.readouterr().err
    assert "error: logger.csv.prefix holds the value of the environment variable HF_TOKEN" in said
    assert SECRETS["HF_TOKEN"] not in said
    assert not (tmp_path / "one/config.yaml").exists()


def test_secrets_are_found_wherever_they_lie_and_short_values_are_none(monkeypatch):
    with pytest.raises(ConfigError, match=r"a\.b\[1\] holds .*WANDB_API_KEY"):
        refuse_secrets({"a": {"b": ["x", f"https://{SECRETS['WANDB_API_KEY']}@host"]}})
    monkeypatch.setenv("SOME_KEY", "1")
    refuse_secrets({"a": "1", "b": 1, "c": None})
