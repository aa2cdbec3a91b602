import pytest

from mmavlm.core.redaction import is_secret, redacted, redacted_address, redacted_argument


@pytest.mark.parametrize(
    "name",
    ["api_key", "WANDB_API_KEY", "logger.x.token", "HF_TOKEN", "db.password", "client-secret"],
)
def test_what_is_called_a_secret_is_one(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["max_new_tokens", "cache_keys", "prompt_tokenizer", "monitor", "author", "qformer.num_tokens"],
)
def test_what_only_sounds_like_a_secret_is_none(name):
    assert not is_secret(name)


def test_secrets_are_hidden_at_any_depth_and_nothing_else_is_touched():
    config = {
        "logger": [{"api_key": "abc", "project": "x"}], "lr": 1e-3, "token": None, "test": True,
        "root": "https://me:pass@host/data", "llm": "hf_abcdefghijklmnop123",
    }  # fmt: skip
    assert redacted(config) == {
        "logger": [{"api_key": "***", "project": "x"}], "lr": 1e-3, "token": None, "test": True,
        "root": "https://***@host/data", "llm": "***",
    }  # fmt: skip


def test_the_value_of_a_secret_variable_is_hidden_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "0123456789abcdef")
    assert redacted({"note": "key 0123456789abcdef!"}) == {"note": "key ***!"}


def test_a_command_line_keeps_its_settings_and_loses_its_secrets():
    assert redacted_argument("+logger.wandb.api_key=abc") == "+logger.wandb.api_key=***"
    assert redacted_argument("data.root=/data/films") == "data.root=/data/films"
    assert redacted_argument("-m") == "-m"


@pytest.mark.parametrize("password", ["hunter2", "hun@ter2", "a:b@c", "@"])
def test_a_password_in_an_address_may_hold_an_at_sign(password):
    assert redacted(f"see rtsp://me:{password}@host/1") == "see rtsp://***@host/1"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:p/w?x@d@host:554/1", "rtsp://***@host:554/1"),
        ("http://token@host/live", "http://***@host/live"),
        ("http://host/video.cgi?usr=me&pwd=secret", "http://host/video.cgi?***"),
        ("http://me:secret@host/v?pwd=secret", "http://***@host/v?***"),
        ("http://host:8080/live.ts", "http://host:8080/live.ts"),
        ("udp://@:1234", "udp://@:1234"),
        ("http:/me:secret@host/1", "http:/***@host/1"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(address, shown):
    assert redacted_address(address) == shown
