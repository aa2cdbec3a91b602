import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.movies.generators import Grammar, TextGenerator, TextRequest
from mmavlm.movies.generators.endpoint import Endpoint
from mmavlm.movies.stories.expand import expand

KEY = "sk-not-to-be-seen"
REQUEST = TextRequest("plot", "Write a plot.", {"chapters": 1}, {}, seed=3, max_tokens=77)


class Server:
    """A chat server on loopback: (status, headers, body) in turn, then what `answer` says."""

    def __init__(self, answer=lambda body: "fine"):
        self.first, self.seen, self.answer = [], [], answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append((self.path, dict(self.headers), body))
                if outer.first:
                    status, headers, content = outer.first.pop(0)
                else:
                    message = {"role": "assistant", "content": outer.answer(body)}
                    usage = {"prompt_tokens": 5, "completion_tokens": 2}
                    told = {"choices": [{"message": message}], "usage": usage}
                    status, headers, content = 200, {}, json.dumps(told)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, *_):
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("STORY_KEY", KEY)
    server = Server()
    yield server
    server.close()


def endpoint(server, **settings):
    return Endpoint(
        server.url, "small", key_env="STORY_KEY", **{"wait_s": 0.001, "timeout_s": 5.0, **settings}
    )


def test_a_request_is_a_chat_with_the_key_of_the_environment(server):
    generator = endpoint(server)
    result = generator.complete(REQUEST)
    ((path, headers, body),) = server.seen
    assert (result.text, result.prompt_tokens, result.completion_tokens) == ("fine", 5, 2)
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["seed"], body["max_tokens"]) == ("small", 3, 77)
    assert body["messages"] == REQUEST.messages
    assert body["response_format"] == {"type": "json_object"}
    assert isinstance(generator, TextGenerator)


def test_without_a_key_none_is_sent(server, monkeypatch):
    monkeypatch.delenv("STORY_KEY")
    endpoint(server, json_mode=False).complete(REQUEST)
    ((_, headers, body),) = server.seen
    assert "Authorization" not in headers
    assert "response_format" not in body


def test_passing_failures_are_asked_again(server):
    server.first = [(503, {}, ""), (429, {"Retry-After": "0"}, ""), (200, {}, "not json")]
    assert endpoint(server).complete(REQUEST).text == "fine"
    assert len(server.seen) == 4


def test_lasting_failure_ends_in_an_error_without_the_key(server, caplog):
    server.first = [(500, {}, KEY)] * 3
    with pytest.raises(DataError, match=r"did not answer 3 times, at last: HTTP 500") as error:
        endpoint(server, retries=2).complete(REQUEST)
    assert KEY not in f"{error.value!r} {caplog.text}"


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, r"put the key into \$STORY_KEY"), (404, "model=small"), (400, "json_mode=false")],
)
def test_a_refusal_is_told_at_once_with_its_remedy_and_without_the_key(server, status, remedy):
    server.first = [(status, {}, f"wrong key {KEY}")]
    with pytest.raises(ConfigError, match=remedy) as error:
        endpoint(server).complete(REQUEST)
    assert len(server.seen) == 1
    assert KEY not in str(error.value)


def test_a_redirect_is_not_followed_so_the_key_stays(server):
    other = Server()
    server.first = [(307, {"Location": f"{other.url}/chat/completions"}, "")]
    with pytest.raises(ConfigError, match="HTTP 307"):
        endpoint(server).complete(REQUEST)
    other.close()
    assert other.seen == []


def test_a_server_that_is_not_there_or_answers_too_late_is_named(server):
    waits = threading.Event()
    server.answer = lambda body: waits.wait(2) and "late"
    with pytest.raises(DataError, match=r"did not answer 1 times.*imeout"):
        endpoint(server, timeout_s=0.1, retries=0).complete(REQUEST)
    waits.set()
    with pytest.raises(DataError, match=r"127.0.0.1:1/v1/chat/completions did not answer 2 times"):
        Endpoint("http://127.0.0.1:1/v1", "small", retries=1, wait_s=0.001).complete(REQUEST)


def test_an_answer_in_another_form_is_told(server):
    server.first = [(200, {}, '{"text": "hello"}')]
    with pytest.raises(DataError, match="gave no chat completion"):
        endpoint(server).complete(REQUEST)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("localhost:8000", "is no address"),
        ("https://me:secret@host/v1", "holds a password"),
        ("http://host.invalid/v1", "unencrypted"),
    ],
)
def test_addresses_that_would_give_the_key_away_are_refused(url, complaint, monkeypatch):
    monkeypatch.setenv("STORY_KEY", KEY)
    with pytest.raises(ConfigError, match=complaint) as error:
        Endpoint(url, "small", key_env="STORY_KEY")
    assert KEY not in str(error.value)
    assert "secret" not in str(error.value)


def test_the_key_is_in_neither_fingerprint_nor_attributes(server):
    generator = endpoint(server)
    assert KEY not in f"{generator.fingerprint} {vars(generator)}"


def test_a_story_told_over_the_wire_equals_the_story_of_who_tells_it(server):
    def grammar(body):
        told = body["messages"][1]["content"]
        context = told.split("Context:\n")[1].split("\n\nSchema")[0]
        task = {"Write the plot": "plot", "Divide this": "scenes", "Write the asked": "shots"}
        name = next(name for start, name in task.items() if told.startswith(start))
        request = TextRequest(name, "", json.loads(context), {}, body["seed"])
        return Grammar().complete(request).text

    server.answer = grammar
    assert expand(endpoint(server), (2, 2, 3)) == expand(Grammar(), (2, 2, 3))
