"""Text from an OpenAI-compatible endpoint: a server that answers `<base_url>/chat/completions`."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.movies.generators.text import TextRequest, TextResult

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT_S = 60.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to wherever it points."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""
        return


class Endpoint:
    """Asks `model` at `base_url`; the key comes from the environment variable `key_env` alone.

    What fails for a passing reason (no connection, a time-out, 429, 5xx) is asked again up to
    `retries` times, waiting `wait_s` and twice as long each time, or what the server says. The key
    is in no message, log or fingerprint, goes to no other server, and never over plain http beyond
    this machine. `json_mode` asks for `response_format`, which some servers do not know.

    Raises:
        ConfigError: if the address cannot be used, or the key would travel in the open.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_env: str = "OPENAI_API_KEY",
        temperature: float = 0.8,
        timeout_s: float = 120.0,
        retries: int = 5,
        wait_s: float = 1.0,
        json_mode: bool = True,
    ) -> None:
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError(f"base_url={base_url!r} is no address; give https://host/v1")
        if address.username or address.password:
            raise ConfigError(f"base_url holds a password; put the key into ${key_env} instead")
        if address.scheme == "http" and os.environ.get(key_env) and not _is_here(address.hostname):
            raise ConfigError(
                f"base_url={base_url!r} would carry the key of ${key_env} unencrypted; use https, "
                f"or unset {key_env}"
            )
        self.base_url, self.model, self.key_env = base_url.rstrip("/"), model, key_env
        self.temperature, self.timeout_s = temperature, timeout_s
        self.retries, self.wait_s, self.json_mode = retries, wait_s, json_mode
        self._open = urllib.request.build_opener(_NoRedirect).open

    @property
    def fingerprint(self) -> str:
        """Model and temperature; the server's address is no part, since models move."""
        return f"endpoint, {self.model}, temperature {self.temperature}"

    def complete(self, request: TextRequest) -> TextResult:
        """The model's answer.

        Raises:
            ConfigError: if the server refuses the request.
            DataError: if it does not answer, or in another form.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages": request.messages,
            "max_tokens": request.max_tokens,
            "temperature": self.temperature,
            "seed": request.seed,
        }
        if self.json_mode:
            body["response_format"] = {"type": "json_object"}
        answer = self._post(json.dumps(body).encode())
        try:
            text = answer["choices"][0]["message"]["content"]
            usage = answer.get("usage") or {}
            if not isinstance(text, str):
                raise TypeError(f"content is {type(text).__name__}, not a text")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self.base_url} gave no chat completion ({error!r}); is it OpenAI-compatible?"
            ) from None
        counts = (int(usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
        return TextResult(text, *counts)

    def _post(self, body: bytes) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key := os.environ.get(self.key_env):
            headers["Authorization"] = f"Bearer {key}"
        url = f"{self.base_url}/chat/completions"
        reason = ""
        for attempt in range(self.retries + 1):
            try:
                # the constructor admits http and https alone
                asked = urllib.request.Request(url, data=body, headers=headers)
                with self._open(asked, timeout=self.timeout_s) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code} {error.reason}"
                if error.code not in RETRIED:
                    raise ConfigError(self._refused(error)) from None
                wait_s = self._wait_s(attempt, error.headers.get("Retry-After"))
            except (OSError, ValueError) as error:  # no connection, a time-out, broken JSON
                reason = f"{type(error).__name__}: {error}"
                wait_s = self._wait_s(attempt, None)
            if attempt < self.retries:
                time.sleep(wait_s)
        raise DataError(
            f"{url} did not answer {self.retries + 1} times, at last: {reason}. What is written so "
            "far is kept; run the command again to go on"
        )

    def _wait_s(self, attempt: int, told: str | None) -> float:
        if told is not None and told.isdigit():
            return min(float(told), LONGEST_WAIT_S)
        # Apart from each other, so that several films do not come back at once.
        return min(self.wait_s * 2**attempt * random.uniform(0.75, 1.25), LONGEST_WAIT_S)

    def _refused(self, error: urllib.error.HTTPError) -> str:
        """What a refusal means, without the server's own words, which may echo the key."""
        remedy = {
            401: f"put the key into ${self.key_env}",
            403: f"the key of ${self.key_env} may not use {self.model}",
            404: f"look at base_url and model={self.model}",
        }.get(error.code, "look at model and settings (json_mode=false for older servers)")
        return f"{self.base_url} refuses the request with HTTP {error.code}: {remedy}"


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
